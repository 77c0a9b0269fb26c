import { randomUUID } from 'node:crypto';
import { expect } from 'chai';
import { createDatabase, type TestDatabase } from '../test/postgres.js';
import { Database, type Queries } from './database.js';
import { ensureTypes } from './types.js';
import { parcel, writeWith, type WriteItem, type WriteResult } from './write.js';

// One item takes other statements than several do. What comes of it must not differ by more than the time of day.
describe('a write on its own', () => {
  let own: TestDatabase;
  let database: Database;
  const rounds = 250;
  const claims = { held: randomUUID(), expired: randomUUID(), lost: randomUUID() };

  before(async () => {
    own = await createDatabase();
    database = new Database({ connection: { connectionString: own.url }, log: () => undefined });
    const types = ['alone', 'together'].map(type => ({
      type,
      namespaced: true,
      rules: [
        { kind: 'unique' as const, name: 'serial', fields: ['serial'], everywhere: true },
        { kind: 'ref' as const, name: 'next', field: 'next', target: type, onDelete: 'refuse' as const },
      ],
    }));
    await ensureTypes(database, [
      ...types,
      { type: 'plainalone', namespaced: true },
      { type: 'plaintogether', namespaced: true },
    ]);
    const statements = [
      `insert into syncsets.controllers (name, type, interests, watches, claim_seconds, revision, reveal, long_running)
        values ('ctl', '*', '{spec}', '{}', 60, 0, '{}', false)`,
      `insert into syncsets.workers (controller, worker, expires_at) values ('ctl', 'held', 'infinity'), ('ctl', 'expired', '-infinity')`,
    ];
    for (const text of statements) await database.query({ text });
    for (const [name, nonce] of Object.entries({ held: claims.held, expired: claims.expired })) {
      await database.query({
        text: `insert into syncsets.work (controller, type, namespace, name, state, reason, priority, rank, nonce, worker)
          values ('ctl', 'keys', 'foo', $1, 'claimed', 'test', 0, 0, $2, $1)`,
        values: [name, nonce],
      });
    }
  });
  after(async () => {
    await database.stop();
    await own.drop();
  });

  /** The same numbers for the same seed. */
  function dice(seed: number) {
    let state = seed;
    const below = (n: number) => {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
      return Math.floor((state / 2 ** 32) * n);
    };
    return { below, sometimes: <T>(n: number, value: T): T | undefined => (below(n) === 0 ? value : undefined) };
  }

  function randomItem({ below, sometimes }: ReturnType<typeof dice>, versions: Map<string, number>, head: number) {
    const name = `n${below(8)}`;
    const known = versions.get(name) ?? 0;
    const op = (['create', 'update', 'update', 'delete'] as const)[below(4)] ?? 'create';
    const owners = [{ uid: `u${below(3)}`, name: `o${below(3)}` }];
    const object = {
      ...{ name, namespace: 'foo', generation: below(9), note: `${below(1_000)} "é"` },
      ...sometimes(3, { owners }),
      ...sometimes(2, { serial: below(6) }),
      ...sometimes(4, { next: `n${below(8)}` }),
    };
    const nonce = Object.entries(claims)[below(3)];
    const claimed = sometimes(3, nonce);
    const item: WriteItem = {
      ...{ op, namespace: 'foo', name },
      ...(op === 'create' ? { uid: `00000000-0000-4000-8000-${String(head).padStart(12, '0')}` } : {}),
      ...(op === 'create'
        ? {}
        : { expect: below(6) === 0 ? below(head + 1) : known, before: JSON.stringify(owners[0]) }),
      ...(op === 'delete' && below(2) === 0 ? {} : { object: JSON.stringify(object), labels: { a: `${below(3)}` } }),
      ...(below(2) === 0 ? { sealed: { secret: { k: below(9) } } } : sometimes(2, { keepSealed: true })),
      ...(op === 'update' ? sometimes(5, { deleting: true }) : {}),
      ...{ changed: op === 'delete' ? ['deletion', 'owners'] : ['spec', 'metadata'] },
      ...{ actor: `a${below(2)}`, own: below(2) === 0, ...sometimes(4, { traceparent: `00-${below(99)}` }) },
      ...(claimed
        ? { claim: { controller: 'ctl', type: 'keys', namespace: 'foo', name: claimed[0], nonce: claimed[1] } }
        : {}),
      ...sometimes(6, { answer: { key: `k${below(5)}`, line: 0, request: `r${below(9)}` } }),
    };
    return item;
  }

  // Of no other type, so that what is told of one can be compared with what is told of the other.
  const nameless = (value: unknown, type: string) =>
    JSON.parse(JSON.stringify(value).replaceAll(`"${type}"`, '"type"')) as unknown;
  const untimed = (result: WriteResult | undefined) =>
    result?.outcome === 'ok' ? { ...result, stamp: '', object: '' } : result;

  async function stored(type: string): Promise<unknown> {
    const stamps = `- '{createdAt,updatedAt,deletedAt}'::text[]`;
    return database.query({
      text: `select to_jsonb(o) - 'type' || jsonb_build_object('object', object ${stamps}, 'stamps', array[object ? 'createdAt', object ? 'updatedAt', object ? 'deletedAt'])
          as row from syncsets.objects o where type = $1
        union all select to_jsonb(e) - '{type,at}'::text[] || jsonb_build_object('object', object ${stamps}, 'stamps', array[object ? 'createdAt', object ? 'updatedAt', object ? 'deletedAt'])
          from syncsets.events e where type = $1
        union all select to_jsonb(u) - 'type' from syncsets.uniques u where type = $1
        union all select to_jsonb(r) - '{type,target}'::text[] from syncsets.refs r where type = $1
        union all select jsonb_build_object('version', version) from syncsets.types where type = $1 order by row`,
      values: [type],
    });
  }

  for (const [alone, together, seed] of [
    ['plainalone', 'plaintogether', 1],
    ['alone', 'together', 2],
  ] as const) {
    it(`has the result, the state and the events that it has beside others${seed === 2 ? ', under rules too' : ''}`, async () => {
      const random = dice(seed);
      const versions = new Map<string, number>();
      const outcomes = new Set<string>();
      // Found nowhere: it changes nothing and takes no version.
      const absent: WriteItem = {
        ...{ op: 'update', namespace: 'foo', name: 'absent', expect: 1, object: '{}', labels: {} },
        ...{ changed: ['spec'], actor: 'client', own: false },
      };
      for (let head = 1; head <= rounds; head++) {
        const item = randomItem(random, versions, head);
        const keyed = (type: string): WriteItem =>
          item.answer ? { ...item, answer: { ...item.answer, key: `${type}-${item.answer.key}` } } : item;
        const [one] = await writeWith(database, alone, [parcel(keyed(alone))], () => undefined);
        const [beside, other] = await writeWith(
          database,
          together,
          [parcel(keyed(together)), parcel(absent)],
          () => undefined,
        );
        const what = `${head}: ${JSON.stringify(item)}`;
        expect(other, what).to.deep.equal({ outcome: 'missing' });
        expect(nameless(untimed(one), alone), what).to.have.property('outcome');
        if (one?.outcome === 'repeated') expect(beside?.outcome, what).to.equal('repeated');
        else expect(nameless(untimed(one), alone), what).to.deep.equal(nameless(untimed(beside), together));
        outcomes.add(one?.outcome ?? '');
        if (one?.outcome === 'ok') versions.set(item.name, one.version);
      }
      expect(await stored(alone)).to.deep.equal(await stored(together));
      const common = ['ok', 'exists', 'missing', 'conflict', 'fenced', 'repeated'];
      expect([...outcomes]).to.include.members(seed === 2 ? [...common, 'unique', 'target', 'referenced'] : common);
    });
  }

  async function hot(queries: Queries): Promise<number> {
    const [updates] = await queries.query<{ count: number }>({
      text: `select pg_stat_get_xact_tuples_hot_updated('public.plainalone'::regclass) as count`,
    });
    return updates?.count ?? 0;
  }

  for (const [how, others] of [
    ['alone', 0],
    ['with others', 3],
  ] as const) {
    it(`leaves the indexes alone when it changes a status ${how}`, async () => {
      const names = Array.from({ length: 1 + others }, (_, i) => `hot${i}`);
      const common = {
        namespace: 'hot',
        labels: { a: 'b' },
        changed: ['status' as const],
        actor: 'client',
        own: false,
      };
      const object = (name: string, size: number) =>
        JSON.stringify({ name, owners: [{ uid: 'u', name: 'o' }], status: { size } });
      await database.transaction(async queries => {
        // Of this connection, from a moment ago on.
        const before = await hot(queries);
        const write = (items: WriteItem[]) => writeWith(queries, 'plainalone', items.map(parcel), () => undefined);
        const made = await write(
          names.map(name => ({ op: 'create', ...common, name, uid: randomUUID(), object: object(name, 1) })),
        );
        await write(
          names.map((name, i) => {
            const one = made[i];
            if (one?.outcome !== 'ok') expect.fail(one?.outcome);
            return { op: 'update', ...common, name, expect: one.version, object: object(name, 2), before: '{}' };
          }),
        );
        expect((await hot(queries)) - before).to.equal(names.length);
        await queries.query({ text: `delete from syncsets.objects where type = 'plainalone' and namespace = 'hot'` });
      });
    });
  }
});
