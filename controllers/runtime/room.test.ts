import { expect } from 'chai';
import { once } from 'node:events';
import { pause } from '../../client/index.js';
import { json } from '../../client/testing/fake-server.js';
import { claim, FakeApi, type Result } from '../../test/fake-api.js';
import { until } from '../../test/until.js';
import { Room } from './room.js';

describe('the room of a worker', () => {
  const { signal } = new AbortController();

  it('is shared by two kinds of claims: the second never has all of it', async () => {
    let held = 0;
    const room = new Room({ slots: 8, ahead: false, held: () => held });
    expect(await room.take(signal, 'larger')).to.equal(4);
    expect(await room.take(signal, 'smaller')).to.equal(2);
    expect(await room.take(signal, 'larger')).to.equal(1);
    // A single one is for the first kind.
    const smaller = room.take(signal, 'smaller');
    expect(await room.take(signal, 'larger')).to.equal(1);
    held = 4;
    room.settle(8);
    expect(await smaller).to.equal(2);
  });
});

describe('worker, and how much it claims and begins', () => {
  let api: FakeApi;

  beforeEach(async () => {
    api = await FakeApi.start();
  });

  afterEach(() => api.stop());

  it('claims for a single free slot while all others are busy for long', async () => {
    const begun: string[] = [];
    api.claims = [['a', 'b', 'c', 'd', 'e', 'f', 'g'].map(name => claim(name)), [], [claim('h')]];
    await api.work(
      {
        reconcile: async (_, context) => {
          begun.push(context.key.name);
          if (context.key.name !== 'h') await once(context.signal, 'abort');
        },
        longRunning: true,
      },
      8,
    );
    await until(() => begun.includes('h'), { what: 'the eighth key' });
    const asked = api.seen.filter(({ url }) => url.pathname.endsWith('/claims')).map(({ body }) => body);
    expect(asked[1]).to.include({ max: 1 });
  });

  it('begins no more runs than its rate allows, however many slots are free', async () => {
    const times: number[] = [];
    api.claims = ['a', 'b', 'c', 'd', 'e'].map(name => [claim(name)]);
    await api.work(
      {
        rateLimit: { perSecond: 4, burst: 1 },
        reconcile: () => {
          times.push(performance.now());
          return Promise.resolve();
        },
      },
      32,
    );
    await until(() => times.length >= 4, { what: 'four runs' });
    const [first = 0] = times;
    for (const [i, time] of times.entries()) expect(time - first).to.be.at.least(i * 250 - 30);
  });

  it('claims ahead of its free slots while runs are short, and leaves to others what a slow run then holds up', async () => {
    let number = 0;
    const most = () =>
      Math.max(...api.seen.flatMap(({ url, body }) => (url.pathname.endsWith('/claims') ? [maxOf(body)] : [])));
    const maxOf = (body: unknown) => (body as { max: number }).max;
    let slow = false;
    api.instead.set('/claims', (seen, response) => {
      const taken = api.take((seen.body as { results?: Result[] }).results) ?? [];
      const names = Array.from({ length: maxOf(seen.body) }, () => `key-${number++}`);
      if (slow) api.instead.delete('/claims');
      const brought = names.map(name => claim(slow ? `slow-${name}` : name));
      api.held = api.held.concat(brought.map(({ token }) => token));
      json(response, 200, { claims: brought, results: taken });
    });
    let finish: () => void = () => undefined;
    const finished = new Promise<void>(resolve => (finish = resolve));
    await api.work(
      { reconcile: (_, { key, signal }) => (key.name.startsWith('slow') ? finished : pause(1, signal)) },
      2,
    );
    await until(() => most() > 4, { what: 'a claim ahead' });
    slow = true;
    await until(() => api.results.filter(({ result }) => result === 'released').length > 1, {
      what: 'what waits in vain',
    });
    finish();
  });
});
