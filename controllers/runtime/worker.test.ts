import { expect } from 'chai';
import type http from 'node:http';
import { Registry } from 'prom-client';
import { connect, pause, type Client } from '../../client/index.js';
// A server that does what the real one will not do on demand.
import { failure, FakeServer, json, type Seen } from '../../client/testing/fake-server.js';
import { until } from '../../test/until.js';
import type { Context, Controller } from './controller.js';
import type { Log } from './log.js';
import { Metrics } from './metrics.js';
import { Reporter } from './reporter.js';
import { Worker } from './worker.js';

type Answer = (seen: Seen, response: http.ServerResponse) => void;

describe('worker, when the server or the network fails', () => {
  let server: FakeServer;
  let client: Client;
  let worker: Worker<never> | undefined;
  let warnings: string[];
  /** Claims that the next questions get, one list each. */
  let claims: object[][];
  let held: string[];
  let renewals: number;
  let results: { token: string; result: string; message?: string }[];
  let streams: http.ServerResponse[];
  /** Sent on all streams together. */
  let lines = 0;
  /** In place of what the server does otherwise, by the end of the path. */
  let instead: Map<string, Answer>;

  const log: Log = {
    debug: () => undefined,
    info: () => undefined,
    warn: (_, message) => void warnings.push(message),
    error: (_, message) => void warnings.push(message),
    child: () => log,
  };
  const claim = (name: string, token = `token-${name}`) => ({
    kind: 'key',
    token,
    type: 'clusters',
    namespace: 'foo',
    name,
    uid: `uid-${name}`,
    object: null,
    attempts: 0,
    reason: 'added',
    expiresInSeconds: 2,
  });
  const stream = (response: http.ServerResponse) => {
    response.flushHeaders();
    streams.push(response);
    const send = () => {
      lines++;
      response.write('{"expiresInSeconds":2,"lost":[],"changed":[],"held":[]}\n');
    };
    const timer = setInterval(send, 100);
    send();
    response.once('close', () => clearInterval(timer));
  };
  const take = (reported: typeof results | undefined) => {
    results.push(...(reported ?? []));
    return reported?.map(({ token }) => ({ token, state: 'ok' }));
  };
  const answer: Answer = (seen, response) => {
    const { pathname, searchParams } = seen.url;
    const special = [...instead].find(([path]) => pathname.endsWith(path))?.[1];
    const body = seen.body as { results?: typeof results; waitSeconds?: number } | undefined;
    if (special) special(seen, response);
    else if (pathname.endsWith('/renew') && searchParams.has('stream')) stream(response);
    else if (pathname.endsWith('/renew')) {
      renewals++;
      json(response, 200, { expiresInSeconds: 2, lost: [], changed: [], held });
    } else if (pathname.endsWith('/done')) {
      json(response, 200, { results: take(body?.results) });
    } else if (pathname.endsWith('/claims')) {
      const now = claims.shift();
      const wait = now || !body?.waitSeconds ? 0 : 50;
      const taken = take(body?.results);
      setTimeout(() => json(response, 200, { claims: now ?? [], ...(taken && { results: taken }) }), wait);
    } else if (seen.method === 'DELETE') response.writeHead(204).end();
    else json(response, 200, { ...(seen.body as object), name: 'c', claimSeconds: 2 });
  };
  const start = async (controller: Partial<Controller>, slots = 4, drainTime = 30_000) => {
    const reconcile = () => Promise.resolve();
    worker = new Worker<never>({
      controller: { name: 'c', type: 'clusters', claimSeconds: 2, reconcile, ...controller },
      client,
      slots,
      drainTime,
      log,
      metrics: new Metrics(new Registry()),
    });
    await worker.start();
  };
  /** Cuts all connections, the hanging ones too. */
  const restart = async () => {
    const { port } = server;
    await server.stop();
    server = await FakeServer.start(answer, port);
  };
  /** A run that has begun when `begun` says so, and lasts until `finish`. */
  const slowRun = () => {
    let hasBegun = false;
    let finish: () => void = () => undefined;
    const slow = new Promise<void>(resolve => (finish = resolve));
    const reconcile = () => {
      hasBegun = true;
      return slow;
    };
    return { reconcile, begun: () => hasBegun, finish };
  };
  const untilAborted = (context: Context) =>
    new Promise<void>(resolve => context.signal.addEventListener('abort', () => resolve(), { once: true }));

  beforeEach(async () => {
    warnings = [];
    claims = [];
    held = [];
    renewals = 0;
    results = [];
    streams = [];
    instead = new Map();
    server = await FakeServer.start(answer);
    client = connect({ url: server.url });
  });

  afterEach(async () => {
    await worker?.stop();
    await client.close();
    await server.stop();
  });

  it('gives back claims whose answer was lost', async () => {
    instead.set('/claims', (_, response) => {
      instead.delete('/claims');
      held = ['token-a'];
      response.destroy();
    });
    await start({});
    await until(() => results.length > 0, { what: 'the claim to be given back' });
    held = [];
    expect(results).to.deep.equal([{ token: 'token-a', result: 'released' }]);
  });

  it('runs what a slow answer brings, though renewals tell of it long before', async () => {
    let finish: () => void = () => undefined;
    instead.set('/claims', (_, response) => {
      instead.delete('/claims');
      held = ['token-a'];
      const text = JSON.stringify({ claims: [claim('a')] });
      response.writeHead(200, { 'content-type': 'application/json' });
      response.write(text.slice(0, 20));
      finish = () => response.end(text.slice(20));
    });
    await start({});
    await until(() => held.length > 0, { what: 'the first half of the answer' });
    const before = renewals;
    await until(() => renewals > before + 3, { what: 'renewals that tell of the claim' });
    finish();
    await until(() => results.length > 0, { what: 'the result' });
    held = [];
    expect(results).to.deep.equal([{ token: 'token-a', result: 'done' }]);
  });

  it('never runs what it gave back, however late the answer is that brings it', async () => {
    const begun: string[] = [];
    instead.set('/claims', (_, response) => {
      instead.delete('/claims');
      held = ['token-a'];
      response.destroy();
    });
    await start({
      reconcile: (_, { key }) => {
        begun.push(key.name);
        return Promise.resolve();
      },
    });
    await until(() => results.length > 0, { what: 'the claim to be given back' });
    held = [];
    claims.push([claim('a'), claim('b')]);
    await until(() => results.length > 1, { what: 'the result of the other claim' });
    expect(begun).to.deep.equal(['b']);
    expect(results).to.deep.equal([
      { token: 'token-a', result: 'released' },
      { token: 'token-b', result: 'done' },
    ]);
  });

  it('stops within seconds although nobody answers its last results', async () => {
    let unanswered = 0;
    instead.set('/done', () => unanswered++);
    claims = [[claim('a')]];
    const { reconcile, begun, finish } = slowRun();
    await start({ reconcile });
    await until(begun, { what: 'the run' });
    const since = performance.now();
    const stopping = worker?.stop();
    finish();
    await stopping;
    expect(unanswered).to.equal(1);
    expect(performance.now() - since).to.be.lessThan(15_000);
  });

  it('reports nothing of a run that outlives its stop, which would keep the process alive', async () => {
    const { controllers } = client;
    const reporter = new Reporter({ controllers, controller: 'c', log, fenced: () => undefined, company: () => false });
    reporter.add({ token: 'in time', result: 'done' });
    await reporter.flush(1_000);
    reporter.add({ token: 'late', result: 'done' });
    await reporter.flush(1_000);
    expect(results.map(({ token }) => token)).to.deep.equal(['in time']);
  });

  it('waits at a stop for work in hand even if it may for longer than a timer can wait', async () => {
    claims = [[claim('a')]];
    held = ['token-a'];
    const { reconcile, begun, finish } = slowRun();
    await start({ reconcile }, 4, 30 * 86_400_000);
    await until(begun, { what: 'the run' });
    const stopping = worker?.stop();
    const before = renewals;
    await until(() => renewals > before + 1, { what: 'renewals during the stop' });
    finish();
    await stopping;
    expect(results).to.deep.equal([{ token: 'token-a', result: 'done' }]);
  });

  it('does not wait at a stop for what it asks of other replicas', async () => {
    let unanswered = 0;
    instead.set('/controllers/c', (seen, response) => {
      if (seen.method === 'GET') unanswered++;
      else json(response, 200, { ...(seen.body as object), name: 'c', claimSeconds: 2 });
    });
    await start({ longRunning: true });
    await until(() => unanswered > 0, { what: 'the question' });
    const since = performance.now();
    await worker?.stop();
    expect(performance.now() - since).to.be.lessThan(15_000);
  });

  it('does not give back what it works on, or has just reported', async () => {
    let finish: () => void = () => undefined;
    const slow = new Promise<void>(resolve => (finish = resolve));
    claims = [[claim('a')]];
    held = ['token-a'];
    await start({ reconcile: () => slow });
    const before = renewals;
    await until(() => renewals > before + 3, { what: 'some renewals' });
    expect(results).to.deep.equal([]);
    finish();
    await until(() => results.length > 0, { what: 'the result' });
    expect(results[0]).to.deep.equal({ token: 'token-a', result: 'done' });
  });

  it('aborts its runs when the lease may have run out, and does not trust their results', async () => {
    const seen: { remaining: number; reason: unknown }[] = [];
    claims = [[claim('a')]];
    held = ['token-a'];
    await start({
      reconcile: async (_, context) => {
        // From now on nothing is heard of the server, whose answers hang.
        for (const path of ['/renew', '/claims', '/done']) instead.set(path, () => undefined);
        for (const stream of streams) stream.destroy();
        await untilAborted(context);
        seen.push({ remaining: context.remaining(), reason: context.signal.reason });
      },
    });
    await until(() => seen.length === 1, { what: 'the abort' });
    expect(seen[0]?.remaining).to.equal(0);
    expect(seen[0]?.reason).to.include({ message: 'the lease may have run out' });
    instead.clear();
    await restart();
    await until(() => results.length > 0, { what: 'the result', deadline: 20_000 });
    expect(results[0]).to.deep.equal({ token: 'token-a', result: 'released' });
  });

  it('does not abort what it begins after the end of a lease, before a renewal tells that it holds it', async () => {
    let answerLate: () => void = () => undefined;
    instead.set('/renew', (seen, response) => {
      if (seen.url.searchParams.has('stream')) {
        stream(response);
        return;
      }
      const over = () => json(response, 200, { expiresInSeconds: 0, lost: [], changed: [], held: [] });
      if (++renewals === 1) {
        over();
        return;
      }
      // What is claimed while this one is under way needs another renewal.
      instead.delete('/renew');
      answerLate = over;
      claims.push([claim('a')]);
      held = ['token-a'];
    });
    instead.set('/controllers/c', (seen, response) =>
      json(response, 200, { ...(seen.body as object), name: 'c', claimSeconds: 15 }),
    );
    let begun = false;
    const reconcile = async (_: unknown, context: Context) => {
      begun = true;
      await until(() => context.remaining() > 0 || context.signal.aborted, { what: 'certainty' });
    };
    await start({ reconcile }, 1);
    await until(() => begun, { what: 'the run' });
    const before = lines;
    await until(() => lines > before + 3, { what: 'time for a look at the lease' });
    answerLate();
    await until(() => results.length > 0, { what: 'the result' });
    expect(results).to.deep.equal([{ token: 'token-a', result: 'done' }]);
  });

  it('begins no call to the outside while the connection that the server watches is broken', async () => {
    const story: string[] = [];
    claims = [[claim('a')]];
    held = ['token-a'];
    await start({
      reconcile: async (_, context) => {
        await context.hold(1000);
        story.push('held');
        instead.set('/renew', () => undefined);
        for (const stream of streams) stream.destroy();
        await until(() => context.remaining() === 0, { what: 'doubt' });
        story.push('in doubt');
        instead.delete('/renew');
        await restart();
        await context.hold(1000);
        story.push('held again');
      },
    });
    await until(() => results.length > 0, { what: 'the result' });
    expect(story).to.deep.equal(['held', 'in doubt', 'held again']);
    expect(results[0]).to.include({ result: 'done' });
  });

  it('does not believe in its claims because a broken stream is open again and others are claimed, before a renewal told what it lost', async () => {
    const story: [string, boolean][] = [];
    claims = [[claim('a')]];
    held = ['token-a'];
    await start({
      reconcile: async (_, context) => {
        if (context.key.name === 'b') return;
        await context.hold(1000);
        instead.set('/renew', (seen, response) => {
          if (seen.url.searchParams.has('stream')) stream(response);
          else failure(response, 503, 'Unavailable');
        });
        const before = lines;
        streams[0]?.destroy();
        await until(() => streams.length === 2 && lines > before + 5, { what: 'the stream to come again' });
        claims.push([claim('b')]);
        await until(() => results.length === 1, { what: 'the other claim' });
        story.push(['without a renewal', context.remaining() > 0]);
        instead.delete('/renew');
        await context.hold(1000);
        story.push(['with one', context.remaining() > 0]);
      },
    });
    await until(() => results.length === 2, { what: 'the result' });
    expect(story).to.deep.equal([
      ['without a renewal', false],
      ['with one', true],
    ]);
  });

  it('refuses to wait for more certainty than a lease can give', async () => {
    claims = [[claim('a')]];
    held = ['token-a'];
    await start({ reconcile: (_, context) => context.hold(1900) });
    await until(() => results.length > 0, { what: 'the result' });
    expect(results[0]?.message).to.include('raise claimSeconds');
  });

  it('reports results again until they arrive', async () => {
    const ways: string[] = [];
    instead.set('/claims', (seen, response) => {
      const { results: reported } = seen.body as { results?: unknown[] };
      if (!reported) {
        json(response, 200, { claims: claims.shift() ?? [] });
        return;
      }
      ways.push('with a claim');
      instead.delete('/claims');
      response.destroy();
    });
    instead.set('/done', (_, response) => {
      ways.push('alone');
      instead.delete('/done');
      failure(response, 503, 'Unavailable');
    });
    claims = [[claim('a'), claim('b')]];
    await start({});
    await until(() => results.length === 2, { what: 'both results' });
    expect(results.map(({ token }) => token)).to.deep.equal(['token-a', 'token-b']);
    expect(ways).to.deep.equal(['with a claim', 'alone']);
  });

  it('does not let a result that the server refuses hold up others', async () => {
    instead.set('/done', (seen, response) => {
      const { results: reported } = seen.body as { results: { token: string; enqueue?: unknown }[] };
      if (reported.some(({ enqueue }) => enqueue !== undefined)) {
        failure(response, 422, 'Invalid');
        return;
      }
      results.push(...(reported as typeof results));
      json(response, 200, { results: reported.map(({ token }) => ({ token, state: 'ok' })) });
    });
    const event = { op: 'ADDED', before: null, object: { type: 'syncsets', name: 's', clusterRefs: ['x'] } };
    claims = [
      [
        claim('a'),
        { kind: 'map', token: 'token-map', type: 'syncsets', events: [event], expiresInSeconds: 2 },
        claim('b'),
      ],
    ];
    await start({ watches: [{ type: 'syncsets', enqueue: () => ({ labelSelector: '!!' }) }] });
    await until(() => results.length === 3, { what: 'all results' });
    expect(Object.fromEntries(results.map(({ token, result }) => [token, result]))).to.deep.equal({
      'token-a': 'done',
      'token-b': 'done',
      'token-map': 'error',
    });
    expect(warnings).to.deep.equal(['the server refused what a watch enqueues']);
  });

  it('queues more keys than one report takes before it reports, at the priority of the events', async () => {
    const enqueued: [number, number | undefined][] = [];
    instead.set('/enqueue', (seen, response) => {
      const { keys, priority } = seen.body as { keys: unknown[]; priority?: number };
      enqueued.push([keys.length, priority]);
      json(response, 200, { count: 1 });
    });
    const event = { op: 'ADDED', before: null, object: { type: 'syncsets', name: 's' } };
    const map = {
      kind: 'map',
      token: 'token-map',
      type: 'syncsets',
      priority: 10,
      events: [event],
      expiresInSeconds: 2,
    };
    claims = [[map]];
    const names = Array.from({ length: 2500 }, (_, i) => `c${i}`);
    await start({ watches: [{ type: 'syncsets', enqueue: () => ({ names, namespace: 'foo' }) }] });
    await until(() => results.length === 1, { what: 'the report' });
    expect(enqueued).to.deep.equal([
      [1000, 10],
      [500, 10],
    ]);
    expect(results[0]).to.have.property('enqueue').with.length(1000);
  });

  it('registers again when the server has forgotten it', async () => {
    await start({});
    const registrations = () => server.seen.filter(seen => seen.method === 'PUT').length;
    expect(registrations()).to.equal(1);
    instead.set('/claims', (_, response) => {
      instead.delete('/claims');
      failure(response, 404, 'NotFound');
    });
    await until(() => registrations() === 2, { what: 'the second registration' });
  });

  it('works beside a newer release by its registration, and refuses one that contradicts at the same revision', async () => {
    instead.set('/controllers/c', (seen, response) => {
      if (seen.method === 'PUT') failure(response, 409, 'Conflict');
      else if (seen.method === 'GET')
        json(response, 200, { name: 'c', type: 'clusters', revision: 2, claimSeconds: 2 });
      else response.writeHead(204).end();
    });
    claims = [[claim('a')]];
    held = ['token-a'];
    await start({ revision: 1 });
    await until(() => results.length === 1, { what: 'the result' });
    await worker?.stop();
    const refused: unknown = await start({ revision: 2 }).catch((error: unknown) => error);
    expect(refused).to.include({ code: 'Conflict' });
  });

  it('does not reconcile an object that was deleted before its finalizer was put on', async () => {
    const object = { type: 'clusters', namespace: 'foo', name: 'a', uid: 'uid-a', resourceVersion: '1' };
    const deleted = { ...object, resourceVersion: '2', deletedAt: '2026-01-01T00:00:00Z', finalizers: ['other'] };
    const calls: string[] = [];
    instead.set('/clusters/foo/a', ({ method }, response) => {
      calls.push(method);
      if (method === 'PATCH') failure(response, 409, 'Conflict');
      else json(response, 200, deleted);
    });
    claims = [[{ ...claim('a'), object }]];
    const call = (what: string) => () => {
      calls.push(what);
      return Promise.resolve();
    };
    await start({ finalizer: 'mine', reconcile: call('reconcile'), finalize: call('finalize') });
    await until(() => results.length > 0, { what: 'the result' });
    expect(calls).to.deep.equal(['PATCH', 'GET']);
    expect(results).to.deep.equal([{ token: 'token-a', result: 'done' }]);
  });

  it('claims for a single free slot while all others are busy for long', async () => {
    const begun: string[] = [];
    claims = [['a', 'b', 'c', 'd', 'e', 'f', 'g'].map(name => claim(name)), [], [claim('h')]];
    await start(
      {
        reconcile: async (_, context) => {
          begun.push(context.key.name);
          if (context.key.name !== 'h') await untilAborted(context);
        },
        longRunning: true,
      },
      8,
    );
    await until(() => begun.includes('h'), { what: 'the eighth key' });
    const asked = server.seen.filter(({ url }) => url.pathname.endsWith('/claims')).map(({ body }) => body);
    expect(asked[1]).to.include({ max: 1 });
  });

  it('begins no more runs than its rate allows, however many slots are free', async () => {
    const times: number[] = [];
    claims = ['a', 'b', 'c', 'd', 'e'].map(name => [claim(name)]);
    await start(
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

  it('stays ready while its only slot is busy, for as long as the API answers its renewals', async () => {
    let begunAt = 0;
    claims = [[claim('a')]];
    held = ['token-a'];
    await start(
      {
        reconcile: (_, context) => {
          begunAt = performance.now();
          return untilAborted(context);
        },
      },
      1,
    );
    const silence = () => worker?.silence ?? Infinity;
    await until(() => begunAt > 0, { what: 'the run' });
    // No claim is made now: what is heard of the API since is not of one.
    await until(() => performance.now() - silence() > begunAt + 500, { what: 'a word of the API' });
    expect(worker?.ready).to.equal(true);
    instead.set('/renew', (_, response) => failure(response, 503, 'Unavailable'));
    for (const stream of streams) stream.destroy();
    const heardAt = performance.now();
    await until(() => silence() > 1000, { what: 'silence' });
    expect(performance.now() - silence()).to.be.lessThan(heardAt + 500);
  });

  it('claims ahead of its free slots while runs are short, and leaves to others what a slow run then holds up', async () => {
    let number = 0;
    const most = () =>
      Math.max(...server.seen.flatMap(({ url, body }) => (url.pathname.endsWith('/claims') ? [maxOf(body)] : [])));
    const maxOf = (body: unknown) => (body as { max: number }).max;
    let slow = false;
    instead.set('/claims', (seen, response) => {
      const taken = take((seen.body as { results?: typeof results }).results) ?? [];
      const names = Array.from({ length: maxOf(seen.body) }, () => `key-${number++}`);
      if (slow) instead.delete('/claims');
      const brought = names.map(name => claim(slow ? `slow-${name}` : name));
      held = held.concat(brought.map(({ token }) => token));
      json(response, 200, { claims: brought, results: taken });
    });
    await start(
      { reconcile: (_, { key, signal }) => (key.name.startsWith('slow') ? pause(10_000, signal) : pause(1, signal)) },
      2,
    );
    await until(() => most() > 4, { what: 'a claim ahead' });
    slow = true;
    await until(() => results.filter(({ result }) => result === 'released').length > 1, { what: 'what waits in vain' });
  });

  it('ends a run that lost its claim before it begins the next one of the same object', async () => {
    const story: string[] = [];
    let runs = 0;
    claims = [[claim('a', 'token-1')], [claim('a', 'token-2')]];
    await start({
      reconcile: async (_, context) => {
        const run = ++runs;
        story.push(`begin ${run}`);
        if (run === 1) await untilAborted(context);
        story.push(`end ${run}`);
      },
    });
    await until(() => results.length === 1, { what: 'the second result' });
    expect(story).to.deep.equal(['begin 1', 'end 1', 'begin 2', 'end 2']);
    expect(results).to.deep.equal([{ token: 'token-2', result: 'done' }]);
  });
});
