import { expect } from 'chai';
import { createDatabase, createDatabaseSorting, type TestDatabase } from '../test/postgres.js';
import { registrationOf } from '../test/registration.js';
import { registerController } from './controllers.js';
import { Database } from './database.js';
import { ensureTypes } from './types.js';
import { claimKeys, enqueueKeys, finishKeys } from './work.js';

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

  it('are served by version, however they are named', async () => {
    await store('n', ['c', 'a', 'd', 'b']);
    const { count } = await enqueueKeys(database, 'ctl', [all], now);
    expect(count).to.equal(4);
    expect((await claim()).map(({ name }) => name)).to.deep.equal(['c', 'a', 'd', 'b']);
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
