import { expect } from 'chai';
import { randomBytes } from 'node:crypto';
import { startApi, type TestApi } from '../test/platform.js';
import { MissingEncryptionKey, Secrets } from './secrets.js';

const canary = 'c4n4ry-never-seen';

describe('secret fields', () => {
  let api: TestApi;
  before(async () => {
    api = await startApi();
  });
  after(() => api.stop());

  it('are masked in every answer and event, and encrypted in the database', async () => {
    const created = await api.call('POST', '/v1/clusters', { name: 'masked', kubeconfig: canary });
    expect(created.body.kubeconfig).to.equal('••••••');
    const secret = await api.call('POST', '/v1/secrets', { name: 'masked', data: { password: canary, user: 'me' } });
    expect(secret.body.data).to.deep.equal({ password: '••••••', user: '••••••' });
    const seen = [
      await api.call('GET', '/v1/clusters/default/masked'),
      await api.call('GET', '/v1/clusters'),
      await api.call('PATCH', '/v1/clusters/default/masked', { labels: { a: 'b' } }),
      await api.call('POST', '/v1/clusters', { name: 'masked', kubeconfig: canary }),
      await api.call('POST', '/v1/clusters', { name: 'other', context: 5, kubeconfig: canary }),
      await api.database.query({ text: 'select * from syncsets.objects' }),
      await api.database.query({ text: 'select * from syncsets.events' }),
      api.log,
    ];
    expect(JSON.stringify(seen)).not.to.include(canary);
  });

  it('keep their stored value when the mask is sent back, and change when another value is', async () => {
    const { body } = await api.call('POST', '/v1/secrets', { name: 'kept', data: { a: 'one', b: 'two' } });
    const same = await api.call('PUT', '/v1/secrets/default/kept', body);
    expect(same.body.resourceVersion).to.equal(body.resourceVersion);
    const changed = await api.call('PATCH', '/v1/secrets/default/kept', { data: { a: 'three' } });
    expect(changed.body.generation).to.equal(2);
    expect(changed.body.data).to.deep.equal({ a: '••••••', b: '••••••' });
    expect(await revealed('secrets', 'kept')).to.deep.equal({ data: { a: 'three', b: 'two' } });
  });

  it('are revealed only to a controller that is registered for it and holds a claim', async () => {
    await api.call('POST', '/v1/clusters', { name: 'revealed', kubeconfig: canary });
    const target = '/v1/clusters/default/revealed/reveal';
    expect((await api.call('GET', target)).status).to.equal(403);
    expect((await api.call('GET', target, undefined, { Claim: 'made-up' })).status).to.equal(409);
    await api.call('PUT', '/v1/controllers/blind', { type: 'clusters' });
    const claims = await api.call('POST', '/v1/controllers/blind/claims', { worker: 'w', max: 10 });
    const { token } = claims.body.claims[0];
    expect((await api.call('GET', target, undefined, { Claim: token })).status).to.equal(403);
    expect(await revealed('clusters', 'revealed')).to.deep.equal({ kubeconfig: canary });
    expect(api.log.filter(line => line.fields['audit'])).not.to.be.empty;
  });

  async function revealed(type: string, name: string): Promise<unknown> {
    await api.call('PUT', `/v1/controllers/seer-${type}`, { type, reveal: [type] });
    await api.call('POST', `/v1/controllers/seer-${type}/enqueue`, { keys: [{ name }] });
    const { body } = await api.call('POST', `/v1/controllers/seer-${type}/claims`, { worker: 'w', max: 100 });
    const { token } = body.claims.find((claim: { name: string }) => claim.name === name);
    const answer = await api.call('GET', `/v1/${type}/default/${name}/reveal`, undefined, { Claim: token });
    expect(answer.status).to.equal(200);
    expect(answer.headers.get('cache-control')).to.equal('no-store');
    await api.call('POST', `/v1/controllers/seer-${type}/claims/done`, { results: [{ token, result: 'done' }] });
    return answer.body.fields;
  }
});

describe('encryption keys', () => {
  let api: TestApi;
  before(async () => {
    api = await startApi();
    await api.database.query({ text: 'delete from syncsets.keys' });
  });
  after(() => api.stop());
  const type = {
    type: 'clusters',
    kind: 'Cluster',
    namespaced: true,
    description: '',
    fields: ['kubeconfig'],
    immutable: [],
    indexes: [],
    uniques: [],
    references: [],
    defaults: {},
    secrets: [{ field: 'kubeconfig', map: false }],
    input: 'ClusterInput',
    rules: [],
  };

  it('rotate: the new one writes, the old one still reads, equality survives', async () => {
    const [old, next] = [randomBytes(32), randomBytes(32)];
    const before = await Secrets.load(api.database, [old]);
    const { sealed } = before.seal(type, 'uid', { kubeconfig: canary }, null);
    const after = await Secrets.load(api.database, [next, old]);
    expect(after.reveal(type, 'uid', sealed)).to.deep.equal({ kubeconfig: canary });
    expect(after.seal(type, 'uid', { kubeconfig: canary }, sealed).kept).to.equal(true);
    const alone = await Secrets.load(api.database, [next]);
    expect(() => alone.reveal(type, 'uid', sealed)).to.throw(MissingEncryptionKey, /ENCRYPTION_KEY/);
  });

  it('bind a ciphertext to its object: moved to another one it does not open', async () => {
    await api.database.query({ text: 'delete from syncsets.keys' });
    const secrets = await Secrets.load(api.database, [randomBytes(32)]);
    const { sealed } = secrets.seal(type, 'uid', { kubeconfig: canary }, null);
    expect(() => secrets.reveal(type, 'another', sealed)).to.throw();
  });

  it('are named when one is missing: the platform does not start with data that it cannot read', async () => {
    const refused = await Secrets.load(api.database, [randomBytes(32)]).catch((error: unknown) => error);
    expect(refused).to.be.instanceOf(MissingEncryptionKey);
  });
});
