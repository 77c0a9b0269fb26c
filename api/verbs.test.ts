import crypto from 'node:crypto';
import { syncBuiltinESMExports } from 'node:module';
import { expect } from 'chai';
import { startApi, type TestApi } from '../test/platform.js';

describe('the verbs of an object', () => {
  let api: TestApi;
  let serial = 0;
  const fresh = () => `v${++serial}`;
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
  const read = async (object: { namespace: string; name: string }) => (await api.call('GET', path(object))).body;
  async function events(): Promise<number> {
    const [row] = await api.database.query<{ count: number }>({
      text: 'select count(*)::int as count from syncsets.events',
    });
    return row?.count ?? 0;
  }

  describe('metadata', () => {
    it('is read, replaced and patched apart from the rest, which stays as it is', async () => {
      const object = await create({ labels: { a: '1' }, annotations: { n: 'x' }, context: 'admin', kubeconfig: 'k' });
      const target = `${path(object)}/metadata`;
      expect((await api.call('GET', target)).body).to.deep.equal(object);
      const put = await api.call('PUT', target, {
        ...object,
        labels: { b: '2' },
        annotations: undefined,
        context: 'no',
      });
      expect(put.status, JSON.stringify(put.body)).to.equal(200);
      expect(put.body).to.include({ context: 'admin', generation: 1 });
      expect(put.body.labels).to.deep.equal({ b: '2' });
      expect(put.body).not.to.have.property('annotations');
      const patched = await api.call('PATCH', target, { labels: { c: '3' }, context: null, status: { nodeCount: 1 } });
      expect(patched.body.labels).to.deep.equal({ b: '2', c: '3' });
      expect(patched.body).to.include({ context: 'admin', generation: 1 }).and.not.to.have.property('status');
      expect(await read(object)).to.deep.equal(patched.body);
    });

    it('takes owners and finalizers, and its last finalizer removed deletes', async () => {
      const owners = [{ type: 'clusters', name: 'x', uid: 'u' }];
      const object = await create({ finalizers: ['example.com/a'] });
      const target = `${path(object)}/metadata`;
      const owned = await api.call('PATCH', target, { owners });
      expect(owned.body.owners).to.deep.equal(owners);
      await api.call('DELETE', path(object));
      expect((await api.call('PUT', target, { owners })).status).to.equal(200);
      expect((await api.call('GET', target)).status).to.equal(404);
    });

    it('checks syntax and preconditions', async () => {
      const object = await create();
      const target = `${path(object)}/metadata`;
      const wrong = await api.call('PATCH', target, { labels: { a: 'not ok' } });
      expect([wrong.status, wrong.body.error.details[0].path]).to.deep.equal([422, 'labels.a']);
      expect((await api.call('PATCH', target, { uid: 'other', labels: {} })).status).to.equal(409);
      expect((await api.call('PUT', target, { resourceVersion: '1' })).status).to.equal(409);
      expect((await api.call('PUT', target, { labels: { a: 'b' } }, { 'If-Match': '"1"' })).status).to.equal(409);
    });
  });

  describe('a dry run', () => {
    it('answers what each verb would answer, stores nothing and tells nobody', async () => {
      const object = await create({ context: 'a', labels: { a: 'b' } });
      const begun = await events();
      const tries: [string, string, object | undefined, object][] = [
        ['PUT', '', { context: 'b' }, { context: 'b', generation: 2 }],
        ['PATCH', '', { context: 'c' }, { context: 'c', generation: 2 }],
        ['PUT', '/status', { status: { nodeCount: 3 } }, { generation: 1 }],
        ['PATCH', '/status', { status: { nodeCount: 3 } }, { generation: 1 }],
        ['PUT', '/metadata', { labels: {} }, { generation: 1 }],
        ['PATCH', '/metadata', { labels: { c: 'd' } }, { generation: 1 }],
        ['DELETE', '', undefined, { context: 'a' }],
      ];
      for (const [method, suffix, body, expected] of tries) {
        const answer = await api.call(method, `${path(object)}${suffix}?dryRun=All`, body);
        expect(answer.status, `${method} ${suffix}`).to.equal(200);
        expect(answer.body).to.include(expected).and.include({ resourceVersion: object.resourceVersion });
        expect(answer.headers.has('etag')).to.equal(false);
      }
      const created = await api.call('POST', '/v1/clusters?dryRun=All', { name: fresh(), kubeconfig: 'hunter2' });
      expect(created.status).to.equal(201);
      expect(created.body).to.include({ resourceVersion: '0', generation: 1, kubeconfig: '••••••', cleanup: false });
      expect(created.headers.has('location')).to.equal(false);
      expect((await api.call('GET', `/v1/clusters/default/${created.body.name}`)).status).to.equal(404);
      expect(await read(object)).to.deep.equal(object);
      expect(await events()).to.equal(begun);
      expect((await create()).resourceVersion).to.equal(String(Number(object.resourceVersion) + 1));
    });

    it('is refused for whatever the write would be refused for', async () => {
      const object = await create({ kubeconfig: 'k' });
      const dry = '?dryRun=All';
      expect((await api.call('POST', `/v1/clusters${dry}`, object)).status).to.equal(409);
      const exists = await api.call('POST', `/v1/clusters${dry}`, { name: object.name, namespace: 'foo' });
      expect([exists.status, exists.body.error.code]).to.deep.equal([409, 'AlreadyExists']);
      expect((await api.call('PUT', path(object) + dry, { resourceVersion: '1' })).status).to.equal(409);
      expect((await api.call('PATCH', path(object) + dry, { verifySeconds: 1 })).status).to.equal(422);
      const mask = await api.call('POST', `/v1/clusters${dry}`, { name: fresh(), kubeconfig: '••••••' });
      expect([mask.status, mask.body.error.details[0].path]).to.deep.equal([422, 'kubeconfig']);
      expect((await api.call('DELETE', `/v1/clusters/foo/nothing${dry}`)).status).to.equal(404);
      const some = await api.call('PUT', `${path(object)}?dryRun=Some`, {});
      expect([some.status, some.body.error.code]).to.deep.equal([400, 'InvalidQuery']);
    });
  });

  describe('preconditions', () => {
    it('of a uid hold for every verb', async () => {
      const object = await create();
      const uid = '00000000-0000-4000-8000-000000000000';
      for (const [method, suffix, body] of [
        ['PUT', '', { uid }],
        ['PATCH', '', { uid }],
        ['PUT', '/status', { uid, status: {} }],
        ['PATCH', '/status', { uid, status: {} }],
        ['DELETE', `?uid=${uid}`, undefined],
      ] as const) {
        const answer = await api.call(method, path(object) + suffix, body);
        expect([answer.status, answer.body.error.code], `${method} ${suffix}`).to.deep.equal([409, 'Conflict']);
      }
    });

    it('of a stored object cannot hold for a new one', async () => {
      for (const field of [{ uid: 'b5a3' }, { resourceVersion: '17' }]) {
        const name = fresh();
        const post = await api.call('POST', '/v1/clusters', { name, ...field });
        const put = await api.call('PUT', `/v1/clusters/foo/${name}`, field, { 'If-None-Match': '*' });
        expect([post.status, put.status]).to.deep.equal([409, 409]);
        expect((await api.call('GET', `/v1/clusters/default/${name}`)).status).to.equal(404);
      }
    });

    it('save a reader what it has: 304 to GET and HEAD of the object and its parts', async () => {
      const object = await create();
      for (const suffix of ['', '/status', '/metadata']) {
        for (const method of ['GET', 'HEAD']) {
          for (const tag of [`"${object.resourceVersion}"`, `"1", W/"${object.resourceVersion}"`, '*']) {
            const response = await fetch(api.url + path(object) + suffix, {
              method,
              headers: { 'If-None-Match': tag },
            });
            expect([response.status, await response.text()], `${method} ${suffix} ${tag}`).to.deep.equal([304, '']);
          }
          const response = await fetch(api.url + path(object) + suffix, {
            method,
            headers: { 'If-None-Match': '"1"' },
          });
          expect(response.status).to.equal(200);
          expect(response.headers.get('etag')).to.equal(`"${object.resourceVersion}"`);
          expect(await response.text()).to.have.length.greaterThan(method === 'GET' ? 10 : -1);
        }
      }
    });
  });

  it('answers HEAD of a watch at once, with 400', async () => {
    const response = await fetch(`${api.url}/v1/clusters?watch=true`, {
      method: 'HEAD',
      signal: AbortSignal.timeout(5_000),
    });
    expect(response.status).to.equal(400);
  });

  it('refuses a write that changes nothing when its claim is lost', async () => {
    const object = await create({ labels: { a: 'b' } });
    await api.call('PUT', '/v1/controllers/loser', { type: 'clusters' });
    const { body } = await api.call('POST', '/v1/controllers/loser/claims', { worker: 'w', max: 1000, waitSeconds: 5 });
    const { token } = body.claims.find((one: { name: string }) => one.name === object.name);
    const write = () => api.call('PATCH', path(object), { labels: { a: 'b' } }, { Claim: token });
    expect((await write()).status).to.equal(200);
    await api.call('POST', '/v1/controllers/loser/claims/done', { results: [{ token, result: 'done' }] });
    const late = await write();
    expect([late.status, late.body.error.code]).to.deep.equal([409, 'Fenced']);
    await api.call('DELETE', '/v1/controllers/loser');
  });

  it('leaves the object out of the answer for Prefer: return=minimal', async () => {
    const name = fresh();
    const headers = { Prefer: 'respond-async, return=minimal' };
    const target = `/v1/clusters/default/${name}`;
    const created = await api.call('POST', '/v1/clusters', { name }, headers);
    expect([created.status, created.body, created.headers.get('location')]).to.deep.equal([201, '', target]);
    const stored = await api.call('GET', target);
    expect(created.headers.get('etag')).to.equal(stored.headers.get('etag'));
    for (const [method, suffix, body] of [
      ['PUT', '', { context: 'a' }],
      ['PATCH', '/status', { status: { nodeCount: 3 } }],
      ['PATCH', '/metadata', { labels: { a: 'b' } }],
      ['DELETE', '', undefined],
    ] as const) {
      const answer = await api.call(method, target + suffix, body, headers);
      expect([answer.status, answer.body], `${method} ${suffix}`).to.deep.equal([204, '']);
      expect(answer.headers.get('preference-applied')).to.equal('return=minimal');
      expect(answer.headers.get('etag')).to.match(/^"\d+"$/);
    }
    const full = await api.call('POST', '/v1/clusters', { name }, { Prefer: 'return=representation' });
    expect(full.body.name).to.equal(name);
  });

  describe('generateName', () => {
    it('makes a name of its beginning and five letters or digits, which GET then finds', async () => {
      const { status, body, headers } = await api.call('POST', '/v1/clusters', { generateName: 'web-' });
      expect(status).to.equal(201);
      expect(body.name).to.match(/^web-[bcdfghjklmnpqrstvwxz2456789]{5}$/);
      expect(body).not.to.have.property('generateName');
      expect(headers.get('location')).to.equal(`/v1/clusters/default/${body.name}`);
      expect((await api.call('GET', `/v1/clusters/default/${body.name}`)).body).to.deep.equal(body);
    });

    it('gives way to a name, and must begin one', async () => {
      expect((await create({ name: 'given', generateName: 'web-' })).name).to.equal('given');
      for (const generateName of ['Web-', '-', 'a.-', 'a..', 'x'.repeat(249), 5, '']) {
        const { status, body } = await api.call('POST', '/v1/clusters', { generateName });
        expect([status, body.error.details[0].path], String(generateName)).to.deep.equal([422, 'generateName']);
      }
      for (const generateName of ['a', 'a--', 'a.', 'a-b.c-', 'x'.repeat(248)]) {
        const { status } = await api.call('POST', '/v1/clusters?dryRun=All', { generateName });
        expect(status, generateName).to.equal(201);
      }
    });

    it('tries another name eight times when one is taken', async () => {
      const original = crypto.randomInt;
      let drawn = 0;
      // The first names are all alike: 5 characters each.
      const draws = (alike: number) => {
        drawn = 0;
        Object.assign(crypto, { randomInt: () => (++drawn <= alike * 5 ? 0 : 1) });
        syncBuiltinESMExports();
      };
      try {
        draws(1000);
        const post = () => api.call('POST', '/v1/clusters', { generateName: 'taken-' });
        expect((await post()).body.name).to.equal('taken-bbbbb');
        draws(7);
        expect((await post()).body.name).to.equal('taken-ccccc');
        expect(drawn).to.equal(40);
        draws(8);
        const refused = await post();
        expect([refused.status, refused.body.error.code]).to.deep.equal([409, 'AlreadyExists']);
        expect(drawn).to.equal(40);
      } finally {
        Object.assign(crypto, { randomInt: original });
        syncBuiltinESMExports();
      }
    });
  });
});
