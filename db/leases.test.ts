import { expect } from 'chai';
import { createDatabase, type TestDatabase } from '../test/postgres.js';
import { until } from '../test/until.js';
import { registerController } from './controllers.js';
import { Database } from './database.js';
import { ensureTypes } from './types.js';
import { claimKeys, enqueueKeys, listWork, wakeDueWork } from './work.js';

const controller = 'ctl';

describe('a lease', () => {
  let own: TestDatabase;
  let database: Database;

  beforeEach(async () => {
    own = await createDatabase();
    database = new Database({ connection: { connectionString: own.url }, log: () => undefined });
    await ensureTypes(database, [{ type: 'things', namespaced: true }], () => undefined);
    await registerController(database, {
      name: controller,
      type: 'things',
      interests: ['spec'],
      watches: [],
      claimSeconds: 600,
      revision: 0,
      reveal: [],
      longRunning: false,
    });
    await enqueueKeys(database, controller, [{ type: 'things', namespace: 'n', name: 'one' }], {
      priority: 0,
      reason: 'enqueued',
    });
  });
  afterEach(async () => {
    await database.stop();
    await own.drop();
  });

  const take = () => claimKeys(database, { controller, worker: 'w', max: 10, seconds: 600 });
  /** Until another transaction waits for a lock of ours. */
  const somebodyWaits = () =>
    until(
      async () =>
        (
          await database.query({
            text: 'select from pg_locks l join pg_database d on not l.granted and d.datname = current_database()',
          })
        ).length > 0,
      { what: 'somebody to wait' },
    );

  it('that runs out gives back a key that changes in that very moment', async () => {
    await take();
    await database.query({ text: 'update syncsets.workers set expires_at = clock_timestamp()' });
    let woken: Promise<string[]> | undefined;
    await database.transaction(async queries => {
      // What syncsets.enqueue does with a change of a claimed key.
      await queries.query({ text: 'update syncsets.work set dirty = true' });
      woken = wakeDueWork(database);
      await somebodyWaits();
    });
    expect(await woken).to.deep.equal([controller]);
    expect((await listWork(database, controller, { limit: 10 })).map(({ state }) => state)).to.deep.equal(['queued']);
  });
});
