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
  const noMessage: MessageSource = {
    isReady: () => true,
    take: (_, { signal }) => new Promise(resolve => signal?.addEventListener('abort', () => resolve(undefined))),
  };

  it('acknowledges the messages that come in the moment of its stop', async () => {
    let waiting = false;
    let acknowledged = 0;
    const messages: WorkMessages = { keys: [{ type: 'clusters', name: 'a' }], acknowledge: () => acknowledged++ };
    // The stop is between the messages and their claim.
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
        take: async (max, options) => {
          const name = names.shift();
          if (name !== undefined) return { keys: [{ type: 'clusters', name }], acknowledge: () => undefined };
          return noMessage.take(max, options);
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
      queue: noMessage,
      room: { take: (_, part) => Promise.resolve(part === 'smaller' ? 2 : 3), settle: () => undefined },
      begin: ({ token }) => begun.push(token),
    });
    claimer.start();
    await until(() => polls.length === 2, { what: 'the next wait' });
    expect(begun).to.deep.equal(['token-without']);
    expect(polls[0]).to.deep.equal({ worker: 'w', max: 2, messages: [], waitSeconds: 10 });
    await claimer.stop();
    await server.stop();
  });

  /** What a claimer asks when its queue has told several times that no message came for a while. */
  async function silence(answer: (wait: number, room: number) => object[] | undefined): Promise<number[]> {
    const waits: number[] = [];
    const server = await FakeServer.start((seen, response) => {
      const { max, messages, waitSeconds } = seen.body as { max: number; messages?: []; waitSeconds: number };
      if (!messages) waits.push(waitSeconds);
      const claims = messages ? answer(waitSeconds, max) : [];
      if (claims) json(response, 200, { claims });
    });
    let turns = 0;
    const queue: MessageSource = {
      isReady: () => true,
      take: async (max, options) => {
        // The first call besides has been answered.
        await until(() => server.seen.length > 1 || waits.length > 0, { what: 'the call besides' });
        return ++turns <= 5 ? undefined : noMessage.take(max, options);
      },
    };
    const claimer = claimerOf(server.url, { queue, room: { take: () => Promise.resolve(2), settle: () => undefined } });
    claimer.start();
    await until(() => turns > 5, { what: 'five times of silence' });
    await claimer.stop();
    await server.stop();
    return waits;
  }

  it('looks for keys whose messages are lost when none came for a while, and goes on while it finds some', async () => {
    // There is plenty: each call besides brings as much as it asks for.
    let number = 0;
    const plenty = (_: number, max: number) => Array.from({ length: max }, () => claim(`key${number++}`));
    expect((await silence(plenty)).length).to.be.at.least(4);
  });

  it('does not look for them where a call besides has found nothing more', async () => {
    let answers = 0;
    expect(await silence(() => (answers++ === 0 ? [claim('only')] : undefined))).to.deep.equal([]);
  });
});
