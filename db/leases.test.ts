import { expect } from 'chai';
import { lockWaits } from '../test/locks.js';
import { createDatabase, type TestDatabase } from '../test/postgres.js';
import { registrationOf } from '../test/registration.js';
import { until } from '../test/until.js';
import { deleteController, registerController } from './controllers.js';
import { Database } from './database.js';
import { ensureTypes } from './types.js';
import { enqueueKeys } from './enqueue.js';
import { claimKeys, finishKeys, listWork, wakeDueWork } from './work.js';

const controller = 'ctl';

describe('a lease', () => {
  let own: TestDatabase;
  let database: Database;

  beforeEach(async () => {
    own = await createDatabase();
    database = new Database({ connection: { connectionString: own.url }, log: () => undefined });
    await ensureTypes(database, [{ type: 'things', namespaced: true }], () => undefined);
    await registerController(database, registrationOf(controller, 'things', 600));
    await enqueueKeys(database, controller, [{ type: 'things', namespace: 'n', name: 'one' }], {
      priority: 0,
      reason: 'enqueued',
    });
  });
  afterEach(async () => {
    await database.stop();
    await own.drop();
  });

  const take = async () => (await claimKeys(database, { controller, worker: 'w', max: 10, seconds: 600 })).keys;
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

  it('that runs out holds up no due keys while its own are waited for', async () => {
    const two = [{ type: 'things', namespace: 'n', name: 'two' }];
    await take();
    await enqueueKeys(database, controller, two, { priority: 0, reason: 'enqueued', afterSeconds: 0 });
    await database.query({ text: 'update syncsets.workers set expires_at = clock_timestamp()' });
    let woken: Promise<string[]> | undefined;
    await database.transaction(async queries => {
      await queries.query({ text: `select from syncsets.work where name = 'one' for update` });
      woken = wakeDueWork(database);
      await somebodyWaits();
      // Whoever had to wait for it here would wait for ever.
      await queries.query({ text: `select from syncsets.work where name = 'two' for update nowait` });
    });
    expect(await woken).to.deep.equal([controller]);
    const states = (await listWork(database, controller, { limit: 10 })).map(({ state }) => state);
    expect(states).to.deep.equal(['queued', 'queued']);
  });

  it('queues a key again that changes in the very moment in which its result comes', async () => {
    const [claim] = await take();
    let finished: ReturnType<typeof finishKeys> | undefined;
    await database.transaction(async queries => {
      await queries.query({ text: 'update syncsets.work set dirty = true' });
      const key = { type: 'things', namespace: 'n', name: 'one', nonce: claim?.nonce ?? '' };
      finished = finishKeys(database, controller, [{ ...key, result: 'done' }]);
      await somebodyWaits();
    });
    expect(await finished).to.deep.equal([{ held: true, queued: true }]);
    expect((await listWork(database, controller, { limit: 10 })).map(({ state }) => state)).to.deep.equal(['queued']);
  });

  it('ends without a deadlock when its controller is deleted while a result comes', async () => {
    const [claim] = await take();
    let finished: ReturnType<typeof finishKeys> | undefined;
    let deleted: Promise<boolean> | undefined;
    await database.transaction(async queries => {
      // The key of the result is held up, so that both others are under way.
      await queries.query({ text: 'select from syncsets.work for update' });
      const result = {
        type: 'things',
        namespace: 'n',
        name: 'one',
        nonce: claim?.nonce ?? '',
        result: 'done',
      } as const;
      const enqueue = [{ type: 'things', namespace: 'n', name: 'two' }];
      finished = finishKeys(database, controller, [{ ...result, enqueue }]);
      await somebodyWaits();
      deleted = deleteController(database, controller);
      await until(async () => (await lockWaits(database)) === 2, { what: 'both to wait' });
    });
    expect(await finished).to.deep.equal([{ held: true, queued: true }]);
    expect(await deleted).to.equal(true);
    expect(await listWork(database, controller, { limit: 10 })).to.deep.equal([]);
  });
});
