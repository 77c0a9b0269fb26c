import { expect } from 'chai';
import { connect, isPlatformError, type Client, type Cluster } from '../../client/index.js';
import { failedCalls } from '../../test/failedCalls.js';
import { startApi, type TestApi } from '../../test/platform.js';
import { until } from '../../test/until.js';
import { TerminalError, type Controller } from './controller.js';
import type { Log } from './log.js';
import { run, Runtime, type RunOptions, type Running } from './runtime.js';
import { quiet } from './testing/quiet.js';

describe('controller runtime', () => {
  let api: TestApi;
  let client: Client;
  let names = 0;
  const running: Running[] = [];

  before(async () => {
    api = await startApi();
    client = connect({ url: api.url });
  });

  after(async () => {
    await client.close();
    await api.stop();
  });

  let namespace: string;
  let name: string;

  // Each test works in a namespace of its own, under a controller's name of its own.
  beforeEach(() => {
    namespace = `n${++names}`;
    name = `controller-${names}`;
  });

  afterEach(async () => {
    await Promise.all(running.splice(0).map(one => one.stop()));
    for (const { name: registered } of await client.controllers.list()) await client.controllers.remove(registered);
  });

  const start = async (controller: Omit<Controller<Cluster>, 'name' | 'type'>, options: RunOptions = {}) => {
    const started = await run([{ name, type: 'clusters', ...controller }], {
      url: api.url,
      log: quiet,
      handleSignals: false,
      ...options,
    });
    running.push(started);
    return started;
  };
  /** Only what concerns this test's namespace; objects of earlier tests are there too. */
  const mine =
    (reconcile: Controller<Cluster>['reconcile']): Controller<Cluster>['reconcile'] =>
    (cluster, context) =>
      context.key.namespace === namespace ? reconcile(cluster, context) : Promise.resolve();
  const item = async (object: string) => {
    const { items } = await client.controllers.work(name, { limit: 1000 });
    return items.find(one => one.namespace === namespace && one.name === object);
  };

  it('runs what is there, what comes, what changes and what goes, and nothing for its own writes', async () => {
    const runs: string[] = [];
    await client.clusters.create({ name: 'old', namespace });
    await start({
      on: ['spec', 'metadata', 'status', 'deletion'],
      reconcile: mine(async (cluster, context) => {
        runs.push(`${context.key.name} ${cluster ? String(cluster.verifySeconds) : 'gone'}`);
        if (!cluster) return;
        await context.client.clusters.patch(cluster, { annotations: { seen: cluster.resourceVersion } });
        await context.client.clusters.patchStatus(cluster, { nodeCount: runs.length }, { uid: cluster.uid });
      }),
    });
    await until(() => runs.length === 1, { what: 'the first run' });
    await client.clusters.create({ name: 'new', namespace });
    await until(() => runs.length === 2, { what: 'the run of the new object' });
    await client.clusters.patch({ namespace, name: 'new' }, { verifySeconds: 60 });
    await until(() => runs.length === 3, { what: 'the run of the change' });
    await client.clusters.remove({ namespace, name: 'new' });
    await until(() => runs.length === 4, { what: 'the run of the deletion' });
    expect(await item('old')).to.equal(undefined);
    expect(runs).to.deep.equal(['old undefined', 'new undefined', 'new 60', 'new gone']);
  });

  it('never runs an object twice at once, and runs it again for the last change', async () => {
    const seen: (number | undefined)[] = [];
    let others = 0;
    let open: () => void = () => undefined;
    const gate = new Promise<void>(resolve => (open = resolve));
    const controller: Omit<Controller<Cluster>, 'name' | 'type'> = {
      reconcile: mine(async cluster => {
        if (cluster?.name === 'other') others++;
        else {
          seen.push(cluster?.verifySeconds);
          await gate;
        }
      }),
    };
    await start(controller);
    await start(controller);
    await client.clusters.create({ name: 'busy', namespace, verifySeconds: 60 });
    await until(() => seen.length === 1, { what: 'the first run' });
    for (let verifySeconds = 61; verifySeconds <= 80; verifySeconds++) {
      await client.clusters.patch({ namespace, name: 'busy' }, { verifySeconds });
    }
    // Its change comes after those of the busy one, and both replicas have free slots.
    await client.clusters.create({ name: 'other', namespace });
    await until(() => others === 1, { what: 'the run of the other object' });
    expect(seen).to.deep.equal([60]);
    open();
    await until(() => seen.length > 1, { what: 'the run of the last change' });
    await until(async () => (await item('busy')) === undefined, { what: 'an empty queue' });
    expect(seen).to.deep.equal([60, 80]);
  });

  it('tries again after an error, gives up after a terminal one until the object changes', async () => {
    const attempts: number[] = [];
    let fatal = 0;
    await start({
      reconcile: mine((cluster, context) => {
        if (cluster?.name === 'fatal') {
          fatal++;
          throw new TerminalError('no use');
        }
        attempts.push(context.attempts);
        if (context.attempts === 0) return Promise.reject(new Error('long '.repeat(500)));
        return Promise.resolve();
      }),
    });
    await client.clusters.create({ name: 'failing', namespace });
    await client.clusters.create({ name: 'fatal', namespace });
    await until(async () => (await item('failing'))?.lastError, { what: 'the error' });
    const failing = await item('failing');
    expect(failing).to.include({ state: 'waiting', attempts: 1 });
    expect(failing?.lastError?.length).to.equal(1000);
    await until(async () => (await item('fatal'))?.parked, { what: 'the terminal error' });
    expect((await item('fatal'))?.lastError).to.equal('no use');
    await until(() => attempts.length === 2, { what: 'the second attempt' });
    expect(attempts).to.deep.equal([0, 1]);
    expect(fatal).to.equal(1);
    await client.clusters.patch({ namespace, name: 'fatal' }, { labels: { a: 'b' } });
    await until(() => fatal === 2, { what: 'the run after the change' });
  });

  it('runs again after the time that a run asks for, and refuses a time that is none', async () => {
    const times: number[] = [];
    await start({
      reconcile: mine(cluster => {
        if (cluster?.name === 'bad') return Promise.resolve({ requeueAfter: 'soon' as '1s' });
        times.push(performance.now());
        return Promise.resolve({ requeueAfter: times.length === 1 ? '1s' : '2h' });
      }),
    });
    await client.clusters.create({ name: 'timed', namespace });
    await client.clusters.create({ name: 'bad', namespace });
    await until(() => times.length === 2, { what: 'the second run' });
    expect((times[1] ?? 0) - (times[0] ?? 0)).to.be.within(900, 2200);
    await until(async () => (await item('timed'))?.notBefore, { what: 'the far date' });
    expect(Date.parse((await item('timed'))?.notBefore ?? '') - Date.now()).to.be.within(7_190_000, 7_200_500);
    expect((await item('bad'))?.lastError).to.include('requeueAfter: soon is no duration');
  });

  it('gives up a run over its deadline, reports it, and goes on with the slot', async () => {
    let aborted: unknown;
    let end: () => void = () => undefined;
    const warnings: string[] = [];
    const log: Log = { ...quiet, warn: (_, message) => void warnings.push(message), child: () => log };
    const started = await start(
      {
        deadline: 0.3,
        reconcile: mine((cluster, context) => {
          if (cluster?.name !== 'hung') return Promise.resolve();
          context.signal.addEventListener('abort', () => (aborted = context.signal.reason));
          return new Promise(resolve => (end = resolve));
        }),
      },
      { concurrency: 1, healthPort: 0, log },
    );
    const metrics = async () => (await fetch(`http://127.0.0.1:${started.healthPort}/metrics`)).text();
    await client.clusters.create({ name: 'hung', namespace });
    await until(async () => (await item('hung'))?.lastError, { what: 'the error' });
    expect((await item('hung'))?.lastError).to.equal('not done within its deadline of 0.3 s');
    expect(aborted).to.be.instanceOf(Error);
    await client.clusters.create({ name: 'quick', namespace });
    await until(async () => (await item('quick')) === undefined, { what: 'the next key' });
    expect(warnings[0]).to.equal('reconcile failed');
    expect(await metrics()).to.match(new RegExp(`reconcile_timeouts_total{controller="${name}"} [1-9]`));
    // It comes again with back-off, and each of its runs may hang.
    expect(await metrics()).to.match(new RegExp(`syncsets_hung_reconciles{controller="${name}"} [1-9]`));
    const before = warnings.length;
    end();
    await until(() => warnings.slice(before).includes('a hung reconcile has ended'), { what: 'the end to be told' });
  });

  it('begins no more runs than its rate allows', async () => {
    const times: number[] = [];
    for (let i = 0; i < 8; i++) await client.clusters.create({ name: `r${i}`, namespace });
    await start({
      rateLimit: { perSecond: 10, burst: 2 },
      reconcile: mine(() => {
        times.push(performance.now());
        return Promise.resolve();
      }),
    });
    await until(() => times.length === 8, { what: 'all runs', deadline: 30_000 });
    // Objects of other tests took part of the burst; the last one waits for the bucket in any case.
    const first = times[0] ?? 0;
    for (const [i, time] of times.entries()) expect(time - first).to.be.at.least((i - 2) * 100 - 30);
    expect(
      () => new Runtime([{ name, type: 'clusters', rateLimit: { perSecond: 0 }, reconcile: async () => {} }], {}),
    ).to.throw(TypeError, 'rateLimit.perSecond');
  });

  it('shares long runs with replicas that join, and takes them over from those that leave', async () => {
    const held = [new Set<string>(), new Set<string>()];
    let most = 0;
    const long = (mine: Set<string>, other: Set<string>): Omit<Controller<Cluster>, 'name' | 'type'> => ({
      longRunning: true,
      async reconcile(cluster, context) {
        if (context.key.namespace !== namespace || !cluster) return;
        mine.add(cluster.name);
        most = Math.max(most, Number(other.has(cluster.name)));
        await new Promise<void>(resolve => context.signal.addEventListener('abort', () => resolve()));
        mine.delete(cluster.name);
      },
    });
    const [a, b] = held as [Set<string>, Set<string>];
    for (let i = 0; i < 9; i++) await client.clusters.create({ name: `long${i}`, namespace });
    const first = await start(long(a, b), { concurrency: 100 });
    await until(() => a.size === 9, { what: 'all keys with the first' });
    await start(long(b, a), { concurrency: 100 });
    await until(() => b.size >= 4 && a.size + b.size === 9, { what: 'a share for the second', deadline: 20_000 });
    expect(a.size).to.be.within(4, 5);
    await first.stop();
    await until(() => b.size === 9, { what: 'all keys with the second', deadline: 20_000 });
    expect(most).to.equal(0);
  });

  it('puts its finalizer on before the first run and lets the object go after finalize', async () => {
    const story: string[] = [];
    let failures = 1;
    await start({
      on: ['spec'],
      finalizer: 'example.com/test',
      reconcile: mine(cluster => {
        story.push(cluster ? `run with ${String(cluster.finalizers)}` : 'gone');
        return Promise.resolve();
      }),
      finalize: cluster => {
        if (failures-- > 0) return Promise.reject(new Error('not yet'));
        story.push(`finalize ${cluster.name}`);
        return Promise.resolve();
      },
    });
    await client.clusters.create({ name: 'kept', namespace, finalizers: ['example.com/other'] });
    await until(() => story.length === 1, { what: 'the first run' });
    await client.clusters.remove({ namespace, name: 'kept' });
    await until(() => story.length === 2, { what: 'finalize' });
    await until(async () => (await client.clusters.read({ namespace, name: 'kept' })).finalizers?.length === 1, {
      what: 'the finalizer to be taken off',
    });
    await client.clusters.patch({ namespace, name: 'kept' }, { finalizers: [] });
    await until(() => story.length === 3, { what: 'the run after the end' });
    expect((await client.controllers.read(name)).on).to.deep.equal(['spec', 'deletion']);
    expect(story).to.deep.equal(['run with example.com/other,example.com/test', 'finalize kept', 'gone']);
  });

  it('wakes the keys of all states that a watched object went through while nobody listened', async () => {
    const runs: string[] = [];
    const controller: Omit<Controller<Cluster>, 'name' | 'type'> = {
      watches: [{ type: 'syncsets', enqueue: set => ({ names: set.clusterRefs }) }],
      reconcile: mine(cluster => {
        runs.push(cluster?.name ?? 'gone');
        return Promise.resolve();
      }),
    };
    const first = await start(controller);
    for (const cluster of ['a', 'b', 'c', 'd']) await client.clusters.create({ name: cluster, namespace });
    await until(() => runs.length === 4, { what: 'the first runs' });
    await first.stop();
    runs.length = 0;
    const set = { name: 'moving', namespace, resources: [] };
    await client.syncsets.create({ ...set, clusterRefs: ['a'] });
    await client.syncsets.patch(set, { clusterRefs: ['b'] });
    await client.syncsets.patch(set, { clusterRefs: ['c'] });
    await start(controller);
    await until(() => runs.length === 3, { what: 'three runs' });
    await client.syncsets.remove(set);
    await until(() => runs.length === 4, { what: 'the run after the deletion' });
    expect(runs.slice(0, 3).sort()).to.deep.equal(['a', 'b', 'c']);
    expect(runs[3]).to.equal('c');
  });

  it('finishes work in hand when it stops, and leaves the rest to others at once', async () => {
    const begun: string[] = [];
    const ended: string[] = [];
    let finish: () => void = () => undefined;
    const slow = new Promise<void>(resolve => (finish = resolve));
    const first = await start(
      {
        reconcile: mine(async cluster => {
          begun.push(cluster?.name ?? '');
          await slow;
          ended.push(cluster?.name ?? '');
        }),
      },
      { concurrency: 2 },
    );
    for (const one of ['a', 'b', 'c']) await client.clusters.create({ name: one, namespace });
    await until(() => begun.length === 2, { what: 'two runs' });
    const stopped = first.stop();
    const taken: string[] = [];
    await start({
      reconcile: mine(cluster => {
        taken.push(cluster?.name ?? '');
        return Promise.resolve();
      }),
    });
    await until(() => taken.length === 1, { what: 'the third key' });
    expect(ended).to.deep.equal([]);
    finish();
    await stopped;
    await first.stop();
    expect(ended).to.deep.equal(begun);
    await until(async () => (await client.controllers.read(name)).claimed === 0, { what: 'no claims' });
    expect(taken).to.have.length(1);
  });

  it('aborts a run whose claim was lost, and lets it write no more', async () => {
    const reasons: unknown[] = [];
    let late: unknown;
    await start({
      reconcile: mine(async (cluster, context) => {
        if (!cluster || reasons.length > 0) return;
        await new Promise(resolve => context.signal.addEventListener('abort', resolve, { once: true }));
        reasons.push(context.signal.reason);
        late = await context.client.clusters
          .patch(cluster, { labels: { late: 'true' } })
          .catch((error: unknown) => error);
      }),
    });
    await client.clusters.create({ name: 'contested', namespace });
    const worker = await until(async () => (await item('contested'))?.worker, { what: 'a claim' });
    await client.controllers.leave(name, worker);
    await until(() => late, { what: 'the abort' });
    expect(late).to.equal(reasons[0]);
    expect(reasons[0]).to.be.instanceOf(Error).and.include({ message: 'the claim was lost' });
    await until(async () => (await item('contested')) === undefined, { what: 'the next run' });
    expect((await client.clusters.read({ namespace, name: 'contested' })).labels).to.equal(undefined);
  });

  it('tells a long run that its object changed, and ends it at a stop', async () => {
    const seen: (number | undefined)[] = [];
    const long = await start({
      longRunning: true,
      reconcile: mine(async (cluster, context) => {
        seen.push(cluster?.verifySeconds);
        await new Promise<void>(resolve => {
          for (const signal of [context.changed, context.signal]) signal.addEventListener('abort', () => resolve());
        });
      }),
    });
    await client.clusters.create({ name: 'long', namespace, verifySeconds: 60 });
    await until(() => seen.length === 1, { what: 'the long run' });
    await client.clusters.patch({ namespace, name: 'long' }, { verifySeconds: 61 });
    await until(() => seen.length === 2, { what: 'the run after the change' });
    expect(seen).to.deep.equal([60, 61]);
    await long.stop();
    expect(await item('long')).to.include({ state: 'queued', worker: null });
  });

  it('waits for an API that is away, and refuses a registration that cannot work', async () => {
    const error: unknown = await start({ reveal: ['nonsense'], reconcile: () => Promise.resolve() }).catch(
      (thrown: unknown) => thrown,
    );
    expect(isPlatformError(error)).to.equal(true);
    const away = new Runtime([{ name, type: 'clusters', reconcile: () => Promise.resolve() }], {
      url: 'http://127.0.0.1:9',
      log: quiet,
    });
    const refusedTwice = failedCalls(2);
    let started = false;
    const starting = away.start().then(() => (started = true));
    await refusedTwice;
    expect(started).to.equal(false);
    await away.stop();
    await starting;
  });
});
