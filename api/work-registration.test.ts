import { expect } from 'chai';
import pg from 'pg';
import { TestController } from '../test/controller.js';
import { startApi, type TestApi } from '../test/platform.js';
import { until } from '../test/until.js';

describe('registrations of controllers', () => {
  let api: TestApi;
  let controller: TestController;
  let serial = 0;
  before(async () => {
    api = await startApi();
    for (const type of ['clusters', 'secrets']) await api.call('POST', `/v1/${type}`, { name: 'there' });
  });
  beforeEach(() => {
    controller = new TestController(api, `reg${++serial}`);
  });
  afterEach(() => controller.remove());
  after(() => api.stop());

  const put = (body: object) => api.call('PUT', controller.path, body);
  const claims = async () => (await controller.claim()).map(({ type, name }) => `${type}/${name}`);

  it('that begin at the same moment and disagree leave one winner, whom the loser is shown', async () => {
    const wanted = [5, 6].map(claimSeconds => ({ type: 'clusters', claimSeconds, revision: 4 }));
    const answers = await Promise.all(wanted.map(put));
    expect(answers.map(({ status }) => status).sort()).to.deep.equal([200, 409]);
    const won = answers.find(({ status }) => status === 200)?.body.claimSeconds;
    const lost = answers.find(({ status }) => status === 409)?.body.error;
    expect(lost.message).to.include('revision 4');
    // The registration, and no numbers that nobody has counted.
    expect(JSON.parse(lost.details[0].message)).to.deep.equal({
      name: controller.name,
      type: 'clusters',
      on: ['spec', 'metadata', 'deletion'],
      watches: [],
      claimSeconds: won,
      revision: 4,
      reveal: [],
      longRunning: false,
    });
    expect(await controller.view()).to.include({ claimSeconds: won });
  });

  it('that are repeated enqueue nothing, also with a higher revision', async () => {
    await controller.register();
    expect((await put({ type: 'clusters' })).status).to.equal(200);
    expect((await put({ type: 'clusters', revision: 7 })).body).to.include({ revision: 7, queued: 0 });
    expect(await claims()).to.deep.equal([]);
  });

  it('for another type drop the keys of the former one, whose claims are lost, and enqueue those of the new', async () => {
    await put({ type: 'clusters' });
    const [held] = await controller.claim();
    await controller.enqueue({ keys: [{ name: 'queued' }] });
    expect((await put({ type: 'secrets', revision: 1 })).status).to.equal(200);
    expect(await controller.done([held!])).to.deep.equal(['fenced']);
    expect(await claims()).to.deep.equal(['secrets/there']);
  });

  it('for all types keep what is claimed and enqueue the rest', async () => {
    await put({ type: 'clusters' });
    const [held] = await controller.claim();
    expect((await put({ type: '*', revision: 1 })).status).to.equal(200);
    expect(await claims()).to.include('secrets/there');
    expect(await controller.done([held!])).to.deep.equal(['ok']);
  });

  it('that ask for more parts of a change get all objects once, those that ask for fewer do not', async () => {
    await controller.register({ on: ['spec'] });
    await put({ type: 'clusters', on: ['spec', 'status'], revision: 1 });
    expect(await claims()).to.deep.equal(['clusters/there']);
    await controller.remove();
    await controller.register({ on: ['spec', 'status'] });
    await put({ type: 'clusters', on: ['spec'], revision: 1 });
    expect(await claims()).to.deep.equal([]);
  });

  it('of a task give it one key, whatever else is enqueued for it', async () => {
    await put({ type: '-' });
    const twice = await api.call('POST', `${controller.path}/enqueue`, {
      keys: [{ name: controller.name }, { name: 'b' }],
    });
    expect(twice.status).to.equal(422);
    expect(twice.body.error.details).to.deep.equal([{ path: 'keys[1].name', message: `must be "${controller.name}"` }]);
    const messages = [{ type: '-', name: 'b' }];
    const { body } = await api.call('POST', `${controller.path}/claims`, { worker: 'w', max: 9, messages });
    expect(body.claims.map(({ name }: { name: string }) => name)).to.deep.equal([controller.name]);
    expect(body.refused[0].reason).to.include('the one key of the task');
    expect(await controller.enqueue({ keys: [{ name: controller.name }] })).to.equal(1);
  });

  it('for all types have no key of a task', async () => {
    await put({ type: '*' });
    const { status, body } = await api.call('POST', `${controller.path}/enqueue`, { keys: [{ type: '-', name: 'a' }] });
    expect([status, body.error.code]).to.deep.equal([404, 'UnknownType']);
  });

  it('that add a watch begin with all objects; one that is removed ends its map and is told nothing more', async () => {
    await controller.register();
    await put({ type: 'clusters', watches: ['secrets'], revision: 1 });
    expect(await claims()).to.deep.equal(['clusters/there']);
    await api.call('PATCH', '/v1/secrets/default/there', { labels: { at: String(serial) } });
    const map = await until(async () => (await controller.claim({ waitSeconds: 1 })).find(one => one.kind === 'map'), {
      what: 'a map',
    });
    await put({ type: 'clusters', watches: [], revision: 2 });
    expect(await controller.done([map])).to.deep.equal(['fenced']);
    await api.call('PATCH', '/v1/secrets/default/there', { labels: { at: 'later' } });
    expect((await controller.claim({ waitSeconds: 0.5 })).filter(({ kind }) => kind === 'map')).to.deep.equal([]);
  });

  it('that take long hold up the work of their own types alone', async () => {
    await controller.register({ revision: 1 });
    const other = new TestController(api, `${controller.name}-other`);
    await other.register({ type: 'secrets' });
    const held = new pg.Client({ connectionString: api.databaseUrl });
    await held.connect();
    try {
      await held.query('begin');
      await held.query('select from syncsets.controllers where name = $1 for update', [controller.name]);
      const answer = put({ type: 'clusters', claimSeconds: 9, revision: 2 });
      await until(
        async () => (await held.query(`select from pg_stat_activity where wait_event_type = 'Lock'`)).rowCount === 1,
        { what: 'the registration to wait' },
      );
      await api.call('PATCH', '/v1/secrets/default/there', { labels: { at: controller.name } });
      expect((await other.claim({ waitSeconds: 5 })).map(({ name }) => name)).to.deep.equal(['there']);
      await held.query('rollback');
      expect((await answer).status).to.equal(200);
    } finally {
      await held.end();
      await other.remove();
    }
  });

  it('enqueue all keys when a watched type’s events are gone from the log', async () => {
    await controller.register({ watches: ['secrets'] });
    await api.call('PATCH', '/v1/secrets/default/there', { labels: { at: 'lost' } });
    await api.database.query({ text: `update syncsets.types set log_start = version where type = 'secrets'` });
    const [claim] = await controller.claim({ waitSeconds: 5 });
    expect(claim).to.include({ kind: 'key', name: 'there', reason: 'resync' });
    expect((await api.call('GET', controller.path)).body.maps[0].behind).to.equal(0);
  });

  it('are forgotten with keys, claims, maps and workers, and nothing is left of them', async () => {
    await controller.register({ watches: ['secrets'] });
    await controller.enqueue({ keys: [{ name: 'a' }, { name: 'b' }] });
    const [held] = await controller.claim({ max: 1 });
    expect((await api.call('DELETE', controller.path)).status).to.equal(204);
    expect((await api.call('DELETE', controller.path)).status).to.equal(404);
    const results = [{ token: held!.token, result: 'done' }];
    expect((await api.call('POST', `${controller.path}/claims/done`, { results })).status).to.equal(404);
    // A replica that remembers the registration for a second more.
    const { enqueueKeys } = await import('../db/index.js');
    const late = [{ type: 'clusters', namespace: 'default', name: 'late' }];
    expect((await enqueueKeys(api.database, controller.name, late, { priority: 0, reason: 'late' })).count).to.equal(0);
    for (const table of ['work', 'workers', 'maps'])
      expect(
        await api.database.query({
          text: `select from syncsets.${table} where controller = $1`,
          values: [controller.name],
        }),
        table,
      ).to.deep.equal([]);
  });
});

