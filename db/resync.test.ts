import { expect } from 'chai';
import { TestController } from '../test/controller.js';
import { lockWaits } from '../test/locks.js';
import { call, spawnPlatform, startApi, type TestApi } from '../test/platform.js';
import { createDatabase } from '../test/postgres.js';
import { until } from '../test/until.js';
import { Database, type Queries } from './database.js';

/** More than a registration waits for, and more than two of the pages after that. */
const objects = 15_000;

/** Stored past the API, which takes a second for as many. */
async function store(database: Database): Promise<void> {
  await database.query({
    text: `insert into syncsets.objects (type, namespace, name, uid, version, labels, object)
      select 'clusters', 'n' || n % 7, 'c' || n, gen_random_uuid(), n, '{}', jsonb_build_object('name', 'c' || n)
      from generate_series(1, $1) n`,
    values: [objects],
  });
  await database.query({ text: `update syncsets.types set version = $1 where type = 'clusters'`, values: [objects] });
  await database.query({ text: `update syncsets.cursors set work = $1 where type = 'clusters'`, values: [objects] });
}

/** Queues the key of one object, counted by key, in a transaction that is not over: whoever queues it as well waits for that. */
async function hold(queries: Queries, controller: string, place: number): Promise<void> {
  await queries.query({ text: 'set local idle_in_transaction_session_timeout = 0' });
  await queries.query({
    text: `insert into syncsets.work (controller, type, namespace, name, state, reason, priority, rank)
      select $1, 'clusters', namespace, name, 'queued', 'by hand', 0, 1 from syncsets.objects
      where type = 'clusters' order by namespace, name offset $2 - 1 limit 1`,
    values: [controller, place],
  });
}

