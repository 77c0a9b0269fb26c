import { randomUUID } from 'node:crypto';
import { expect } from 'chai';
import { createDatabase, type TestDatabase } from '../test/postgres.js';
import { Database } from './database.js';
import { readEvents, type LogEvent } from './events.js';
import { ObjectStore } from './objects.js';
import { ensureTypes } from './types.js';

describe('the object store', () => {
  let own: TestDatabase;
  let database: Database;

  before(async () => {
    own = await createDatabase();
    database = new Database({ connection: { connectionString: own.url }, log: () => undefined });
    await ensureTypes(database, [{ type: 'things', namespaced: true }]);
  });

  after(async () => {
    await database.stop();
    await own.drop();
  });

  it('writes after a machine slept longer than event partitions were made ahead', async () => {
    const partitions = await database.query<{ name: string }>({
      text: `select inhrelid::regclass::text as name from pg_inherits where inhparent = 'syncsets.events_things'::regclass`,
    });
    for (const { name } of partitions) await database.query({ text: `drop table ${name}` });
    // Two processes notice at the same time.
    const stores = [new ObjectStore(database), new ObjectStore(database)];
    const results = await Promise.all(
      stores.map((store, i) =>
        store.write('things', {
          op: 'create',
          namespace: 'default',
          name: `thing${i}`,
          uid: randomUUID(),
          object: '{}',
          labels: {},
          changed: ['spec'],
          actor: 'client',
          own: false,
        }),
      ),
    );
    expect(results.map(({ outcome }) => outcome)).to.deep.equal(['ok', 'ok']);
  });

  it('decides writes of one version of an object with a few statements, and those with a claim in the database', async () => {
    const store = new ObjectStore(database);
    const key = { namespace: 'default', name: 'wanted' };
    const common = { ...key, object: '{}', labels: {}, changed: ['spec' as const], actor: 'client', own: false };
    const made = await store.write('things', { ...common, op: 'create', uid: randomUUID() });
    if (made.outcome !== 'ok') expect.fail(made.outcome);
    const update = { ...common, op: 'update' as const, expect: made.version };
    const claim = { controller: 'nobody', type: 'things', nonce: randomUUID(), ...key };
    let statements = 0;
    const query = database.query.bind(database);
    database.query = statement => {
      statements++;
      return query(statement);
    };
    const results = await Promise.all([
      ...Array.from({ length: 60 }, () => store.write('things', update)),
      store.write('things', { ...update, claim }),
    ]);
    database.query = query;
    const outcomes = results.map(({ outcome }) => outcome);
    expect(outcomes.pop()).to.equal('fenced');
    expect(outcomes.filter(outcome => outcome === 'ok')).to.have.length(1);
    expect(outcomes.filter(outcome => outcome === 'conflict')).to.have.length(59);
    // Two are under way at once, another two may have left before the first one's answer came; one has the claim.
    expect(statements).to.be.at.most(6);
  });

  it('tells of what it wrote as the log has it, of a removal with what it removed', async () => {
    const told: LogEvent[] = [];
    const store = new ObjectStore(database, { committed: (_, events) => told.push(...(events ?? [])) });
    const head = (await store.version('things')) ?? 0;
    const key = { namespace: 'default', name: 'told' };
    const by = { actor: 'client', own: false };
    const object = JSON.stringify({ name: 'told', size: 3 });
    const created = await store.write('things', {
      op: 'create',
      ...key,
      uid: randomUUID(),
      object,
      labels: {},
      changed: ['spec'],
      ...by,
    });
    expect(created.outcome).to.equal('ok');
    const stored = await store.read('things', key);
    const { resourceVersion, ...last } = JSON.parse(stored?.object ?? '') as Record<string, unknown>;
    const removed = await store.write('things', {
      op: 'delete',
      ...key,
      expect: head + 1,
      last: JSON.stringify(last),
      before: JSON.stringify({ resourceVersion }),
      changed: ['deletion'],
      ...by,
    });
    expect(removed.outcome).to.equal('ok');
    const { events } = await readEvents(database, 'things', head, { events: 10, bytes: 10_000 });
    // Times differ by what is below a millisecond, JSON by the order of its keys.
    const parsed = (all: LogEvent[]) =>
      all.map(({ version, previous, op, namespace, name, uid, object, before, changed, actor, own, traceparent }) => ({
        ...{ version, previous, op, namespace, name, uid, changed, actor, own, traceparent },
        object: JSON.parse(object) as unknown,
        before: JSON.parse(before ?? 'null') as unknown,
      }));
    expect(events.map(({ op }) => op)).to.deep.equal(['ADDED', 'DELETED']);
    expect(parsed(told)).to.deep.equal(parsed(events));
  });
});