describe('what workers ask for', () => {
  let api: TestApi;
  let controller: TestController;
  before(async () => {
    api = await startApi();
    controller = new TestController(api, 'asked');
    await controller.register();
    const list = Array.from({ length: 7 }, (_, i) => ({ name: `k${i}`, labels: { odd: String(i % 2) } }));
    for (const one of list) await api.call('POST', '/v1/clusters', one);
    await controller.queued(7);
  });
  after(() => api.stop());

  const many = (count: number) => Array.from({ length: count }, (_, i) => ({ name: `m${i}` }));
  const token = 'x';
  for (const [what, path, body, status] of [
    ['claims by an unknown controller', '/v1/controllers/nobody/claims', { worker: 'w', max: 1 }, 404],
    ['results for one', '/v1/controllers/nobody/claims/done', { results: [{ token, result: 'done' }] }, 404],
    ['a lease of one', '/v1/controllers/nobody/claims/renew', { worker: 'w' }, 404],
    ['keys for one', '/v1/controllers/nobody/enqueue', { keys: [{ name: 'a' }] }, 404],
    ['1,001 claims', '/claims', { worker: 'w', max: 1_001 }, 422],
    ['no claims', '/claims', { worker: 'w', max: 0 }, 422],
    ['1,001 keys', '/claims', { worker: 'w', max: 1, keys: many(1_001) }, 422],
    ['1,001 messages', '/claims', { worker: 'w', max: 1, messages: many(1_001) }, 422],
    ['keys and messages', '/claims', { worker: 'w', max: 1, keys: many(1), messages: many(1) }, 422],
    ['a wait of a minute', '/claims', { worker: 'w', max: 1, waitSeconds: 60 }, 422],
    ['1,001 tokens', '/claims/renew', { worker: 'w', tokens: many(1_001).map(({ name }) => name) }, 422],
    ['1,001 results', '/claims/done', { results: many(1_001).map(() => ({ token, result: 'done' })) }, 422],
    ['1,001 keys to enqueue', '/enqueue', { keys: many(1_001) }, 422],
    ['a negative pause', '/claims/done', { results: [{ token, result: 'done', requeueAfterSeconds: -1 }] }, 422],
    ['a pause of 100 years', '/claims/done', { results: [{ token, result: 'done', requeueAfterSeconds: 3e9 }] }, 422],
    ['a delay of 100 years', '/enqueue', { keys: many(1), afterSeconds: 3e9 }, 422],
    ['a priority beyond all', '/enqueue', { keys: many(1), priority: 101 }, 422],
    ['a selector and all', '/enqueue', { type: 'clusters', labelSelector: 'a=b', all: true }, 422],
    ['a key without a name', '/enqueue', { keys: [{ name: '' }] }, 422],
    ['a selector that is none', '/enqueue', { type: 'clusters', labelSelector: 'a in b' }, 400],
  ] as const) {
    it(`is refused with ${status}: ${what}`, async () => {
      const answer = await api.call('POST', path.startsWith('/v1') ? path : controller.path + path, body);
      expect(answer.status, JSON.stringify(answer.body)).to.equal(status);
      expect(answer.body.error.message).to.match(/\w{3}/);
    });
  }

  it('says where a type stands that the controller does not reconcile', async () => {
    const message = (place: string) => `${place} must be "clusters", which the controller reconciles.`;
    for (const [body, path] of [
      [{ type: 'secrets', all: true }, 'type'],
      [{ keys: [{ name: 'a' }, { type: 'secrets', name: 'a' }] }, 'keys[1].type'],
    ] as const) {
      const { error } = (await api.call('POST', `${controller.path}/enqueue`, body)).body;
      expect([error.message, error.details[0].path]).to.deep.equal([message(path), path]);
    }
  });

  it('may be a selector that matches nothing: nothing is queued', async () => {
    expect(await controller.enqueue({ type: 'clusters', labelSelector: 'no=where' })).to.equal(0);
    expect(await controller.enqueue({ type: 'clusters', namespace: 'nowhere', all: true })).to.equal(0);
  });

  it('may name what is no key of it by messages: those are told apart, the others count', async () => {
    const messages = [
      { type: 'nothings', name: 'a' },
      { type: 'clusters', name: 'k0' },
      { type: 'secrets', name: 'a' },
      { type: 'clusters', name: '' },
    ];
    const { body } = await api.call('POST', `${controller.path}/claims`, { worker: 'w', max: 1, messages });
    expect(body.claims).to.have.length(1);
    expect(body.refused.map(({ index }: { index: number }) => index)).to.deep.equal([0, 2, 3]);
    expect(body.refused[0].reason).to.match(/type must be "clusters"/);
    await controller.done(body.claims, { result: 'released' });
  });

  it('may be looked at page by page and by state', async () => {
    const page = async (query: string) => (await api.call('GET', `${controller.path}/work?${query}`)).body;
    const seen: string[] = [];
    let next = '';
    do {
      const { items, continue: more } = await page(`limit=3${next}`);
      seen.push(...items.map(({ name }: { name: string }) => name));
      next = more === undefined ? '' : `&continue=${more}`;
    } while (next);
    expect(seen).to.deep.equal(many(7).map((_, i) => `k${i}`));
    const [one] = await controller.claim({ max: 1 });
    const names = async (state: string) =>
      (await page(`state=${state}`)).items.map(({ name }: { name: string }) => name);
    expect(await names('claimed')).to.deep.equal([one?.name]);
    expect(await names('queued')).to.have.length(6);
    await controller.done([one!], { result: 'error', message: 'broken' });
    expect(await names('failing')).to.deep.equal([one?.name]);
    expect((await api.call('GET', `${controller.path}/work?state=lost`)).status).to.equal(400);
    expect((await api.call('GET', `${controller.path}/work?continue=made-up`)).status).to.equal(400);
  });

  it('may be more keys with a result: by name, by selector, all', async () => {
    const results = async (enqueue: object[]) => {
      await controller.done(await controller.claim());
      await controller.enqueue({ keys: [{ name: 'trigger' }] });
      const [trigger] = await controller.claim();
      await controller.done([trigger!], { result: 'done', enqueue });
      const claims = await controller.claim();
      await controller.done(claims);
      return claims.map(({ name }) => name).sort();
    };
    expect(await results([{ name: 'k1' }, { type: 'clusters', name: 'k2' }])).to.deep.equal(['k1', 'k2']);
    expect(await results([{ type: 'clusters', labelSelector: 'odd=1' }])).to.deep.equal(['k1', 'k3', 'k5']);
    expect(await results([{ type: 'clusters', all: true }])).to.have.length(7);
  });
});
