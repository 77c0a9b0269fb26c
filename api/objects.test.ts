import { expect } from 'chai';
import { startApi, type TestApi } from '../test/platform.js';

describe('the object API', () => {
  let api: TestApi;
  let serial = 0;
  const fresh = () => `c${++serial}`;
  before(async () => {
    api = await startApi();
  });
  after(() => api.stop());

  async function create(fields: object = {}) {
    const answer = await api.call('POST', '/v1/clusters', { name: fresh(), namespace: 'foo', ...fields });
    expect(answer.status, JSON.stringify(answer.body)).to.equal(201);
    return answer.body;
  }
  const path = (object: { namespace: string; name: string }) => `/v1/clusters/${object.namespace}/${object.name}`;

  it('answers a created object with uid, version, generation, time stamps and Location', async () => {
    const name = fresh();
    const { status, body, headers } = await api.call('POST', '/v1/clusters', { name, labels: { env: 'prod' } });
    expect(status).to.equal(201);
    expect(headers.get('location')).to.equal(`/v1/clusters/default/${name}`);
    expect(headers.get('etag')).to.equal(`"${body.resourceVersion}"`);
    expect(body).to.include({ type: 'clusters', name, namespace: 'default', generation: 1 });
    expect(body.uid).to.match(/^[0-9a-f-]{36}$/);
    expect(body.createdAt).to.equal(body.updatedAt);
    const read = await api.call('GET', `/v1/clusters/default/${name}`);
    expect(read.body).to.deep.equal(body);
  });

  it('refuses a second object of the same name with AlreadyExists', async () => {
    const object = await create();
    const { status, body } = await api.call('POST', '/v1/clusters', { name: object.name, namespace: 'foo' });
    expect(status).to.equal(409);
    expect(body.error.code).to.equal('AlreadyExists');
  });

  it('gives versions that increase by type, in the order of the writes', async () => {
    const versions = [];
    for (let i = 0; i < 5; i++) versions.push(Number((await create()).resourceVersion));
    expect(versions).to.deep.equal([...versions].sort((a, b) => a - b));
    expect(new Set(versions).size).to.equal(5);
  });

  it('stores nothing and bumps nothing when a write changes nothing', async () => {
    const object = await create({ labels: { a: 'b' }, kubeconfig: 'secret' });
    for (const [method, body] of [
      ['PUT', object],
      ['PATCH', { labels: { a: 'b' } }],
      ['PATCH', { kubeconfig: 'secret' }],
    ] as const) {
      const answer = await api.call(method, path(object), body);
      expect(answer.status).to.equal(200);
      expect(answer.body).to.deep.equal(object);
    }
  });

  it('raises the generation for own fields, not for labels, annotations or status', async () => {
    const object = await create();
    const generations = [];
    for (const [suffix, body] of [
      ['', { labels: { a: '1' } }],
      ['', { annotations: { a: '1' } }],
      ['/status', { status: { serverVersion: 'v1.34.0' } }],
      ['', { context: 'admin' }],
      ['', { kubeconfig: 'new' }],
    ] as const) {
      generations.push((await api.call('PATCH', path(object) + suffix, body)).body.generation);
    }
    expect(generations).to.deep.equal([1, 1, 1, 2, 3]);
  });

  it('answers exactly one 200 and one 409 to two PUTs of the same version', async () => {
    const object = await create();
    const answers = await Promise.all(
      ['x', 'y'].map(context => api.call('PUT', path(object), { context, resourceVersion: object.resourceVersion })),
    );
    expect(answers.map(answer => answer.status).sort()).to.deep.equal([200, 409]);
    const stored = (await api.call('GET', path(object))).body;
    expect(answers.find(answer => answer.status === 200)?.body).to.deep.equal(stored);
  });

  it('takes a stale If-Match as a conflict and the current one as consent', async () => {
    const object = await create();
    const stale = await api.call('PUT', path(object), { context: 'a' }, { 'If-Match': '"1"' });
    expect([stale.status, stale.body.error.code]).to.deep.equal([409, 'Conflict']);
    const current = await api.call(
      'PUT',
      path(object),
      { context: 'a' },
      { 'If-Match': `"${object.resourceVersion}"` },
    );
    expect(current.status).to.equal(200);
  });

  it('adds up concurrent patches without a version: none is lost', async () => {
    const object = await create();
    await Promise.all(
      Array.from({ length: 8 }, async (_, i) => {
        const answer = await api.call('PATCH', path(object), { annotations: { [`k${i}`]: 'v' } });
        expect(answer.status).to.equal(200);
      }),
    );
    expect(Object.keys((await api.call('GET', path(object))).body.annotations)).to.have.length(8);
  });

  it('ignores status on POST, PUT and PATCH, and everything but status on the status subresource', async () => {
    const object = await create({ status: { serverVersion: 'forged' } });
    expect(object).not.to.have.property('status');
    const put = await api.call('PUT', `${path(object)}/status`, {
      ...object,
      labels: { no: 'way' },
      status: { nodeCount: 3 },
    });
    expect(put.body.status).to.deep.equal({ nodeCount: 3 });
    expect(put.body).not.to.have.property('labels');
    const patched = await api.call('PATCH', path(object), { status: { nodeCount: 4 }, labels: { a: 'b' } });
    expect(patched.body.status).to.deep.equal({ nodeCount: 3 });
  });

  it('keeps an object with finalizers until the last one is removed, and takes no new one meanwhile', async () => {
    const object = await create({ finalizers: ['example.com/a', 'example.com/b'] });
    const marked = await api.call('DELETE', path(object));
    expect(marked.status).to.equal(200);
    expect(marked.body.deletedAt).to.be.a('string');
    expect(marked.body.generation).to.equal(2);
    const again = await api.call('DELETE', path(object));
    expect(again.body.resourceVersion).to.equal(marked.body.resourceVersion);
    const added = await api.call('PATCH', path(object), { finalizers: ['example.com/a', 'example.com/c'] });
    expect([added.status, added.body.error.details[0].path]).to.deep.equal([422, 'finalizers']);
    await api.call('PATCH', path(object), { finalizers: ['example.com/b'] });
    expect((await api.call('GET', path(object))).status).to.equal(200);
    const last = await api.call('PATCH', path(object), { finalizers: [] });
    expect(last.status).to.equal(200);
    expect(Number(last.body.resourceVersion)).to.be.greaterThan(Number(marked.body.resourceVersion));
    expect((await api.call('GET', path(object))).status).to.equal(404);
  });

  it('refuses to delete another version or another uid than the one named', async () => {
    const object = await create();
    for (const query of ['resourceVersion=1', 'uid=00000000-0000-4000-8000-000000000000']) {
      expect((await api.call('DELETE', `${path(object)}?${query}`)).status, query).to.equal(409);
    }
    expect((await api.call('DELETE', `${path(object)}?uid=${object.uid}`)).status).to.equal(200);
  });

  it('answers 304 to a read of the version that the client has', async () => {
    const object = await create();
    const headers = { 'If-None-Match': `"${object.resourceVersion}"` };
    const answer = await fetch(api.url + path(object), { headers });
    expect(answer.status).to.equal(304);
  });

  it('creates by PUT only when told that nothing may be there', async () => {
    const target = `/v1/clusters/foo/${fresh()}`;
    expect((await api.call('PUT', target, {})).status).to.equal(404);
    const created = await api.call('PUT', target, { context: 'a' }, { 'If-None-Match': '*' });
    expect(created.status).to.equal(201);
    expect((await api.call('PUT', target, {}, { 'If-None-Match': '*' })).status).to.equal(409);
  });

  it('keeps integers beyond 2^53 of foreign JSON exactly', async () => {
    const body = `{"name":"${fresh()}","resources":[{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"},"n":9007199254740993,"f":0.12345678901234567890}],"clusterRefs":["a"],"allowMissing":true}`;
    const created = await fetch(`${api.url}/v1/syncsets`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body,
    });
    const text = await created.text();
    expect(created.status, text).to.equal(201);
    expect(text).to.include('9007199254740993').and.include('0.12345678901234567890');
    const location = created.headers.get('location') ?? '';
    await api.call('PATCH', location, { labels: { a: 'b' } });
    expect(await (await fetch(api.url + location)).text()).to.match(/"n": ?9007199254740993[,}]/);
  });

  it('treats a field called __proto__ like any other unknown one', async () => {
    const object = await create();
    const answer = await api.call('PATCH', path(object), '{"__proto__": {"polluted": true}}');
    expect([answer.status, answer.body.error.code]).to.deep.equal([400, 'UnknownField']);
    expect(({} as Record<string, unknown>)['polluted']).to.equal(undefined);
  });

  it('does not let objects of a type that became stricter be locked out of status, labels and other fields', async () => {
    const object = await create();
    await api.database.query({
      text: `update syncsets.objects set object = jsonb_set(object, '{verifySeconds}', '-5') where type = 'clusters' and name = $1`,
      values: [object.name],
    });
    expect((await api.call('PATCH', path(object), { labels: { a: 'b' } })).status).to.equal(200);
    expect((await api.call('PATCH', path(object), { context: 'x' })).status).to.equal(200);
    expect((await api.call('PATCH', path(object), { verifySeconds: -6 })).status).to.equal(422);
  });
});
