import { expect } from 'chai';
import { connect, type WorkMessages } from '../../client/index.js';
import { until } from '../../test/until.js';
import { Claimer } from './claimer.js';
import { Lease } from './lease.js';
import { Reporter } from './reporter.js';
import { quiet } from './testing/quiet.js';

describe('claimer', () => {
  it('acknowledges the messages that come in the moment of its stop', async () => {
    // Nothing is asked of it: the stop is between the messages and the claim.
    const client = connect({ url: 'http://127.0.0.1:9' });
    const shared = { controllers: client.controllers, controller: 'c' };
    const claimSeconds = () => 15;
    let waiting = false;
    let acknowledged = 0;
    const messages: WorkMessages = { keys: [{ type: 'clusters', name: 'a' }], acknowledge: () => acknowledged++ };
    const claimer = new Claimer({
      client,
      controller: 'c',
      worker: 'w',
      claimSeconds,
      lease: new Lease({
        ...shared,
        worker: 'w',
        claimSeconds,
        events: {
          tokens: () => [],
          known: () => new Set(),
          lost: () => undefined,
          changed: () => undefined,
          unknown: () => undefined,
          forgotten: () => undefined,
          heard: () => undefined,
          reachable: () => undefined,
        },
      }),
      reporter: new Reporter({ ...shared, log: quiet, fenced: () => undefined, company: () => true }),
      bucket: undefined,
      queue: {
        isReady: () => true,
        take: (_, { signal }) =>
          new Promise(resolve => {
            waiting = true;
            signal?.addEventListener('abort', () => resolve(messages));
          }),
      },
      room: { take: () => Promise.resolve(1), settle: () => undefined },
      begin: () => undefined,
      register: () => Promise.resolve(),
      forgotten: () => undefined,
      reachable: () => undefined,
    });
    claimer.start();
    await until(() => waiting, { what: 'the wait for messages' });
    await claimer.stop();
    await client.close();
    expect(acknowledged).to.equal(1);
  });
});
