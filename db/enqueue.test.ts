import { expect } from 'chai';
import { lockWaits } from '../test/locks.js';
import { createDatabase, createDatabaseSorting, type TestDatabase } from '../test/postgres.js';
import { registrationOf } from '../test/registration.js';
import { until } from '../test/until.js';
import { registerController, summarizeWork } from './controllers.js';
import { Database } from './database.js';
import { ensureTypes } from './types.js';
import { enqueueKeys } from './enqueue.js';
import { claimKeys, finishKeys } from './work.js';

describe('keys that are enqueued together', () => {
  let own: TestDatabase;
  let database: Database;

  beforeEach(async () => open(await createDatabase()));
  afterEach(close);

  async function open(made: TestDatabase): Promise<void> {
    own = made;
    database = new Database({ connection: { connectionString: own.url }, log: () => undefined });
    await ensureTypes(database, [{ type: 'things', namespaced: true }]);
    await registerController(database, registrationOf('ctl', 'things', 60));
  }
  async function close(): Promise<void> {
    await database.stop();
    await own.drop();
  }

  /** Objects of one label, stored in this order, each with the version after that of the one before. */
  async function store(namespace: string, names: string[]): Promise<void> {
    await database.query({
      text: `insert into syncsets.objects (type, namespace, name, uid, version, labels, object)
        select 'things', $1, name, gen_random_uuid(), n, '{"a": "b"}', '{}' from unnest($2::text[]) with ordinality as o(name, n)`,
      values: [namespace, names],
    });
    // With figures Postgres reads them as they lie, not by the key.
    await database.query({ text: 'analyze syncsets.objects' });
  }
  const all = {
    type: 'things',
    selector: { labels: [{ key: 'a', op: 'in' as const, values: ['b'] }], fields: [] },
  };
  const now = { priority: 0, reason: 'enqueued' };
  const claim = async () =>
    (await claimKeys(database, { controller: 'ctl', worker: 'w', max: 1_000, seconds: 60 })).keys;

  it('are queued once however often one is named, as urgent as the most urgent and for the last version', async () => {
    await database.query({
      text: `select syncsets.enqueue(array[
        row('ctl', 'things', 'n', 'twice', null, 3, 10, 'first'), row('ctl', 'things', 'n', 'twice', null, 7, 0, 'last'),
        row('ctl', 'things', 'n', 'once', null, 9, 5, 'only'), row('ctl', 'things', 'n', 'twice', null, null, 0, 'by hand')
      ]::syncsets.key[])`,
    });
    const rows = await database.query<{ name: string; version: number; priority: number; reason: string }>({
      text: 'select name, version, priority, reason from syncsets.work order by name',
    });
    expect(rows).to.deep.equal([
      { name: 'once', version: 9, priority: 5, reason: 'only' },
      { name: 'twice', version: 7, priority: 10, reason: 'last' },
    ]);
    expect((await claim()).map(({ name }) => name)).to.deep.equal(['twice', 'once']);
  });

  it('are served by version where events made them, by name where a selector found them and none was there', async () => {
    await store('n', ['c', 'a', 'd', 'b']);
    const { count } = await enqueueKeys(database, 'ctl', [all], now);
    expect(count).to.equal(4);
    const claimed = await claim();
    expect(claimed.map(({ name }) => name)).to.deep.equal(['a', 'b', 'c', 'd']);
    const results = claimed.map(key => ({ ...key, result: 'done' as const }));
    await finishKeys(database, 'ctl', results);
    await database.query({
      text: `select syncsets.enqueue(array(
        select row('ctl', 'things', namespace, name, uid, version, 0, 'changed')::syncsets.key from syncsets.objects order by name))`,
    });
    expect((await claim()).map(({ name }) => name)).to.deep.equal(['c', 'a', 'd', 'b']);
  });

  it('are served namespace by namespace in turn', async () => {
    await store('m', ['a', 'b', 'c']);
    await store('n', ['a', 'b', 'c']);
    await enqueueKeys(database, 'ctl', [all], now);
    const served = await claim();
    expect(served.map(({ name }) => name).join('')).to.equal('aabbcc');
    for (const turn of [0, 2, 4]) {
      expect(served.slice(turn, turn + 2).map(({ namespace }) => namespace)).to.have.members(['m', 'n']);
    }
    // Another namespace is next in turn, behind one key of each.
    await store('o', ['late']);
    const back = served.map(key => ({ ...key, result: 'released' as const }));
    await finishKeys(database, 'ctl', back);
    await enqueueKeys(database, 'ctl', [{ ...all, namespace: 'o' }], now);
    expect((await claim()).findIndex(({ namespace }) => namespace === 'o')).to.be.at.most(4);
  });

  it('are merged with the keys that are queued, at work or waiting', async () => {
    await store('n', ['fresh', 'queued', 'claimed', 'waiting']);
    const name = (one: string) => ({ type: 'things', namespace: 'n', name: one });
    await enqueueKeys(database, 'ctl', [name('claimed')], now);
    await claim();
    await enqueueKeys(database, 'ctl', [name('queued')], now);
    await enqueueKeys(database, 'ctl', [name('waiting')], { ...now, afterSeconds: 3_600 });
    expect(await enqueueKeys(database, 'ctl', [all], now)).to.deep.equal({ count: 4, woken: true });
    const rows = await database.query<{ name: string; state: string; dirty: boolean }>({
      text: 'select name, state, dirty from syncsets.work order by name',
    });
    expect(rows).to.deep.equal([
      { name: 'claimed', state: 'claimed', dirty: true },
      { name: 'fresh', state: 'queued', dirty: false },
      { name: 'queued', state: 'queued', dirty: false },
      { name: 'waiting', state: 'queued', dirty: false },
    ]);
  });

  it('wait for their time when they are enqueued for later', async () => {
    await store('n', ['a', 'b']);
    expect(await enqueueKeys(database, 'ctl', [all], { ...now, afterSeconds: 3_600 })).to.deep.equal({
      count: 2,
      woken: false,
    });
    expect(await claim()).to.deep.equal([]);
    expect((await summarizeWork(database)).get('ctl')).to.include({ queued: 0, waiting: 2, oldestSeconds: 0 });
  });

  it('are all there when another call queues one of them at the same moment', async () => {
    await store('n', ['a', 'b', 'c']);
    let enqueued: Promise<unknown> = Promise.resolve();
    await database.transaction(async queries => {
      await enqueueKeys(queries, 'ctl', [{ type: 'things', namespace: 'n', name: 'b' }], now);
      enqueued = enqueueKeys(database, 'ctl', [all], now);
      await until(async () => (await lockWaits(database, 'enqueue_objects')) > 0, {
        what: 'the call that selects to wait for the one that names',
      });
    });
    expect(await enqueued).to.deep.equal({ count: 3, woken: true });
    expect((await claim()).map(({ name }) => name)).to.have.members(['a', 'b', 'c']);
  });

  it('tell how long the oldest of them has waited, of whatever namespace and priority it is', async () => {
    const oldest = async () => Math.round((await summarizeWork(database)).get('ctl')?.oldestSeconds ?? NaN);
    expect(await oldest()).to.equal(0);
    for (const namespace of ['m', 'n'])
      await store(
        namespace,
        Array.from({ length: 1_500 }, (_, i) => `key-${i}`),
      );
    for (const priority of [-5, 10, 0]) {
      await enqueueKeys(database, 'ctl', [{ type: 'things', namespace: 'o', name: `alone-${priority}` }], {
        ...now,
        priority,
      });
    }
    await enqueueKeys(database, 'ctl', [all], now);
    const age = (where: string, seconds: number) =>
      database.query({
        text: `update syncsets.work set queued_at = clock_timestamp() - make_interval(secs => $1) where ${where}`,
        values: [seconds],
      });
    await age('true', 100);
    expect(await oldest()).to.equal(100);
    await age(`namespace = 'n' and name = 'key-0'`, 200);
    expect(await oldest()).to.equal(200);
    await age(`name = 'alone-10'`, 300);
    expect(await oldest()).to.equal(300);
    await age(`name = 'alone--5'`, 400);
    expect(await oldest()).to.equal(400);
  });

  it('are locked in one order by selectors, names and results, also where the database sorts texts as people do', async () => {
    await close();
    await open(await createDatabaseSorting('en-US-u-ka-shifted'));
    // Hyphens count for nothing, as in most collations of libc.
    const names = Array.from({ length: 500 }, (_, i) => (i % 2 === 0 ? `a-${i}` : `a${i}`));
    await store('n', names.toReversed());
    const named = names.map(name => ({ type: 'things', namespace: 'n', name }));
    await enqueueKeys(database, 'ctl', named, now);
    const rounds = async (targets: typeof named | [typeof all]) => {
      for (let round = 0; round < 30; round++) await enqueueKeys(database, 'ctl', targets, now);
    };
    const work = async () => {
      for (let round = 0; round < 30; round++) {
        const results = (await claim()).map(key => ({ ...key, result: 'released' as const }));
        await finishKeys(database, 'ctl', results);
      }
    };
    await Promise.all([rounds([all]), rounds(named), rounds(named.toReversed()), work()]);
    expect(await claim()).to.have.length(500);
    const [row] = await database.query<{ deadlocks: number }>({
      text: 'select deadlocks from pg_stat_database where datname = current_database()',
    });
    expect(row?.deadlocks).to.equal(0);
  });
});
