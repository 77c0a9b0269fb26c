import { expect } from 'chai';
import { TestController } from '../test/controller.js';
import { createDatabase } from '../test/postgres.js';
import { startApi, type TestApi } from '../test/platform.js';

describe('workers that misbehave', () => {
  let api: TestApi;
  let controller: TestController;
  let serial = 0;
  before(async () => {
    api = await startApi();
  });
  beforeEach(() => {
    controller = new TestController(api, `fault${++serial}`);
  });
  afterEach(() => controller.remove());
  after(() => api.stop());

  const name = () => ({ name: `f${serial}` });
  async function claimed(fields: object = {}) {
    await controller.register(fields);
    await controller.enqueue({ keys: [name()] });
    const [claim] = await controller.claim({ worker: 'w1' });
    return claim!;
  }
  /** Ends the leases of a worker now: the time until then is the database's alone. */
  const expire = (worker: string) =>
    api.database.query({
      text: `update syncsets.workers set expires_at = clock_timestamp() where controller = $1 and worker = $2`,
      values: [controller.name, worker],
    });

  it('lose their keys when they never answer, and count for nothing afterwards', async () => {
    const lost = await claimed({ claimSeconds: 60 });
    await expire('w1');
    const [again] = await controller.claim({ worker: 'w2', waitSeconds: 5 });
    expect(again).to.include({ ...name(), reason: 'lease expired', attempts: 0 });
    expect(await controller.done([lost])).to.deep.equal(['fenced']);
    expect(await controller.done([again!])).to.deep.equal(['ok']);
  });

  it('get their keys also while the events of a type that they watch cannot be claimed', async () => {
    await controller.register({ watches: ['secrets'] });
    await api.call('POST', '/v1/secrets', name());
    await controller.enqueue({ keys: [name()] });
    await api.database.query({
      text: `create function refuse() returns trigger language plpgsql as $$ begin raise 'no'; end $$`,
    });
    await api.database.query({
      text: 'create trigger refuse before update on syncsets.maps for each row execute function refuse()',
    });
    try {
      const claims = await controller.claim();
      expect(claims.map(({ kind }) => kind)).to.deep.equal(['key']);
      expect(await controller.done(claims)).to.deep.equal(['ok']);
    } finally {
      await api.database.query({ text: 'drop function refuse cascade' });
    }
    const [map] = await controller.claim({ waitSeconds: 5 });
    expect(map?.kind).to.equal('map');
  });

  it('report keys of any name, also of one that no object can have', async () => {
    await controller.register({ type: '*' });
    const keys = ['a|b', 'a%7Cb', 'ü', '*'].map(odd => ({ type: 'clusters', namespace: odd, name: odd }));
    await controller.enqueue({ keys });
    const claims = await controller.claim({ max: 1_000 });
    expect(claims.map(claim => claim.name)).to.have.members(keys.map(key => key.name));
    expect(await controller.done(claims)).to.deep.equal(keys.map(() => 'ok'));
    expect(await controller.view()).to.include({ queued: 0, claimed: 0 });
  });

  it('are heard once when they answer twice, in two calls or in one', async () => {
    const first = await claimed();
    expect(await controller.done([first])).to.deep.equal(['ok']);
    expect(await controller.done([first])).to.deep.equal(['fenced']);
    await controller.enqueue({ keys: [name()] });
    const [second] = await controller.claim();
    const results = [
      { token: second!.token, result: 'done' },
      { token: second!.token, result: 'terminal', message: 'or not' },
    ];
    const { body } = await api.call('POST', `${controller.path}/claims/done`, { results });
    expect(body.results.map(({ state }: { state: string }) => state)).to.deep.equal(['ok', 'fenced']);
    expect(await controller.view()).to.include({ queued: 0, claimed: 0, waiting: 0 });
  });

  it('end the claim of another worker with its token, once, and its own answer is then fenced', async () => {
    const one = await claimed();
    await controller.claim({ worker: 'w2' });
    expect(await controller.done([one])).to.deep.equal(['ok']);
    expect(await controller.done([one])).to.deep.equal(['fenced']);
    const write = await api.call('POST', '/v1/clusters', { ...name() }, { Claim: one.token });
    expect([write.status, write.body.error.code]).to.deep.equal([409, 'Fenced']);
  });

  it('reach nothing with the token of another controller', async () => {
    const one = await claimed();
    const other = new TestController(api, `${controller.name}-other`);
    await other.register();
    const results = [{ token: one.token, result: 'done', enqueue: [{ name: 'smuggled' }] }];
    const { body } = await api.call('POST', `${other.path}/claims/done`, { results });
    expect(body.results[0].state).to.equal('fenced');
    expect(await controller.view()).to.include({ claimed: 1 });
    await other.remove();
  });

  it('that claim 10,000 keys and die leave all of them to others, none twice', async function () {
    this.timeout(60_000);
    await controller.register({ claimSeconds: 60 });
    await api.database.query({
      text: `select syncsets.enqueue(array(select row($1, 'clusters', 'n' || n % 50, 'k' || n, null, null, 0, 'test')::syncsets.key
        from generate_series(1, 10000) n))`,
      values: [controller.name],
    });
    const greedy = new Set<string>();
    for (let i = 0; i < 10; i++)
      for (const { token } of await controller.claim({ worker: 'greedy', max: 1_000 })) greedy.add(token);
    expect(greedy.size).to.equal(10_000);
    expect(await controller.claim({ worker: 'heir' })).to.deep.equal([]);
    await expire('greedy');
    await controller.queued(10_000);
    const inherited: string[] = [];
    while (inherited.length < 10_000) {
      const claims = await controller.claim({ worker: 'heir', max: 1_000 });
      expect(claims).not.to.deep.equal([]);
      inherited.push(...claims.map(claim => claim.name));
      expect(new Set(await controller.done(claims))).to.deep.equal(new Set(['ok']));
    }
    expect(new Set(inherited).size).to.equal(10_000);
    expect(new Set(await controller.done([...greedy].slice(0, 1_000).map(token => ({ token }))))).to.deep.equal(
      new Set(['fenced']),
    );
  });

  it('may have any clock, as may the API: only the database’s counts', async () => {
    const { now } = Date;
    try {
      Date.now = () => now() + 600_000;
      const first = await claimed({ claimSeconds: 2 });
      Date.now = () => now() - 600_000;
      expect(await controller.done([first], { result: 'done', requeueAfterSeconds: 1 })).to.deep.equal(['ok']);
      const [due] = await controller.claim({ waitSeconds: 5 });
      expect(due?.reason).to.equal('requeueAfter');
      Date.now = () => now() + 600_000;
      // Held: the lease is 2 s of the database's.
      expect(await controller.claim({ worker: 'w2' })).to.deep.equal([]);
      const [taken] = await controller.claim({ worker: 'w2', waitSeconds: 5 });
      expect(taken?.reason).to.equal('lease expired');
    } finally {
      Date.now = now;
    }
  });

  it('back off by 1 s, 2 s, 4 s up to 5 min, less a tenth at most', async () => {
    for (const [attempts, longest] of [
      [0, 1],
      [1, 2],
      [3, 8],
      [8, 256],
      [9, 300],
      [500, 300],
    ] as const) {
      if (attempts === 0) await controller.register();
      await controller.enqueue({ keys: [name()] });
      const [claim] = await controller.claim();
      await api.database.query({
        text: 'update syncsets.work set attempts = $2 where controller = $1',
        values: [controller.name, attempts],
      });
      await controller.done([claim!], { result: 'error', message: 'no luck' });
      const [row] = await api.database.query<{ seconds: number }>({
        text: `select extract(epoch from not_before - queued_at)::double precision as seconds from syncsets.work where controller = $1`,
        values: [controller.name],
      });
      expect(row?.seconds, `after ${attempts}`).to.be.within(longest * 0.89, longest * 1.01);
    }
  });

  it('find their timers kept when all of the API is restarted', async () => {
    const own = await createDatabase();
    const first = await startApi({ databaseUrl: own.url });
    const before = new TestController(first, 'kept');
    await before.register();
    await before.enqueue({ keys: [{ name: 'later' }], afterSeconds: 4 });
    const dueOf = async ({ api: { call }, path }: TestController): Promise<unknown> =>
      (await call('GET', `${path}/work?state=waiting`)).body.items[0]?.notBefore;
    const due = await dueOf(before);
    await first.stop();
    const second = await startApi({ databaseUrl: own.url });
    try {
      const after = new TestController(second, 'kept');
      // On a machine that took longer than that to restart it is due already.
      const kept = await dueOf(after);
      const ready = Math.max(Date.now(), Date.parse(String(due)));
      if (kept !== undefined) expect(kept).to.equal(due);
      const claims = await after.claim({ waitSeconds: 10 });
      expect(claims.map(claim => claim.name)).to.deep.equal(['later']);
      // The database's clock is this machine's.
      expect(Date.now()).to.be.within(Date.parse(String(due)), ready + 3_000);
    } finally {
      await second.stop();
      await own.drop();
    }
  });

  it('get the keys of changes that follow when the database went back to an older state', async () => {
    const restored = await startApi();
    try {
      const reader = new TestController(restored, 'reader');
      await reader.register();
      for (const name of ['one', 'two', 'three']) await restored.call('POST', '/v1/clusters', { name });
      await reader.queued(3);
      await reader.done(await reader.claim());
      const watch = await fetch(`${restored.url}/v1/clusters?watch=true&resourceVersion=3`);
      for (const text of [
        'delete from syncsets.objects',
        'delete from syncsets.events',
        'update syncsets.types set version = 0',
        'update syncsets.cursors set work = 0',
      ])
        await restored.database.query({ text });
      // Until the replica has seen it, which ends all watches.
      expect(await watch.text()).to.contain('Expired');
      await restored.call('POST', '/v1/clusters', { name: 'later' });
      expect((await reader.claim({ waitSeconds: 10 })).map(({ name }) => name)).to.deep.equal(['later']);
    } finally {
      await restored.stop();
    }
  });

  it('that are gone for good are seen by when they were last there, and leave no keys of gone objects for ever', async () => {
    await controller.register();
    await api.call('POST', '/v1/clusters', { name: `kept${serial}` });
    await controller.enqueue({ keys: [{ name: 'gone' }] });
    await controller.queued(2);
    const { dropAbandonedWork, noteWorkers } = await import('../db/index.js');
    await api.database.query({
      text: `update syncsets.controllers set seen_at = '2020-01-01' where name = $1`,
      values: [controller.name],
    });
    await api.database.query({
      text: `update syncsets.work set queued_at = '2020-01-01' where controller = $1`,
      values: [controller.name],
    });
    // It has a live worker, who claims nothing.
    await noteWorkers(api.database);
    expect(Date.parse((await controller.view()).lastSeenAt)).to.be.greaterThan(Date.parse('2021-01-01'));
    expect(await dropAbandonedWork(api.database)).to.equal(0);
    await api.database.query({
      text: `update syncsets.controllers set seen_at = '2020-01-01' where name = $1`,
      values: [controller.name],
    });
    await api.call('DELETE', `${controller.path}/workers/w1`);
    expect((await controller.view()).lastSeenAt).to.match(/^2020-01-01/);
    expect(await dropAbandonedWork(api.database)).to.equal(1);
    expect((await controller.claim()).map(claim => claim.name)).to.deep.equal([`kept${serial}`]);
  });
});
