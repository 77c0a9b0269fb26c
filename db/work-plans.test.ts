import { expect } from 'chai';
import pg from 'pg';
import { createDatabase, type TestDatabase } from '../test/postgres.js';
import { registrationOf } from '../test/registration.js';
import { touched } from '../test/touched.js';
import { registerController } from './controllers.js';
import { Database, type Queries } from './database.js';
import { enqueueKeys } from './enqueue.js';
import { ensureTypes } from './types.js';
import { claimKeys, wakeDueWork } from './work.js';

/** Keys that are queued. */
const loaded = 20_000;
/** Keys that a step is about. */
const few = 10;

describe('a queue that Postgres takes for empty', function () {
  this.timeout(60_000);
  let own: TestDatabase;
  let database: Database;

  before(async () => {
    own = await createDatabase();
    database = new Database({ connection: { connectionString: own.url }, log: () => undefined, poolSize: 1 });
    await ensureTypes(database, [{ type: 'hosts', namespaced: true }]);
    await registerController(database, registrationOf('ctl', 'hosts', 600));
    // It was empty when autovacuum came by, and is full before it comes again.
    await enqueueKeys(database, 'ctl', keysOf('some'), { priority: 0, reason: 'test' });
    for (const text of ['delete from syncsets.work', 'vacuum analyze syncsets.work']) await database.query({ text });
    await database.query({
      text: `insert into syncsets.work (controller, type, namespace, name, state, reason, priority, rank)
        select 'ctl', 'hosts', 'namespace-' || i % 20, 'host' || i, 'queued', 'test', 0, i / 20 from generate_series(1, $1) i`,
      values: [loaded],
    });
  });
  after(async () => {
    await database.stop();
    await own.drop();
  });

  const keysOf = (namespace: string) =>
    Array.from({ length: few }, (_, i) => ({ type: 'hosts', namespace, name: `host${i + 1}` }));
  const last = { priority: 0, reason: 'test' };
  const claim = async (queries: Queries, namespace: string) =>
    (await claimKeys(queries, { controller: 'ctl', worker: 'w', max: few, seconds: 600, keys: keysOf(namespace) }))
      .keys;

  for (const [what, step, before] of [
    ['are named', queries => enqueueKeys(queries, 'ctl', keysOf('named'), last)],
    [
      'are selected',
      queries =>
        queries.query({
          text: `select syncsets.enqueue_objects('ctl', 'hosts', array['selected'], array['host'], array[gen_random_uuid()], array[1], 0, 'test')`,
        }),
    ],
    [
      'are given back',
      async queries => {
        const results = (await claim(queries, 'back')).map(key => ({ ...key, result: 'released' as const }));
        const values = ['ctl', JSON.stringify(results.map((result, i) => ({ i, ...result })))];
        await queries.query({ text: 'select syncsets.done($1, $2)', values });
      },
      () => enqueueKeys(database, 'ctl', keysOf('back'), last),
    ],
    [
      'are due',
      queries => wakeDueWork(queries),
      () => enqueueKeys(database, 'ctl', keysOf('due'), { ...last, afterSeconds: 0 }),
    ],
  ] as [string, (queries: Queries) => Promise<unknown>, (() => Promise<unknown>)?][]) {
    it(`is not walked for the place of keys that ${what}, in a namespace that has none queued`, async () => {
      await before?.();
      const rows = await database.transaction(async queries => {
        const { rows: already } = await touched(queries);
        await step(queries);
        return (await touched(queries)).rows - already;
      });
      expect(rows).to.be.lessThan(few * 200);
    });
  }
});

describe('keys of many namespaces', function () {
  this.timeout(60_000);

  it('are merged without comparing each with each namespace, whoever was the first to have keys merged', async () => {
    const own = await createDatabase();
    const database = new Database({ connection: { connectionString: own.url }, log: () => undefined });
    const client = new pg.Client(own.url);
    const plans: string[] = [];
    client.on('notice', ({ message = '' }) => plans.push(message));
    try {
      await ensureTypes(database, [{ type: 'hosts', namespaced: true }]);
      await registerController(database, registrationOf('ctl', 'hosts', 600));
      await client.connect();
      // Calls enqueue_in_order, with other ways to join than that has.
      await client.query(
        `select * from syncsets.enqueue_named('ctl', array['hosts', 'hosts'], array['n2', 'n1'], array['host', 'host'], 0, 'test', null)`,
      );
      for (const set of [
        `load 'auto_explain'`,
        'set auto_explain.log_nested_statements = on',
        'set auto_explain.log_level = notice',
      ]) {
        await client.query(set);
      }
      await client.query('set auto_explain.log_min_duration = 0');
      await client.query(`select syncsets.enqueue_objects('ctl', 'hosts', array_agg('n' || n), array_agg('host'::text),
        array_agg(gen_random_uuid()), array_agg(n), 0, 'test') from generate_series(1, 100) n`);
    } finally {
      await client.end();
      await database.stop();
      await own.drop();
    }
    const merging = plans.filter(plan => plan.includes('on conflict (controller'));
    expect(merging).to.have.length(1);
    expect(merging[0]).to.include('Hash Join').and.not.include('Join Filter');
  });
});
