import { randomUUID } from 'node:crypto';
import { expect } from 'chai';
import { createDatabase, type TestDatabase } from '../test/postgres.js';
import { Database } from './database.js';
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
});
