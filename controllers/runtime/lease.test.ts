import { expect } from 'chai';
import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import { failure, json } from '../../client/testing/fake-server.js';
import { claim, FakeApi } from '../../test/fake-api.js';
import { until } from '../../test/until.js';
import type { Context } from './controller.js';

describe('worker, and the lease that its claims live by', () => {
  let api: FakeApi;

  beforeEach(async () => {
    api = await FakeApi.start();
  });

  afterEach(() => api.stop());

  /** Has the worker's claims hold for 15 s. */
  function claimForLong(): void {
    api.instead.set('/controllers/c', (seen, response) =>
      json(response, 200, { ...(seen.body as object), name: 'c', claimSeconds: 15 }),
    );
  }

  it('gives back claims whose answer was lost', async () => {
    api.instead.set('/claims', (_, response) => {
      api.instead.delete('/claims');
      api.held = ['token-a'];
      response.destroy();
    });
    await api.work({});
    await until(() => api.results.length > 0, { what: 'the claim to be given back' });
    api.held = [];
    expect(api.results).to.deep.equal([{ token: 'token-a', result: 'released' }]);
  });

  it('runs what a slow answer brings, though renewals tell of it long before', async () => {
    let finish: () => void = () => undefined;
    api.instead.set('/claims', (_, response) => {
      api.instead.delete('/claims');
      api.held = ['token-a'];
      const text = JSON.stringify({ claims: [claim('a')] });
      response.writeHead(200, { 'content-type': 'application/json' });
      response.write(text.slice(0, 20));
      finish = () => response.end(text.slice(20));
    });
    await api.work({});
    await until(() => api.held.length > 0, { what: 'the first half of the answer' });
    const before = api.renewals;
    await until(() => api.renewals > before + 3, { what: 'renewals that tell of the claim' });
    finish();
    await until(() => api.results.length > 0, { what: 'the result' });
    api.held = [];
    expect(api.results).to.deep.equal([{ token: 'token-a', result: 'done' }]);
  });

  it('never runs what it gave back, however late the answer is that brings it', async () => {
    const begun: string[] = [];
    api.instead.set('/claims', (_, response) => {
      api.instead.delete('/claims');
      api.held = ['token-a'];
      response.destroy();
    });
    await api.work({
      reconcile: (_, { key }) => {
        begun.push(key.name);
        return Promise.resolve();
      },
    });
    await until(() => api.results.length > 0, { what: 'the claim to be given back' });
    api.held = [];
    api.claims.push([claim('a'), claim('b')]);
    await until(() => api.results.length > 1, { what: 'the result of the other claim' });
    expect(begun).to.deep.equal(['b']);
    expect(api.results).to.deep.equal([
      { token: 'token-a', result: 'released' },
      { token: 'token-b', result: 'done' },
    ]);
  });

  it('gives back what no answer brings for 5 s, though no call failed', async () => {
    api.held = ['token-a'];
    await api.work({});
    await until(() => api.renewals > 1, { what: 'renewals that tell of the claim' });
    const since = performance.now();
    await until(() => api.results.length > 0, { what: 'the claim to be given back', deadline: 20_000 });
    api.held = [];
    expect(performance.now() - since).to.be.at.least(4_000);
    expect(api.results).to.deep.equal([{ token: 'token-a', result: 'released' }]);
  });

  it('does not give back what it works on, or has just reported', async () => {
    let finish: () => void = () => undefined;
    const slow = new Promise<void>(resolve => (finish = resolve));
    api.claims = [[claim('a')]];
    api.held = ['token-a'];
    await api.work({ reconcile: () => slow });
    const before = api.renewals;
    await until(() => api.renewals > before + 3, { what: 'some renewals' });
    expect(api.results).to.deep.equal([]);
    finish();
    await until(() => api.results.length > 0, { what: 'the result' });
    expect(api.results[0]).to.deep.equal({ token: 'token-a', result: 'done' });
  });

  it('aborts its runs when the lease may have run out, and does not trust their results', async () => {
    const seen: { remaining: number; reason: unknown }[] = [];
    api.claims = [[claim('a')]];
    api.held = ['token-a'];
    await api.work({
      reconcile: async (_, context) => {
        // From now on nothing is heard of the server, whose answers hang.
        for (const path of ['/renew', '/claims', '/done']) api.instead.set(path, () => undefined);
        for (const stream of api.streams) stream.destroy();
        await once(context.signal, 'abort');
        seen.push({ remaining: context.remaining(), reason: context.signal.reason });
      },
    });
    await until(() => seen.length === 1, { what: 'the abort' });
    expect(seen[0]?.remaining).to.equal(0);
    expect(seen[0]?.reason).to.include({ message: 'the lease may have run out' });
    api.instead.clear();
    await api.restart();
    await until(() => api.results.length > 0, { what: 'the result', deadline: 20_000 });
    expect(api.results[0]).to.deep.equal({ token: 'token-a', result: 'released' });
  });

  it('does not abort what it begins after the end of a lease, before a renewal tells that it holds it', async () => {
    let answerLate: () => void = () => undefined;
    api.instead.set('/renew', (seen, response) => {
      if (seen.url.searchParams.has('stream')) {
        api.stream(response);
        return;
      }
      const over = () => json(response, 200, { expiresInSeconds: 0, lost: [], changed: [], held: [] });
      if (++api.renewals === 1) {
        over();
        return;
      }
      // What is claimed while this one is under way needs another renewal.
      api.instead.delete('/renew');
      answerLate = over;
      api.claims.push([claim('a')]);
      api.held = ['token-a'];
    });
    claimForLong();
    let begun = false;
    const reconcile = async (_: unknown, context: Context) => {
      begun = true;
      await until(() => context.remaining() > 0 || context.signal.aborted, { what: 'certainty' });
    };
    await api.work({ reconcile }, 1);
    await until(() => begun, { what: 'the run' });
    const before = api.lines;
    await until(() => api.lines > before + 3, { what: 'time for a look at the lease' });
    answerLate();
    await until(() => api.results.length > 0, { what: 'the result' });
    expect(api.results).to.deep.equal([{ token: 'token-a', result: 'done' }]);
  });

  it('begins no call to the outside while the connection that the server watches is broken', async () => {
    const story: string[] = [];
    api.claims = [[claim('a')]];
    api.held = ['token-a'];
    await api.work({
      reconcile: async (_, context) => {
        await context.hold(1000);
        story.push('held');
        api.instead.set('/renew', () => undefined);
        for (const stream of api.streams) stream.destroy();
        await until(() => context.remaining() === 0, { what: 'doubt' });
        story.push('in doubt');
        api.instead.delete('/renew');
        await api.restart();
        await context.hold(1000);
        story.push('held again');
      },
    });
    await until(() => api.results.length > 0, { what: 'the result' });
    expect(story).to.deep.equal(['held', 'in doubt', 'held again']);
    expect(api.results[0]).to.include({ result: 'done' });
  });

  it('believes in its claims for 1.5 s from a renewal that was answered, whatever lines the stream brings', async () => {
    claimForLong();
    let silent = false;
    api.instead.set('/renew', (seen, response) => {
      if (seen.url.searchParams.has('stream')) api.stream(response);
      else if (!silent) json(response, 200, { expiresInSeconds: 15, lost: [], changed: [], held: ['token-a'] });
    });
    api.claims = [[claim('a')]];
    const story: boolean[] = [];
    await api.work({
      reconcile: async (_, context) => {
        await until(() => context.remaining() > 10_000, { what: 'certainty' });
        silent = true;
        const before = api.lines;
        await until(() => context.remaining() === 0, { what: 'doubt', deadline: 8_000 });
        expect(api.lines).to.be.above(before + 3);
        story.push(context.signal.aborted);
      },
    });
    await until(() => story.length > 0, { what: 'the end', deadline: 9_000 });
    expect(story).to.deep.equal([false]);
  });

  /** What a worker believes of a claim whose answer is held back while renewals are answered by `renew`, one after the other. */
  async function believed(renew: ((response: ServerResponse) => void)[]): Promise<number> {
    claimForLong();
    let answer: () => void = () => undefined;
    api.instead.set('/claims', (_, response) => {
      api.instead.delete('/claims');
      answer = () => json(response, 200, { claims: [claim('a')] });
    });
    api.instead.set('/renew', (seen, response) => {
      if (seen.url.searchParams.has('stream')) api.stream(response);
      else renew.shift()?.(response);
    });
    let remaining: number | undefined;
    await api.work({
      reconcile: (_, context) => {
        remaining = context.remaining();
        return Promise.resolve();
      },
    });
    // The next renewal is not answered.
    await until(() => renew.length === 0, { what: 'the last renewal' });
    const before = api.lines;
    await until(() => api.lines > before, { what: 'time for its answer' });
    answer();
    await until(() => remaining !== undefined, { what: 'the run' });
    return remaining ?? NaN;
  }
  const renewed = (response: ServerResponse) =>
    json(response, 200, { expiresInSeconds: 15, lost: [], changed: [], held: [] });

  it('believes in a claim that comes while its lease is renewed', async () => {
    expect(await believed([renewed, renewed, renewed])).to.be.above(10_000);
  });

  it('does not believe in a claim that may be older than its lease, before a renewal tells of it', async () => {
    const refused = (response: ServerResponse) => failure(response, 503, 'Unavailable');
    // Every 200 ms after one that failed.
    const gap = Array.from({ length: 10 }, () => refused);
    expect(await believed([renewed, ...gap, renewed])).to.equal(0);
  });

  it('does not believe in a claim that comes after a renewal which found no lease', async () => {
    const over = (response: ServerResponse) =>
      json(response, 200, { expiresInSeconds: 0, lost: [], changed: [], held: [] });
    expect(await believed([renewed, over])).to.equal(0);
  });

  it('does not believe in its claims because a broken stream is open again and others are claimed, before a renewal told what it lost', async () => {
    const story: [string, boolean][] = [];
    api.claims = [[claim('a')]];
    api.held = ['token-a'];
    await api.work({
      reconcile: async (_, context) => {
        if (context.key.name === 'b') return;
        await context.hold(1000);
        api.instead.set('/renew', (seen, response) => {
          if (seen.url.searchParams.has('stream')) api.stream(response);
          else failure(response, 503, 'Unavailable');
        });
        const before = api.lines;
        api.streams[0]?.destroy();
        await until(() => api.streams.length === 2 && api.lines > before + 5, { what: 'the stream to come again' });
        api.claims.push([claim('b')]);
        await until(() => api.results.length === 1, { what: 'the other claim' });
        story.push(['without a renewal', context.remaining() > 0]);
        api.instead.delete('/renew');
        await context.hold(1000);
        story.push(['with one', context.remaining() > 0]);
      },
    });
    await until(() => api.results.length === 2, { what: 'the result' });
    expect(story).to.deep.equal([
      ['without a renewal', false],
      ['with one', true],
    ]);
  });

  it('refuses to wait for more certainty than a lease can give', async () => {
    api.claims = [[claim('a')]];
    api.held = ['token-a'];
    await api.work({ reconcile: (_, context) => context.hold(1900) });
    await until(() => api.results.length > 0, { what: 'the result' });
    expect(api.results[0]?.message).to.include('raise claimSeconds');
  });

  it('ends a run that lost its claim before it begins the next one of the same object', async () => {
    const story: string[] = [];
    let runs = 0;
    api.claims = [[claim('a', 'token-1')], [claim('a', 'token-2')]];
    await api.work({
      reconcile: async (_, context) => {
        const run = ++runs;
        story.push(`begin ${run}`);
        if (run === 1) await once(context.signal, 'abort');
        story.push(`end ${run}`);
      },
    });
    await until(() => api.results.length === 1, { what: 'the second result' });
    expect(story).to.deep.equal(['begin 1', 'end 1', 'begin 2', 'end 2']);
    expect(api.results).to.deep.equal([{ token: 'token-2', result: 'done' }]);
  });
});
