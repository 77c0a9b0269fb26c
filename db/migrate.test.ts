import { expect } from 'chai';
import { fileURLToPath } from 'node:url';
import { runner } from 'node-pg-migrate';
import pg from 'pg';
import { createDatabase, type TestDatabase } from '../test/postgres.js';
import { registrationOf } from '../test/registration.js';
import { claimKeys, Database, enqueueKeys, ensureTypes, finishKeys, migrate, registerController } from './index.js';

describe('a database of a former state', () => {
  let database: TestDatabase;
  beforeEach(async () => (database = await createDatabase()));
  afterEach(() => database.drop());

  async function down(count: number): Promise<void> {
    // Our own: the runner does not wait for the end of one that it opens, and the database is dropped soon.
    const dbClient = new pg.Client(database.url);
    await dbClient.connect();
    await runner({
      dbClient,
      dir: fileURLToPath(new URL('./migrations', import.meta.url)),
      direction: 'down',
      count,
      schema: 'syncsets',
      migrationsTable: 'migrations',
      log: () => undefined,
    });
    await dbClient.end();
  }

  it('takes results of claims, also where 0013 was run before its last change', async () => {
    const connection = { connectionString: database.url };
    const direct = new Database({ connection, log: () => undefined });
    try {
      const [later] = await direct.query<{ count: number }>({
        text: `select count(*) as count from syncsets.migrations where name > '0013_done_and_claim'`,
      });
      await down(later?.count ?? 0);
      const [last] = await direct.query({ text: 'select name from syncsets.migrations order by id desc limit 1' });
      expect(last).to.deep.equal({ name: '0013_done_and_claim' });
      await direct.query({ text: 'alter type syncsets.judged rename attribute worker to held' });
      await direct.query({ text: 'alter type syncsets.judged alter attribute held type boolean' });
      await migrate(connection, () => undefined);
      await direct.query({
        text: `insert into syncsets.controllers (name, type, interests, watches, claim_seconds, revision, reveal, long_running)
          values ('c', 'clusters', '{spec}', '{}', 15, 0, '{}', false)`,
      });
      const key = { type: 'clusters', namespace: 'foo', name: 'a' };
      await enqueueKeys(direct, 'c', [key], { priority: 0, reason: 'enqueued' });
      const { keys } = await claimKeys(direct, { controller: 'c', worker: 'w', max: 1, seconds: 15 });
      const results = keys.map(({ nonce }) => ({ ...key, nonce, result: 'done' as const }));
      expect(await finishKeys(direct, 'c', results)).to.deep.equal([{ held: true, queued: false }]);
    } finally {
      await direct.stop();
    }
  });

  it('has the keys of all objects that a controller was still to be given', async () => {
    const direct = new Database({ connection: { connectionString: database.url }, log: () => undefined });
    try {
      await ensureTypes(direct, [{ type: 'things', namespaced: true }]);
      await direct.query({
        text: `insert into syncsets.objects (type, namespace, name, uid, version, labels, object)
          select 'things', 'a', 'o' || n, gen_random_uuid(), n, '{}', '{}' from generate_series(1, 9) n`,
      });
      await registerController(direct, registrationOf('c', 'things', 60));
      await direct.query({ text: 'delete from syncsets.work' });
      await direct.query({
        text: `insert into syncsets.resyncs (controller, type, reason, namespace, name) values ('c', 'things', 'resync', 'a', 'o3')`,
      });
      const [later] = await direct.query<{ count: number }>({
        text: `select count(*) as count from syncsets.migrations where name >= '0025_resyncs'`,
      });
      await down(later?.count ?? 0);
      const rows = await direct.query<{ name: string }>({ text: 'select name from syncsets.work order by name' });
      expect(rows.map(({ name }) => name)).to.deep.equal(['o4', 'o5', 'o6', 'o7', 'o8', 'o9']);
    } finally {
      await direct.stop();
    }
  });
});
