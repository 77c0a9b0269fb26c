import { expect } from 'chai';
import { TestController } from '../test/controller.js';
import { startApi, type TestApi } from '../test/platform.js';
import { until } from '../test/until.js';

/** More than one statement makes, and cheap to store. */
const objects = 12_000;

describe('all objects of a type, when they are enqueued', function () {
  this.timeout(60_000);
  let api: TestApi;
  let controller: TestController;
  before(async () => {
    api = await startApi();
    controller = new TestController(api, 'everything');
    await api.database.query({
      text: `insert into syncsets.objects (type, namespace, name, uid, version, labels, object)
        select 'clusters', 'n' || n % 7, 'c' || n, gen_random_uuid(), n, '{}', jsonb_build_object('name', 'c' || n)
        from generate_series(1, $1) n`,
      values: [objects],
    });
    await api.database.query({
      text: `update syncsets.types set version = $1 where type = 'clusters'`,
      values: [objects],
    });
    await api.database.query({
      text: `update syncsets.cursors set work = $1 where type = 'clusters'`,
      values: [objects],
    });
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
  const queued = async (reason: string) => {
    const [row] = await api.database.query<{ count: number }>({
      text: `select count(*)::int as count from syncsets.work where controller = $1 and state = 'queued' and reason = $2`,
      values: [controller.name, reason],
    });
    return row?.count;
  };

  it('are made in statements of a bounded size, for a newcomer all in one transaction', async () => {
    const answer = await api.call('PUT', controller.path, { type: 'clusters' });
    expect(answer.status).to.equal(200);
    expect(await queued('registered')).to.equal(objects);
    expect(Math.max(...(await made()))).to.be.at.most(10_000);
  });

  it('are made so when the log was cut before the relay has seen it, and the relay goes on behind it', async () => {
    await api.database.query({ text: `update syncsets.work set state = 'waiting', not_before = 'infinity'` });
    await made();
    // As one transaction: no relay is to see the version without the cut.
    await api.database.query({
      text: `update syncsets.types set version = version + 10, log_start = version + 10 where type = 'clusters'`,
    });
    await api.call('POST', '/v1/clusters', { name: 'newest' });
    await until(async () => (await queued('resync')) === objects + 1, { what: 'all keys', deadline: 30_000 });
    expect(Math.max(...(await made()))).to.be.at.most(10_000);
    const [claim] = await controller.claim({ max: 1 });
    await controller.done([claim!]);
    await api.call('POST', '/v1/clusters', { name: 'behind' });
    await until(async () => (await queued('added')) === 1, { what: 'the key of the next event' });
  });
});
