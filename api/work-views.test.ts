import { expect } from 'chai';
import { TestController } from '../test/controller.js';
import { startApi, type TestApi } from '../test/platform.js';
import { until } from '../test/until.js';

describe('what is shown of work', () => {
  let api: TestApi;
  before(async () => {
    api = await startApi();
  });
  after(() => api.stop());

  it('shows why the changes of a watched type could not be turned into keys, by HTTP and as a metric', async () => {
    await api.call('PUT', '/v1/controllers/mapper', { type: 'clusters', watches: ['secrets'] });
    await api.call('POST', '/v1/secrets', { name: 'mapped' });
    const claimed = await until(
      async () => {
        const { body } = await api.call('POST', '/v1/controllers/mapper/claims', { worker: 'w', max: 100 });
        return body.claims.find(({ kind }: { kind: string }) => kind === 'map') as { token: string } | undefined;
      },
      { what: 'a map' },
    );
    const results = [{ token: claimed.token, result: 'error', message: 'the mapping is broken' }];
    await api.call('POST', '/v1/controllers/mapper/claims/done', { results });
    const { body } = await api.call('GET', '/v1/controllers/mapper');
    expect(body.maps).to.have.length(1);
    expect(body.maps[0]).to.include({ type: 'secrets', attempts: 1, lastError: 'the mapping is broken' });
    expect(body.maps[0].behind).to.be.greaterThan(0);
    expect(Date.parse(body.maps[0].notBefore)).to.be.greaterThan(Date.now() - 5_000);
    const metrics = (await api.call('GET', '/metrics')).body as string;
    expect(metrics).to.include('workqueue_map_failing{name="mapper",type="secrets"} 1');
    expect(metrics).to.include(`workqueue_map_behind{name="mapper",type="secrets"} ${body.maps[0].behind}`);
  });

  it('shows how long keys waited for a worker, as a metric', async () => {
    const waited = new TestController(api, 'waited');
    await waited.register();
    const sum = async () => {
      const metrics = (await api.call('GET', '/metrics')).body as string;
      const of = (name: string) =>
        Number(
          new RegExp(`^workqueue_queue_duration_seconds_${name}{name="waited"} (.*)$`, 'm').exec(metrics)?.[1] ?? 0,
        );
      return { count: of('count'), seconds: of('sum') };
    };
    expect(await sum()).to.deep.equal({ count: 0, seconds: 0 });
    await waited.enqueue({ keys: [{ name: 'a' }, { name: 'b' }] });
    await api.database.query({
      text: `update syncsets.work set queued_at = queued_at - interval '100 s' where controller = 'waited'`,
    });
    const [first] = await waited.claim({ max: 1 });
    expect((await sum()).count).to.equal(1);
    expect((await sum()).seconds).to.be.within(100, 160);
    // With results, too.
    const results = [{ token: first!.token, result: 'done' }];
    expect(await waited.claim({ results })).to.have.length(1);
    expect((await sum()).count).to.equal(2);
    await waited.remove();
  });

  it('counts keys from indexes alone and up to a bound', async () => {
    await api.call('PUT', '/v1/controllers/counted', { type: 'syncsets' });
    await api.database.query({
      text: `insert into syncsets.work (controller, type, namespace, name, state, reason, priority, rank, last_error, not_before)
        select 'counted', 'syncsets', '', 'k' || n, 'waiting', 'error', 0, n, case when n % 2 = 0 then 'broken' end,
          case when n % 6 = 0 then 'infinity' else clock_timestamp() + interval '1 hour' end
        from generate_series(1, 30000) n`,
    });
    const whole = (await api.call('GET', '/v1/controllers/counted')).body;
    expect([whole.waiting, whole.failing, whole.parked]).to.deep.equal([30_000, 10_000, 5_000]);
    const metrics = (await api.call('GET', '/metrics')).body as string;
    for (const one of ['waiting{name="counted"} 10000', 'failing{name="counted"} 10000', 'parked{name="counted"} 5000'])
      expect(metrics).to.include(`workqueue_${one}`);
    const plan = await api.database.query({
      text: `explain select count(*) from (select from syncsets.work w where w.controller = 'counted' and w.state = 'waiting'
        and w.last_error is not null and w.not_before < 'infinity' limit 10000) q`,
    });
    expect(JSON.stringify(plan)).to.include('Index Only Scan using work_failing');
    await api.call('DELETE', '/v1/controllers/counted');
  });
});
