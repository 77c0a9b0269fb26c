import { randomUUID } from 'node:crypto';
import { expect } from 'chai';
import type { QueryResultRow } from 'pg';
import { createDatabase, type TestDatabase } from '../test/postgres.js';
import { registrationOf } from '../test/registration.js';
import { touched } from '../test/touched.js';
import { registerController } from './controllers.js';
import { Database, type Queries } from './database.js';
import { maintainEventLog, measureEventLog } from './event-partitions.js';
import { reseal, type SealedRow } from './sealed.js';
import { ensureTypes } from './types.js';
import { takeUnsent } from './sent-keys.js';
import { enqueueKeys } from './enqueue.js';
import { claimKeys, heldClaims, listWork, wakeDueWork, type ClaimedKey } from './work.js';
import { parcel, writeWith, type WriteItem } from './write.js';

/** Objects of each type, and keys of the controller. */
const loaded = 20_000;
/** Objects and keys that a step is about. */
const few = 10;
const numbers = (from: number) => Array.from({ length: few }, (_, i) => from + i);

// Everything on one connection, whose plans are made while the tables are empty: that is what a platform does that starts
// with an empty database, and its connections live for weeks.
describe('plans that were made on an empty database', function () {
  this.timeout(120_000);
  let own: TestDatabase;
  let database: Database;

  before(async () => {
    own = await createDatabase();
    database = new Database({ connection: { connectionString: own.url }, log: () => undefined, poolSize: 1 });
    await ensureTypes(database, [
      { type: 'racks', namespaced: true },
      {
        type: 'hosts',
        namespaced: true,
        rules: [
          { kind: 'unique', name: 'serial', fields: ['serial'], everywhere: true },
          { kind: 'ref', name: 'rack', field: 'rack', target: 'racks', onDelete: 'cascade' },
          { kind: 'ref', name: 'spare', field: 'spare', target: 'racks', onDelete: 'null' },
          { kind: 'ref', name: 'backup', field: 'backup', target: 'racks', onDelete: 'refuse' },
        ],
      },
    ]);
    await registerController(database, registrationOf('ctl', 'hosts', 600));
    // As often as a connection takes to settle on its plans.
    for (let round = 0; round < 6; round++) await settle(1_000_000 + round * 1_000);
    await load();
  });
  after(async () => {
    await database.stop();
    await own.drop();
  });

  /** Takes all steps once, with objects of their own, and leaves nothing behind. */
  async function settle(from: number) {
    await steps['a creation'](database, from);
    await steps['a change of values that rules are about'](database, from);
    await database.query({ text: `update syncsets.objects set sealed = '{}' where type = 'hosts'` });
    await steps['encrypting secrets anew'](database, from);
    await steps['a deletion of what refers to others'](database, from);
    await steps['a creation, a change and a deletion, each alone'](database, from);
    await create(database, 'hosts', numbers(from).map(host));
    await steps['a deletion of what others refer to, which go with it or lose it'](database, from);
    await steps['a claim of named keys and their results'](database, from);
    await steps['a claim of the most urgent keys, and the end of its worker'](database, from);
    await steps['keys that are due'](database, from);
  }

  async function load() {
    const statements = [
      `insert into syncsets.objects (type, namespace, name, uid, version, labels, object, sealed)
        select t, 'foo', left(t, -1) || i, gen_random_uuid(), i, '{}', jsonb_build_object('name', left(t, -1) || i, 'generation', 1) ||
            case t when 'hosts' then jsonb_build_object('serial', i, 'rack', 'rack' || i, 'spare', 'rack' || (i + 100))
              else '{}' end,
          '{"secret": {"k": "old"}}'
        from unnest(array['racks', 'hosts']) t, generate_series(1, $1) i`,
      `insert into syncsets.uniques (type, rule, space, digest, namespace, name)
        select 'hosts', k.rule, k.space, k.digest, o.namespace, o.name
        from syncsets.objects o, syncsets.unique_keys('hosts', o.namespace, o.object) k where o.type = 'hosts' and o.version <= $1`,
      `insert into syncsets.refs (type, namespace, name, rule, target, target_namespace, target_name)
        select 'hosts', o.namespace, o.name, k.rule, k.target, k.target_namespace, k.target_name
        from syncsets.objects o, syncsets.ref_keys('hosts', o.namespace, o.object) k where o.type = 'hosts' and o.version <= $1`,
      `insert into syncsets.work (controller, type, namespace, name, state, reason, priority, rank, not_before)
        select 'ctl', 'hosts', 'foo', s || i, s, 'test', 0, i, case s when 'waiting' then 'infinity'::timestamptz end
        from unnest(array['queued', 'waiting']) s, generate_series(1, $1) i`,
      `update syncsets.types set version = $1`,
    ];
    // From elsewhere: what it changes is not analyzed, and no plan is made anew.
    const other = new Database({ connection: { connectionString: own.url }, log: () => undefined, poolSize: 1 });
    for (const text of statements) await other.query({ text, values: [loaded] });
    await other.stop();
  }

  const base = {
    namespace: 'foo',
    labels: {},
    changed: ['spec'],
    actor: 'client',
    own: false,
  } satisfies Partial<WriteItem>;
  const host = (i: number) => ({
    name: `host${i}`,
    generation: 1,
    serial: i,
    rack: `rack${i}`,
    spare: `rack${i + 100}`,
  });
  const versions = async (queries: Queries, type: string, names: string[]) => {
    const text = `select o.name, o.version from unnest($2::text[]) n cross join lateral (select o.name, o.version
      from syncsets.objects o where o.type = $1 and o.namespace = 'foo' and o.name = n offset 0) o`;
    const rows = await queries.query<{ name: string; version: number }>({ text, values: [type, names] });
    return new Map(rows.map(({ name, version }) => [name, version]));
  };
  async function write(queries: Queries, type: string, items: WriteItem[]) {
    const results = await writeWith(queries, type, items.map(parcel), () => undefined);
    expect(results.map(({ outcome }) => outcome)).to.deep.equal(items.map(() => 'ok'));
  }
  async function create(queries: Queries, type: string, objects: { name: string }[]) {
    const made = (object: { name: string }) => ({
      ...base,
      name: object.name,
      uid: randomUUID(),
      object: JSON.stringify(object),
    });
    await write(
      queries,
      type,
      objects.map(object => ({ op: 'create', ...made(object) })),
    );
  }
  async function change(queries: Queries, objects: { name: string }[]) {
    const expected = await versions(
      queries,
      'hosts',
      objects.map(({ name }) => name),
    );
    await write(
      queries,
      'hosts',
      objects.map(object => ({
        op: 'update',
        ...base,
        name: object.name,
        expect: expected.get(object.name) ?? 0,
        object: JSON.stringify(object),
        before: '{}',
      })),
    );
  }
  async function remove(queries: Queries, type: string, names: string[]) {
    const expected = await versions(queries, type, names);
    await write(
      queries,
      type,
      names.map(name => ({ op: 'delete', ...base, name, expect: expected.get(name) ?? 0, before: '{}' })),
    );
  }

  const names = (kind: string, from: number) => numbers(from).map(i => `${kind}${i}`);
  const keys = (kind: string, from: number) =>
    names(kind, from).map(name => ({ type: 'hosts', namespace: 'foo', name }));
  async function finish(queries: Queries, claims: ClaimedKey[]) {
    const results = ['done', 'error', 'terminal', 'released'];
    const reported = claims.map(({ type, namespace, name, nonce }, i) => ({
      i,
      type,
      namespace,
      name,
      nonce,
      result: results[i % 4],
    }));
    const values = ['ctl', JSON.stringify(reported)];
    const rows = await queries.query<{ state: string }>({ text: 'select state from syncsets.done($1, $2)', values });
    expect(rows.map(({ state }) => state)).to.deep.equal(claims.map(() => 'ok'));
  }

  /** What is done with `few` objects or keys from a number on. */
  const steps = {
    'a creation': async (queries, from) => {
      await create(
        queries,
        'racks',
        [...names('rack', from), ...names('rack', from + 100)].map(name => ({ name })),
      );
      await create(queries, 'hosts', numbers(from).map(host));
    },
    'a change of values that rules are about': async (queries, from) => {
      await change(
        queries,
        numbers(from).map(i => ({ ...host(i), serial: i + 5_000_000, spare: `rack${from}` })),
      );
    },
    'a creation, a change and a deletion, each alone': async (queries, from) => {
      const alone = [{ ...host(from), name: `alone${from}`, serial: from + 6_000_000 }];
      await create(queries, 'hosts', alone);
      await change(queries, alone);
      await remove(queries, 'hosts', [`alone${from}`]);
    },
    'a deletion of what refers to others': (queries, from) => remove(queries, 'hosts', names('host', from)),
    'a deletion of what others refer to, which go with it or lose it': async (queries, from) => {
      await remove(queries, 'racks', [...names('rack', from), ...names('rack', from + 100)]);
    },
    'a claim of named keys and their results': async (queries, from) => {
      await enqueueKeys(queries, 'ctl', keys('key', from), { priority: 1, reason: 'test' });
      const claim = { controller: 'ctl', worker: 'w', max: few, seconds: 600, keys: keys('key', from) };
      await finish(queries, (await claimKeys(queries, claim)).keys);
    },
    'a claim of the most urgent keys, and the end of its worker': async (queries, from) => {
      await enqueueKeys(queries, 'ctl', keys('next', from), { priority: 9, reason: 'test' });
      await takeUnsent(queries, [{ controller: 'ctl', keys: few }]);
      const urgent = await claimKeys(queries, { controller: 'ctl', worker: 'w', max: few, seconds: 600 });
      expect(urgent.keys).to.have.length(few);
      expect((await heldClaims(queries, 'ctl', 'w')).held).to.have.length(few);
      await queries.query({ text: `select syncsets.release_worker('ctl', 'w', 'test')` });
    },
    'keys that are due': async (queries, from) => {
      await enqueueKeys(queries, 'ctl', keys('due', from), { priority: 0, reason: 'test', afterSeconds: 0 });
      await wakeDueWork(queries);
    },
    'encrypting secrets anew': async (queries, from) => {
      const text = `select o.namespace, o.name, o.uid, o.sealed, md5(o.sealed::text) as digest from unnest($1::text[]) n
        cross join lateral (select * from syncsets.objects o where o.type = 'hosts' and o.namespace = 'foo' and o.name = n offset 0) o`;
      const rows = await queries.query<SealedRow>({ text, values: [names('host', from)] });
      const fresh = rows.map(row => ({ ...row, fresh: { secret: { k: 'new' } } }));
      expect(await reseal({ transaction: work => work(queries) }, 'hosts', fresh)).to.equal(few);
    },
  } satisfies Record<string, (queries: Queries, from: number) => Promise<void>>;

  let from = 3_000;
  for (const [what, step] of Object.entries(steps)) {
    it(`let ${what} look at no more than its keys need when there are ${loaded} of each`, async () => {
      from += 1_000;
      const { rows, blocks } = await database.transaction(async queries => {
        const before = await touched(queries);
        await step(queries, what === 'a creation' ? 100_000 : from);
        const after = await touched(queries);
        return { rows: after.rows - before.rows, blocks: after.blocks - before.blocks };
      });
      // 950 rows and 2,900 blocks at most; a walk of one index would be 20,000 rows.
      expect(rows).to.be.lessThan(few * 200);
      expect(blocks).to.be.lessThan(few * 600);
    });
  }
});

