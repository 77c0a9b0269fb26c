import { expect } from 'chai';
import { fileURLToPath } from 'node:url';
import { runner } from 'node-pg-migrate';
import { createDatabase, type TestDatabase } from '../test/postgres.js';
import { claimKeys, Database, enqueueKeys, finishKeys, migrate } from './index.js';

describe('a database of a former state', () => {
  let database: TestDatabase;
  before(async () => (database = await createDatabase()));
  after(() => database.drop());

  it('takes results of claims, also where 0013 was run before its last change', async () => {
    const connection = { connectionString: database.url };
    const direct = new Database({ connection, log: () => undefined });
    try {
      const [later] = await direct.query<{ count: number }>({
        text: `select count(*) as count from syncsets.migrations where name > '0013_done_and_claim'`,
      });
      await runner({
        databaseUrl: database.url,
        dir: fileURLToPath(new URL('./migrations', import.meta.url)),
        direction: 'down',
        count: later?.count ?? 0,
        schema: 'syncsets',
        migrationsTable: 'migrations',
        log: () => undefined,
      });
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
});
