import { expect } from 'chai';
import { startApi, type TestApi } from '../test/platform.js';
import { until } from '../test/until.js';

interface Claim {
  token: string;
  kind: string;
  name: string;
  uid: string | null;
  priority?: number;
  namespace: string;
  object: { name: string; labels?: Record<string, string> } | null;
  attempts: number;
  reason: string;
  events: { op: string; before: { clusterRefs?: string[] } | null; object: { clusterRefs?: string[] } | null }[];
}

describe('work over HTTP', () => {
  let api: TestApi;
  let serial = 0;
  let controller = '';
  let base = '';
  before(async () => {
    api = await startApi();
  });
  beforeEach(async () => {
    // Each test has a controller that has seen all former objects.
    controller = `ctl${++serial}`;
    base = `/v1/controllers/${controller}`;
  });
  afterEach(() => api.call('DELETE', base));
  after(() => api.stop());

  async function register(fields: object = {}) {
    const answer = await api.call('PUT', base, { type: 'clusters', ...fields });
    expect(answer.status, JSON.stringify(answer.body)).to.equal(200);
    await finish((await claim({ max: 1000 })).map(one => ({ token: one.token, result: 'done' })));
  }
  async function claim(fields: object = {}): Promise<Claim[]> {
    const answer = await api.call('POST', `${base}/claims`, { worker: 'w1', max: 100, ...fields });
    expect(answer.status, JSON.stringify(answer.body)).to.equal(200);
    return answer.body.claims;
  }
  async function finish(results: object[]): Promise<string[]> {
    if (results.length === 0) return [];
    const answer = await api.call('POST', `${base}/claims/done`, { results });
    expect(answer.status, JSON.stringify(answer.body)).to.equal(200);
    return answer.body.results.map((one: { state: string }) => one.state);
  }
  async function create(fields: object = {}) {
    const { body } = await api.call('POST', '/v1/clusters', { name: `k${++serial}`, namespace: 'work', ...fields });
    return body as { name: string; namespace: string };
  }
  const patch = (object: { name: string }, body: object, headers = {}) =>
    api.call('PATCH', `/v1/clusters/work/${object.name}`, body, headers);
  const soon = (fields: object = {}) => claim({ waitSeconds: 5, ...fields });

  it('hands a changed object to a waiting worker, with its state', async () => {
    await register();
    const waiting = soon();
    const object = await create({ labels: { a: 'b' } });
    const [one] = await waiting;
    expect(one).to.deep.include({ kind: 'key', name: object.name, namespace: 'work', attempts: 0 });
    expect(one?.object?.labels).to.deep.equal({ a: 'b' });
  });

  it('enqueues every existing object once at the first registration', async () => {
    const object = await create();
    await api.call('PUT', base, { type: 'clusters' });
    const names = (await claim({ max: 1000 })).map(one => one.name);
    expect(names).to.include(object.name);
    expect(new Set(names).size).to.equal(names.length);
  });

  it('queues a key once however often its object changes, and again when it changes while claimed', async () => {
    await register();
    const object = await create();
    for (let i = 0; i < 5; i++) await patch(object, { labels: { i: String(i) } });
    const [first, ...others] = await soon();
    expect(others).to.deep.equal([]);
    await patch(object, { labels: { i: 'late' } });
    expect(await claim({ worker: 'w2', waitSeconds: 0.3 })).to.deep.equal([]);
    expect(await finish([{ token: first?.token, result: 'done' }])).to.deep.equal(['ok']);
    const [again] = await soon({ worker: 'w2' });
    expect(again?.object?.labels).to.deep.equal({ i: 'late' });
  });

  it('gives a key to one worker at a time', async () => {
    await register();
    await Promise.all(Array.from({ length: 40 }, () => create()));
    const got = new Map<string, number>();
    await until(
      async () => {
        const claims = await Promise.all(['a', 'b', 'c', 'd'].map(worker => claim({ worker, max: 5 })));
        for (const one of claims.flat()) got.set(one.name, (got.get(one.name) ?? 0) + 1);
        return got.size === 40;
      },
      { what: 'all keys to be claimed' },
    );
    expect([...got.values()].every(times => times === 1)).to.equal(true);
  });

  it('does not wake a controller by its own write, but by a write of anyone else', async () => {
    await register({ on: ['spec', 'metadata', 'status', 'deletion'] });
    const object = await create();
    const [one] = await soon();
    const own = await api.call(
      'PUT',
      `/v1/clusters/work/${object.name}/status`,
      { status: { nodeCount: 1 } },
      { Claim: one?.token ?? '' },
    );
    expect(own.status).to.equal(200);
    await finish([{ token: one?.token, result: 'done' }]);
    expect(await claim({ waitSeconds: 0.5 })).to.deep.equal([]);
    await api.call('PUT', `/v1/clusters/work/${object.name}/status`, { status: { nodeCount: 2 } });
    expect(await soon()).to.have.length(1);
  });

  it('wakes a controller that deletes the object it works on, which finalizers hold', async () => {
    await register();
    const { name } = await create({ finalizers: ['example.com/hold'] });
    const [first] = await soon();
    const held = { Claim: first?.token ?? '' };
    expect((await api.call('DELETE', `/v1/clusters/work/${name}`, undefined, held)).status).to.equal(200);
    await finish([{ token: first?.token, result: 'done' }]);
    const [second] = await soon();
    expect(second?.object).to.have.property('deletedAt');
    await patch({ name }, { finalizers: [] }, { Claim: second?.token ?? '' });
    await finish([{ token: second?.token, result: 'done' }]);
    expect(await claim({ waitSeconds: 0.5 })).to.deep.equal([]);
  });

  it('leaves out changes of the status unless the controller asked for them', async () => {
    await register();
    const object = await create();
    await finish((await soon()).map(({ token }) => ({ token, result: 'done' })));
    await api.call('PUT', `/v1/clusters/work/${object.name}/status`, { status: { nodeCount: 2 } });
    expect(await claim({ waitSeconds: 0.5 })).to.deep.equal([]);
  });

  it('refuses the write and the result of a worker whose lease ran out, and gives its key to another', async () => {
    await register({ claimSeconds: 2 });
    const object = await create();
    const [lost] = await soon({ worker: 'frozen' });
    const [taken] = await soon({ worker: 'other' });
    expect(taken?.name).to.equal(object.name);
    const write = await patch(object, { labels: { late: 'yes' } }, { Claim: lost?.token });
    expect([write.status, write.body.error.code]).to.deep.equal([409, 'Fenced']);
    const enqueue = [{ namespace: 'work', name: 'late' }];
    expect(await finish([{ token: lost?.token, result: 'done', enqueue }])).to.deep.equal(['fenced']);
    expect((await patch(object, { labels: { late: 'no' } }, { Claim: taken?.token })).status).to.equal(200);
    expect((await api.call('GET', `${base}/work`)).body.items).to.have.length(1);
  });

  it('queues with a result what it asks for, its own key as well, whatever it was', async () => {
    await register();
    await create();
    await create();
    await until(async () => (await api.call('GET', base)).body.queued === 2, { what: 'both keys' });
    const held = await claim();
    const enqueue = [...held.map(({ namespace, name }) => ({ namespace, name })), { namespace: 'work', name: 'third' }];
    const results = held.map(({ token }, i) => ({ token, result: i === 0 ? 'done' : 'error', enqueue }));
    expect(await finish(results)).to.deep.equal(['ok', 'ok']);
    const names = (await claim()).map(({ name }) => name).sort();
    expect(names).to.deep.equal(enqueue.map(({ name }) => name).sort());
  });

  it('keeps a lease alive while its worker renews it, and tells what changed', async () => {
    await register({ claimSeconds: 2 });
    const object = await create();
    const [one] = await soon();
    const end = performance.now() + 3_000;
    let renewal = { lost: [''], changed: [''], expiresInSeconds: 0 };
    await patch(object, { labels: { a: 'changed' } });
    await until(
      async () => {
        renewal = (await api.call('POST', `${base}/claims/renew`, { worker: 'w1', tokens: [one?.token] })).body;
        expect(renewal.lost).to.deep.equal([]);
        return performance.now() > end && renewal.changed.length === 1;
      },
      { what: 'more than a lease to pass' },
    );
    expect(renewal.changed).to.deep.equal([one?.token]);
    expect(await finish([{ token: one?.token, result: 'done' }])).to.deep.equal(['ok']);
  });

  it('frees the keys of a worker within 2 s when its renew stream breaks, at once when it says goodbye', async () => {
    await register({ claimSeconds: 60 });
    await create();
    await soon({ worker: 'broken' });
    const abort = new AbortController();
    const stream = await fetch(`${api.url}${base}/claims/renew?stream=true`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: '{"worker":"broken"}',
      signal: abort.signal,
    });
    await stream.body?.getReader().read();
    abort.abort();
    const [freed] = await soon({ worker: 'polite' });
    expect(freed?.reason).to.equal('lease expired');
    expect((await api.call('DELETE', `${base}/workers/polite`)).status).to.equal(204);
    expect((await claim({ worker: 'third' })).length).to.equal(1);
  });

  it('does not take a worker for broken whose stream the API itself ends when it stops', async () => {
    const replica = await startApi({ databaseUrl: api.databaseUrl });
    await register({ claimSeconds: 60 });
    await create();
    const [one] = await soon({ worker: 'moving' });
    const stream = await fetch(`${replica.url}${base}/claims/renew?stream=true`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: '{"worker":"moving"}',
    });
    const lines = stream.body?.getReader();
    await lines?.read();
    await replica.stop();
    const [row] = await api.database.query<{ seconds: number }>({
      text: `select extract(epoch from expires_at - clock_timestamp())::integer as seconds from syncsets.workers where worker = 'moving'`,
    });
    expect(row?.seconds).to.be.greaterThan(30);
    expect(await finish([{ token: one?.token, result: 'done' }])).to.deep.equal(['ok']);
  });

  it('tries a failed key again after a growing pause and counts the attempts', async () => {
    await register();
    await create();
    const [first] = await soon();
    await finish([{ token: first?.token, result: 'error', message: 'no luck' }]);
    expect(await claim()).to.deep.equal([]);
    const { body } = await api.call('GET', `${base}/work?state=failing`);
    expect(body.items[0]).to.include({ state: 'waiting', attempts: 1, lastError: 'no luck' });
    const [second] = await soon();
    expect(second?.attempts).to.equal(1);
  });

  it('parks a key after a terminal error until its object changes', async () => {
    await register();
    const object = await create();
    const [one] = await soon();
    await finish([{ token: one?.token, result: 'terminal', message: 'never' }]);
    const { body } = await api.call('GET', `${base}/work?state=parked`);
    expect(body.items[0]).to.include({ parked: true, lastError: 'never' });
    // It needs somebody once, not an alarm for as long as it stands there.
    expect((await api.call('GET', base)).body).to.include({ waiting: 1, failing: 0, parked: 1 });
    expect((await api.call('GET', `${base}/work?state=failing`)).body.items).to.deep.equal([]);
    expect(await claim({ waitSeconds: 1.5 })).to.deep.equal([]);
    await patch(object, { labels: { fixed: 'yes' } });
    expect((await soon())[0]).to.include({ name: object.name, attempts: 0 });
  });

  it('runs a key again when it asked for it, not earlier', async () => {
    await register();
    await create();
    const [one] = await soon();
    const begun = performance.now();
    await finish([{ token: one?.token, result: 'done', requeueAfterSeconds: 1 }]);
    expect(await soon()).to.have.length(1);
    expect(performance.now() - begun).to.be.within(990, 2_200);
  });

  it('serves the namespaces in turn: a crowd in one does not delay a key of another', async () => {
    await register();
    await api.call('POST', `${base}/enqueue`, {
      keys: Array.from({ length: 500 }, (_, i) => ({ namespace: 'crowd', name: `n${i}` })),
    });
    await api.call('POST', `${base}/enqueue`, { keys: [{ namespace: 'lonely', name: 'one' }] });
    const claims = await claim({ max: 3 });
    expect(claims.map(one => one.namespace)).to.include('lonely');
  });

  it('serves a user’s change before a resync', async () => {
    await register();
    const object = await create();
    await finish((await soon()).map(({ token }) => ({ token, result: 'done' })));
    await api.call('POST', `${base}/enqueue`, {
      keys: Array.from({ length: 50 }, (_, i) => ({ namespace: 'work', name: `resync${i}` })),
      priority: -10,
    });
    await patch(object, { labels: { urgent: 'yes' } });
    await until(async () => (await api.call('GET', base)).body.queued === 51, { what: 'the change to be queued' });
    expect((await claim({ max: 1 }))[0]?.name).to.equal(object.name);
  });

  it('enqueues all objects that a selector matches in one call', async () => {
    await register();
    for (let i = 0; i < 3; i++) await create({ labels: { group: controller } });
    await create({ labels: { group: 'other' } });
    await until(async () => (await api.call('GET', base)).body.queued === 4, { what: 'the creations' });
    await finish((await claim()).map(({ token }) => ({ token, result: 'done' })));
    const { body } = await api.call('POST', `${base}/enqueue`, {
      type: 'clusters',
      labelSelector: `group=${controller}`,
    });
    expect(body).to.deep.equal({ count: 3 });
    expect(await claim()).to.have.length(3);
  });

  it('maps the states before and after of a watched object: A, B and C are woken when it moved while nobody listened', async () => {
    await register({ watches: ['syncsets'] });
    await api.call('POST', '/v1/syncsets', {
      name: controller,
      namespace: 'work',
      clusterRefs: ['a'],
      allowMissing: true,
    });
    await api.call('PATCH', `/v1/syncsets/work/${controller}`, { clusterRefs: ['b'] });
    await api.call('PATCH', `/v1/syncsets/work/${controller}`, { clusterRefs: ['c'] });
    const woken = new Set<string>();
    await until(
      async () => {
        for (const one of await claim({ waitSeconds: 1 })) {
          if (one.kind === 'key') {
            woken.add(one.name);
            await finish([{ token: one.token, result: 'done' }]);
          } else {
            const names = one.events.flatMap(({ before, object }) => [
              ...(before?.clusterRefs ?? []),
              ...(object?.clusterRefs ?? []),
            ]);
            const enqueue = [...new Set(names)].map(name => ({ type: 'clusters', namespace: 'work', name }));
            expect(await finish([{ token: one.token, result: 'done', enqueue }])).to.deep.equal(['ok']);
          }
        }
        return woken.size === 3;
      },
      { what: 'all three keys' },
    );
    expect([...woken].sort()).to.deep.equal(['a', 'b', 'c']);
  });

  it('gives the keys that a watched object leads to the priority of whoever changed it', async () => {
    await register({ watches: ['syncsets'] });
    const mapped = async (who: string) => {
      const [map] = await soon();
      expect(map?.kind, who).to.equal('map');
      await finish([{ token: map?.token, result: 'done', enqueue: [{ namespace: 'work', name: who }] }]);
      const { items } = (await api.call('GET', `${base}/work`)).body as { items: { name: string; priority: number }[] };
      return [map?.priority, items.find(({ name }) => name === who)?.priority];
    };
    const set = { name: controller, namespace: 'work', clusterRefs: ['a'], allowMissing: true };
    await api.call('POST', '/v1/syncsets', set);
    expect(await mapped('client')).to.deep.equal([10, 10]);
    await claim();
    // Another controller, which writes with its claim.
    await api.call('PUT', `${base}-writer`, { type: 'clusters' });
    await api.call('POST', `${base}-writer/enqueue`, { keys: [{ name: 'any' }] });
    const { body } = await api.call('POST', `${base}-writer/claims`, { worker: 'w', max: 1_000 });
    await api.call('PATCH', `/v1/syncsets/work/${controller}`, { clusterRefs: ['b'] }, { Claim: body.claims[0].token });
    expect(await mapped('controller')).to.deep.equal([0, 0]);
    await api.call('DELETE', `${base}-writer`);
  });

  it('tells the uid of the object of a key that was enqueued by name, to a worker and to the queue', async () => {
    await register();
    const { name } = await create();
    const { body: object } = await api.call('GET', `/v1/clusters/work/${name}`);
    await finish((await soon()).map(({ token }) => ({ token, result: 'done' })));
    const keys = [name, 'missing'].map(one => ({ namespace: 'work', name: one }));
    expect((await api.call('POST', `${base}/enqueue`, { keys })).body).to.deep.equal({ count: 2 });
    const rows = await api.database.query<{ name: string }>({
      text: 'select name, uid, version from syncsets.work where controller = $1',
      values: [controller],
    });
    expect(rows.find(row => row.name === name)).to.deep.include({
      uid: object.uid,
      version: Number(object.resourceVersion),
    });
    // One that was queued when there was no object yet, and one that has none.
    await api.database.query({
      text: 'update syncsets.work set uid = null where controller = $1',
      values: [controller],
    });
    const uids = Object.fromEntries((await claim()).map(one => [one.name, one.uid]));
    expect(uids).to.deep.equal({ [name]: object.uid, missing: null });
  });

  it('tells a worker of a map whose answer was lost, so that it can give it back', async () => {
    await register({ watches: ['syncsets'] });
    await api.call('POST', '/v1/syncsets', {
      name: controller,
      namespace: 'work',
      clusterRefs: ['a'],
      allowMissing: true,
    });
    const [lost] = await soon();
    const renewal = await api.call('POST', `${base}/claims/renew`, { worker: 'w1' });
    expect(renewal.body.held).to.deep.equal([lost?.token]);
    expect(await claim({ worker: 'w2' })).to.deep.equal([]);
    expect(await finish(renewal.body.held.map((token: string) => ({ token, result: 'released' })))).to.deep.equal([
      'ok',
    ]);
    const [again] = await claim({ worker: 'w2' });
    expect(again?.kind).to.equal('map');
  });

  it('hands out the object of the change that a key was queued for, although the change came while it was claimed', async () => {
    await register();
    const object = await create();
    await until(async () => (await api.call('GET', `${base}/work`)).body.items.length === 1, { what: 'the key' });
    // The claim itself, with a pause between its view of the database and the row that it takes.
    const [row] = await api.database.query<{ body: string }>({
      text: `select pg_get_functiondef('syncsets.claim'::regproc) as body`,
    });
    const slow = (row?.body ?? '')
      .replace('syncsets.claim(', 'syncsets.slow_claim(')
      .replace('from syncsets.work w', 'from (select pg_sleep(2) offset 0) pause, syncsets.work w')
      .replace('where w.controller = p_controller', 'where pause is not null and w.controller = p_controller')
      .replace('for update skip locked', 'for update of w skip locked');
    await api.database.query({ text: slow });
    const claiming = api.database.query<{ name: string; object: string }>({
      text: `select name, object from syncsets.slow_claim($1, 'w1', 10, 15)`,
      values: [controller],
    });
    const sleeps = `select from pg_stat_activity where wait_event = 'PgSleep'`;
    await until(async () => (await api.database.query({ text: sleeps })).length > 0, { what: 'the pause' });
    await patch(object, { labels: { newest: 'true' } });
    const [claimed] = await claiming;
    expect(JSON.parse(claimed?.object ?? '').labels).to.deep.equal({ newest: 'true' });
  });

  it('lets the higher revision of two registrations win and shows the loser the winner', async () => {
    await register({ revision: 2 });
    const older = await api.call('PUT', base, { type: 'clusters', claimSeconds: 30, revision: 1 });
    expect([older.status, older.body.error.code]).to.deep.equal([409, 'Conflict']);
    expect(older.body.error.message).to.include('revision 2');
    expect(
      (await api.call('PUT', base, { type: 'clusters', claimSeconds: 30, revision: 3 })).body.claimSeconds,
    ).to.equal(30);
  });

  for (const [what, method, path, body, status] of [
    ['an unknown controller', 'POST', '/v1/controllers/nobody/claims', { worker: 'w', max: 1 }, 404],
    ['a claim above the limit', 'POST', '/claims', { worker: 'w', max: 1001 }, 422],
    ['a worker without a name', 'POST', '/claims', { worker: '', max: 1 }, 422],
    ['a negative delay', 'POST', '/enqueue', { keys: [{ name: 'a' }], afterSeconds: -1 }, 422],
    ['neither keys nor a selector', 'POST', '/enqueue', {}, 422],
    ['keys of a type that is not its own', 'POST', '/enqueue', { keys: [{ type: 'secrets', name: 'a' }] }, 422],
    ['a name longer than any object has', 'POST', '/enqueue', { keys: [{ name: 'x'.repeat(3000) }] }, 422],
    ['an unknown result', 'POST', '/claims/done', { results: [{ token: 'x', result: 'maybe' }] }, 422],
    ['registration for an unknown type', 'PUT', '', { type: 'nothings', revision: 9 }, 404],
  ] as const) {
    it(`answers ${status} to ${what}`, async () => {
      await register();
      const answer = await api.call(method, path.startsWith('/v1') ? path : base + path, body);
      expect(answer.status, JSON.stringify(answer.body)).to.equal(status);
    });
  }

  it('answers fenced to a made-up token and to one of another controller', async () => {
    await register();
    expect(await finish([{ token: 'bWFkZSB1cA', result: 'done' }])).to.deep.equal(['fenced']);
  });
});