type Statement = Parameters<Queries['query']>[0];

/** A database that explains what it reads, before it reads it. */
class Explaining extends Database {
  readonly plans: string[] = [];

  override async query<Row extends QueryResultRow>(statement: Statement): Promise<Row[]> {
    await this.#explain(one => super.query(one), statement);
    return super.query<Row>(statement);
  }

  override transaction<T>(work: (queries: Queries) => Promise<T>): Promise<T> {
    return super.transaction(queries =>
      work({
        query: async <Row extends QueryResultRow>(statement: Statement) => {
          await this.#explain(one => queries.query(one), statement);
          return queries.query<Row>(statement);
        },
      }),
    );
  }

  async #explain(
    query: (statement: Statement) => Promise<{ 'QUERY PLAN': string }[]>,
    { text, values = [] }: Statement,
  ): Promise<void> {
    if (!/^(select|with)\b/.test(text)) return;
    const lines = await query({ text: `explain ${text}`, values });
    this.plans.push(lines.map(line => line['QUERY PLAN']).join('\n'));
  }
}

describe('a look at a few rows among many', function () {
  this.timeout(120_000);
  let own: TestDatabase;
  let database: Explaining;

  before(async () => {
    own = await createDatabase();
    database = new Explaining({ connection: { connectionString: own.url }, log: () => undefined });
    await ensureTypes(database, [{ type: 'hosts', namespaced: true }]);
    await database.query({
      text: `insert into syncsets.work (controller, type, namespace, name, state, reason, priority, rank, last_error, not_before)
        select 'ctl', 'hosts', 'foo', s || i, case when s in ('queued', 'claimed') then s else 'waiting' end, 'test', 0, i,
          case when s in ('failing', 'parked') then 'broken' end,
          case s when 'parked' then 'infinity'::timestamptz when 'queued' then null else clock_timestamp() + interval '1 hour' end
        from unnest(array['queued', 'waiting', 'claimed', 'failing', 'parked']) s,
          generate_series(1, case when s in ('queued', 'waiting') then $1::integer else $2::integer end) i`,
      values: [loaded, few],
    });
    const [log] = await measureEventLog(database);
    // Into the oldest partition, from its first moment on.
    await database.query({
      text: `insert into syncsets.events (type, version, previous, at, op, namespace, name, uid, labels, object, changed, actor, own)
        select 'hosts', i, i - 1, clock_timestamp() - make_interval(secs => $2), 'ADDED', 'foo', 'host' || i, gen_random_uuid(),
          '{}', '{}', '{spec}', 'client', false
        from generate_series(1, $1) i`,
      values: [loaded, log?.seconds],
    });
    for (const text of ['analyze syncsets.work', 'analyze syncsets.events']) await database.query({ text });
  });
  beforeEach(() => void database.plans.splice(0));
  after(async () => {
    await database.stop();
    await own.drop();
  });

  for (const [state, count, index] of [
    ['failing', few, 'work_failing'],
    ['parked', few, 'work_parked'],
    ['claimed', few, 'work_claimed'],
    ['waiting', loaded + 2 * few, undefined],
    ['queued', loaded, undefined],
    [undefined, 2 * loaded + 3 * few, undefined],
  ] as const) {
    const which = state === undefined ? 'of a controller' : `that are ${state}`;
    it(`shows all keys ${which}${index ? `, by the index ${index}` : ''}`, async () => {
      const rows = await listWork(database, 'ctl', { limit: 3 * loaded, ...(state ? { state } : {}) });
      expect(rows).to.have.length(count);
      const names = rows.map(({ name }) => name);
      expect(names).to.deep.equal(names.toSorted());
      if (index) expect(database.plans.join()).to.include(` ${index} `);
    });
  }

  it('finds the newest event of a partition by its key', async () => {
    const now = new Date(Date.now() + 3 * 3_600_000);
    expect(await maintainEventLog(database, ['hosts'], { maxBytes: 2 ** 40, now })).to.deep.equal([]);
    const plans = database.plans.filter(plan => plan.includes(' on events_hosts_'));
    expect(plans).not.to.deep.equal([]);
    expect(plans.join()).not.to.include('Seq Scan on events_hosts_');
  });
});
