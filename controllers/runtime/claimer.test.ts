import { expect } from 'chai';
import { connect, type Client, type WorkMessages } from '../../client/index.js';
import { FakeServer, json } from '../../client/testing/fake-server.js';
import { until } from '../../test/until.js';
import { Claimer, type ClaimerOptions } from './claimer.js';
import { Lease } from './lease.js';
import { Reporter } from './reporter.js';
import { quiet } from './testing/quiet.js';

describe('claimer', () => {
  let client: Client;

  afterEach(() => client.close());

  /** A claimer by messages, for a single slot unless said otherwise. */
  function claimerOf(url: string, options: Pick<ClaimerOptions, 'queue'> & Partial<ClaimerOptions>): Claimer {
    client = connect({ url });
    const shared = { controllers: client.controllers, controller: 'c' };
    const claimSeconds = () => 15;
    return new Claimer({
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
      room: { take: () => Promise.resolve(1), settle: () => undefined },
      begin: () => undefined,
      register: () => Promise.resolve(),
      forgotten: () => undefined,
      reachable: () => undefined,
      ...options,
    });
  }

  it('acknowledges the messages that come in the moment of its stop', async () => {
    let waiting = false;
    let acknowledged = 0;
    const messages: WorkMessages = { keys: [{ type: 'clusters', name: 'a' }], acknowledge: () => acknowledged++ };
    // Nothing is asked of it: the stop is between the messages and the claim.
    const claimer = claimerOf('http://127.0.0.1:9', {
      queue: {
        isReady: () => true,
        take: (_, { signal }) =>
          new Promise(resolve => {
            waiting = true;
            signal?.addEventListener('abort', () => resolve(messages));
          }),
      },
    });
    claimer.start();
    await until(() => waiting, { what: 'the wait for messages' });
    await claimer.stop();
    expect(acknowledged).to.equal(1);
  });

  it('claims for messages that come while the claim before theirs is unanswered', async () => {
    const asked: unknown[] = [];
    let answer: () => void = () => undefined;
    const server = await FakeServer.start((seen, response) => {
      asked.push(seen.body);
      const empty = () => json(response, 200, { claims: [] });
      // The first one is answered when the second one has come.
      if (asked.length === 1) answer = empty;
      else {
        empty();
        answer();
      }
    });
    const names = ['a', 'b'];
    const settled: number[] = [];
    const claimer = claimerOf(server.url, {
      queue: {
        isReady: () => true,
        take: async (_, { signal }) => {
          const name = names.shift();
          if (name !== undefined) return { keys: [{ type: 'clusters', name }], acknowledge: () => undefined };
          return new Promise(resolve => signal?.addEventListener('abort', () => resolve(undefined)));
        },
      },
      room: { take: () => Promise.resolve(5), settle: room => void settled.push(room) },
    });
    claimer.start();
    await until(() => asked.length === 2, { what: 'the second claim' });
    const message = (name: string) => ({ worker: 'w', max: 1, messages: [{ type: 'clusters', name }] });
    expect(asked).to.deep.equal([message('a'), message('b')]);
    // Room that no message needs is there for the other claim.
    expect(settled.slice(0, 2)).to.deep.equal([4, 4]);
    await claimer.stop();
    await server.stop();
  });
});
