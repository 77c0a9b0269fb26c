import { expect } from 'chai';
import { connect, type Client, type WorkMessages } from '../../client/index.js';
import { FakeServer, json, type Seen } from '../../client/testing/fake-server.js';
import { claim } from '../../test/fake-api.js';
import { until } from '../../test/until.js';
import { Claimer, type ClaimerOptions } from './claimer.js';
import { Reporter } from './reporter.js';
import { quiet } from './testing/quiet.js';

type MessageSource = NonNullable<ClaimerOptions['queue']>;

describe('claimer', () => {
  let client: Client;

  afterEach(() => client.close());

  /** A claimer by messages, for a single slot unless said otherwise, whose lease is certain: its calls may wait. */
  function claimerOf(url: string, options: Pick<ClaimerOptions, 'queue'> & Partial<ClaimerOptions>): Claimer {
    client = connect({ url });
    const shared = { controllers: client.controllers, controller: 'c' };
    return new Claimer({
      client,
      controller: 'c',
      worker: 'w',
      claimSeconds: () => 15,
      lease: { left: 15_000, claimed: () => undefined, claimFailed: () => undefined, doubt: () => undefined },
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

  const isPoll = ({ body }: Seen) => (body as { waitSeconds?: number }).waitSeconds !== undefined;
  /** No message comes until the stop. */
  const silence: MessageSource = {
    isReady: () => true,
    take: (_, { signal }) => new Promise(resolve => signal?.addEventListener('abort', () => resolve(undefined))),
  };

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
      if (isPoll(seen)) return;
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
          return silence.take(1, { idleSeconds: 2, ...(signal && { signal }) });
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

  it('waits besides the messages for keys that come without one', async () => {
    const polls: unknown[] = [];
    const server = await FakeServer.start((seen, response) => {
      polls.push(seen.body);
      if (polls.length === 1) json(response, 200, { claims: [claim('without')] });
    });
    const begun: string[] = [];
    const claimer = claimerOf(server.url, {
      queue: silence,
      room: { take: (_, part) => Promise.resolve(part === 'smaller' ? 2 : 3), settle: () => undefined },
      begin: ({ token }) => begun.push(token),
    });
    claimer.start();
    await until(() => polls.length === 2, { what: 'the next wait' });
    expect(begun).to.deep.equal(['token-without']);
    expect(polls[0]).to.deep.equal({ worker: 'w', max: 2, messages: [], waitSeconds: 25 });
    await claimer.stop();
    await server.stop();
  });

  /** Says so many times that no message came for a while, once `ready`. */
  function silentQueue(times: number, ready: () => boolean = () => true): MessageSource {
    return {
      isReady: () => true,
      take: async (max, options) => {
        await until(ready, { what: 'the wait besides' });
        return times-- > 0 ? undefined : silence.take(max, options);
      },
    };
  }

  it('looks for keys whose messages are lost, when none came for a while, unless a call waits besides', async () => {
    let polls = 0;
    let looks = 0;
    const server = await FakeServer.start((seen, response) => {
      if ((seen.body as { waitSeconds: number }).waitSeconds > 0) polls++;
      else {
        looks++;
        json(response, 200, { claims: [] });
      }
    });
    let settled = 0;
    const settle = () => {
      settled++;
    };
    const waiting = claimerOf(server.url, {
      queue: silentQueue(10, () => polls === 1),
      room: { take: () => Promise.resolve(1), settle },
    });
    waiting.start();
    await until(() => settled === 10, { what: 'ten times of silence' });
    expect(looks).to.equal(0);
    await waiting.stop();
    await client.close();
    const never = (signal: AbortSignal) =>
      new Promise<number>(resolve => signal.addEventListener('abort', () => resolve(0)));
    const busy = claimerOf(server.url, {
      queue: silentQueue(1),
      room: { take: (signal, part) => (part === 'smaller' ? never(signal) : Promise.resolve(1)), settle },
    });
    busy.start();
    await until(() => looks === 1, { what: 'a look' });
    await busy.stop();
    await server.stop();
  });
});