describe('all objects of a type, when they are enqueued', function () {
  this.timeout(60_000);
  let api: TestApi;
  let controller: TestController;
  before(async () => {
    api = await startApi();
    controller = new TestController(api, 'everything');
    await store(api.database);
    // What each statement makes.
    await api.database.query({ text: 'create table made (keys bigint)' });
    await api.database.query({
      text: `create function count_keys() returns trigger language plpgsql as $$
        begin insert into made select count(*) from keys; return null; end $$`,
    });
    await api.database.query({
      text: `create trigger count_new after insert on syncsets.work referencing new table as keys
        for each statement execute function count_keys()`,
    });
    await api.database.query({
      text: `create trigger count_old after update on syncsets.work referencing new table as keys
        for each statement execute function count_keys()`,
    });
  });
  after(() => api.stop());

  const made = async () => {
    const rows = await api.database.query<{ keys: number }>({ text: 'delete from made returning keys' });
    return rows.map(({ keys }) => keys).filter(keys => keys > 0);
  };
  const queued = async (reason: string, name = controller.name) => {
    const [row] = await api.database.query<{ count: number }>({
      text: `select count(*)::int as count from syncsets.work where controller = $1 and state = 'queued' and reason = $2`,
      values: [name, reason],
    });
    return row?.count;
  };
  const resyncing = async (name: string) =>
    (await api.call('GET', `/v1/controllers/${name}`)).body.resyncing as string[];

  it('are made in statements of a bounded size, for a newcomer the first of them before it is answered', async () => {
    const answer = await api.call('PUT', controller.path, { type: 'clusters' });
    expect(answer.status).to.equal(200);
    expect(await queued('registered')).to.be.at.least(10_000);
    await until(async () => (await resyncing(controller.name)).length === 0, { what: 'the last of them' });
    expect(await queued('registered')).to.equal(objects);
    expect(Math.max(...(await made()))).to.be.at.most(10_000);
  });

  it('hold up neither the registration nor the events of the type, and tell that there is more to come', async () => {
    await api.database.transaction(async queries => {
      await hold(queries, 'late', objects);
      expect((await api.call('PUT', '/v1/controllers/late', { type: 'clusters' })).status).to.equal(200);
      await until(async () => (await queued('registered', 'late'))! > 10_000, { what: 'the second page' });
      expect(await resyncing('late')).to.deep.equal(['clusters']);
      await api.call('POST', '/v1/clusters', { name: 'meanwhile' });
      for (const name of ['late', controller.name]) {
        await until(async () => (await queued('added', name)) === 1, { what: `the key of the event for ${name}` });
      }
    });
    await until(async () => (await resyncing('late')).length === 0, { what: 'the last of them' });
    expect(await queued('registered', 'late')).to.equal(objects - 1);
    expect(await queued('by hand', 'late')).to.equal(1);
  });

  it('are made no longer for a controller that has another type, or is gone', async () => {
    let other: ReturnType<TestApi['call']> | undefined;
    await api.database.transaction(async queries => {
      await hold(queries, 'fickle', 13_000);
      await api.call('PUT', '/v1/controllers/fickle', { type: 'clusters' });
      await until(async () => (await lockWaits(api.database, 'enqueue_objects')) > 0, {
        what: 'the page with that key to be in hand',
      });
      other = api.call('PUT', '/v1/controllers/fickle', { type: 'secrets', revision: 1 });
      await until(async () => (await lockWaits(api.database, 'from syncsets.resyncs where controller')) > 0, {
        what: 'the other type to wait',
      });
    });
    expect((await other)?.status).to.equal(200);
    await until(async () => (await resyncing('fickle')).length === 0, { what: 'the pages to end' });
    expect(await queued('registered', 'fickle')).to.equal(0);
    await api.call('PUT', '/v1/controllers/fickle', { type: 'clusters', revision: 2 });
    expect((await api.call('DELETE', '/v1/controllers/fickle')).status).to.equal(204);
    const [left] = await api.database.query<{ count: number }>({
      text: `select (select count(*) from syncsets.work where controller = 'fickle')
        + (select count(*) from syncsets.resyncs where controller = 'fickle') as count`,
    });
    expect(left?.count).to.equal(0);
  });

  it('are made so when the log was cut before the relay has seen it, and the relay goes on behind it', async () => {
    await api.database.query({ text: `update syncsets.work set state = 'waiting', not_before = 'infinity'` });
    await made();
    // As one transaction: no relay is to see the version without the cut.
    await api.database.query({
      text: `update syncsets.types set version = version + 10, log_start = version + 10 where type = 'clusters'`,
    });
    await api.call('POST', '/v1/clusters', { name: 'newest' });
    await until(async () => (await queued('resync')) === objects + 2, { what: 'all keys', deadline: 30_000 });
    expect(Math.max(...(await made()))).to.be.at.most(10_000);
    const [claim] = await controller.claim({ max: 1 });
    await controller.done([claim!]);
    await api.call('POST', '/v1/clusters', { name: 'behind' });
    await until(async () => (await queued('added')) === 1, { what: 'the key of the next event' });
  });
});

describe('the objects of a type that are still to be enqueued', function () {
  this.timeout(60_000);

  it('are enqueued by another replica when the one that was at it is killed', async () => {
    const own = await createDatabase();
    const env = { DATABASE_URL: own.url };
    const first = await spawnPlatform('api', env);
    const database = new Database({ connection: { connectionString: own.url }, log: () => undefined });
    let second: Awaited<ReturnType<typeof spawnPlatform>> | undefined;
    try {
      await store(database);
      await database.transaction(async queries => {
        await hold(queries, 'survivor', objects);
        expect((await call(first.url, 'PUT', '/v1/controllers/survivor', { type: 'clusters' })).status).to.equal(200);
        await until(async () => (await lockWaits(database, 'enqueue_objects')) > 0, {
          what: 'the last page to be in hand',
        });
        second = await spawnPlatform('api', env);
        await first.end('SIGKILL');
      });
      await until(
        async () => {
          const { body } = await call(second?.url ?? '', 'GET', '/v1/controllers/survivor');
          return body.queued === objects && body.resyncing.length === 0;
        },
        { what: 'all keys to be queued' },
      );
    } finally {
      await first.end('SIGKILL');
      await second?.end('SIGKILL');
      await database.stop();
      await own.drop();
    }
  });
});
