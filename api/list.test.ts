import { expect } from 'chai';
import { startApi, type TestApi } from '../test/platform.js';

describe('a list', () => {
  let api: TestApi;
  before(async () => {
    api = await startApi();
    for (const [name, namespace, labels] of [
      ['a', 'one', { env: 'prod', tier: 'gold' }],
      ['b', 'one', { env: 'dev' }],
      ['c', 'one', {}],
      ['a', 'two', { env: 'prod' }],
      ['z', 'default', { env: 'stage', tier: 'gold' }],
    ] as const) {
      await api.call('POST', '/v1/clusters', { name, namespace, labels, context: `ctx,${name}` });
    }
  });
  after(() => api.stop());

  const names = async (query: string) => {
    const { body, status } = await api.call('GET', `/v1/clusters?${query}`);
    expect(status, JSON.stringify(body)).to.equal(200);
    return body.items.map((item: { namespace: string; name: string }) => `${item.namespace}/${item.name}`);
  };

  it('is ordered by namespace and name', async () => {
    expect(await names('')).to.deep.equal(['default/z', 'one/a', 'one/b', 'one/c', 'two/a']);
  });

  for (const [selector, expected] of [
    ['env=prod', ['one/a', 'two/a']],
    ['env==prod,tier=gold', ['one/a']],
    ['env!=prod', ['default/z', 'one/b', 'one/c']],
    ['env in (dev, stage)', ['default/z', 'one/b']],
    ['env notin (dev, stage)', ['one/a', 'one/c', 'two/a']],
    ['tier', ['default/z', 'one/a']],
    ['!tier', ['one/b', 'one/c', 'two/a']],
    ['!tier,env', ['one/b', 'two/a']],
  ] as const) {
    it(`selects labels by "${selector}"`, async () => {
      expect(await names(`labelSelector=${encodeURIComponent(selector)}`)).to.deep.equal(expected);
    });
  }

  for (const [selector, expected] of [
    ['name=a', ['one/a', 'two/a']],
    ['name!=a,namespace=one', ['one/b', 'one/c']],
    ['name in (b,c)', ['one/b', 'one/c']],
    ['context=ctx\\,b', ['one/b']],
    ['context~\\,c', ['one/c']],
    ['verifySeconds=7200', []],
  ] as const) {
    it(`selects fields by "${selector}"`, async () => {
      expect(await names(`fieldSelector=${encodeURIComponent(selector)}`)).to.deep.equal(expected);
    });
  }

  it('shows one state on all its pages, whatever is changed, created and deleted meanwhile', async () => {
    for (let i = 0; i < 10; i++)
      await api.call('POST', '/v1/clusters', { name: `p${i}`, namespace: 'pages', labels: { v: '1' } });
    const query = '/v1/clusters?namespace=pages&labelSelector=v=1&limit=4';
    const first = (await api.call('GET', query)).body;
    await api.call('PATCH', '/v1/clusters/pages/p7', { labels: { v: '2' } });
    await api.call('PATCH', '/v1/clusters/pages/p7', { labels: { v: '3' } });
    await api.call('DELETE', '/v1/clusters/pages/p8');
    await api.call('POST', '/v1/clusters', { name: 'p8', namespace: 'pages', labels: { v: '1' } });
    await api.call('POST', '/v1/clusters', { name: 'p55', namespace: 'pages', labels: { v: '1' } });
    await api.call('PATCH', '/v1/clusters/pages/p9', { finalizers: ['example.com/x'] });
    const items = [...first.items];
    let page = first;
    while (page.continue) {
      page = (await api.call('GET', `${query}&continue=${page.continue}`)).body;
      expect(page.resourceVersion).to.equal(first.resourceVersion);
      items.push(...page.items);
    }
    expect(items.map(item => item.name)).to.deep.equal(Array.from({ length: 10 }, (_, i) => `p${i}`));
    for (const item of items) {
      expect(item.labels).to.deep.equal({ v: '1' });
      expect(item).not.to.have.property('finalizers');
      expect(Number(item.resourceVersion)).to.be.at.most(Number(first.resourceVersion));
    }
  });

  it('takes a continue token on another replica, and refuses it with other selectors', async () => {
    const replica = await startApi({ databaseUrl: api.databaseUrl });
    try {
      const { body } = await api.call('GET', '/v1/clusters?namespace=one&limit=2');
      const rest = await replica.call('GET', `/v1/clusters?namespace=one&limit=2&continue=${body.continue}`);
      expect(rest.body.items.map((item: { name: string }) => item.name)).to.deep.equal(['c']);
      const foreign = await replica.call('GET', `/v1/clusters?namespace=two&limit=2&continue=${body.continue}`);
      expect([foreign.status, foreign.body.error.code]).to.deep.equal([400, 'InvalidQuery']);
    } finally {
      await replica.stop();
    }
  });

  it('answers 410 to a page whose version the log no longer reaches', async () => {
    const { body } = await api.call('GET', '/v1/clusters?namespace=one&limit=1');
    await api.call('POST', '/v1/clusters', { name: 'later' });
    await api.database.query({ text: `update syncsets.types set log_start = version where type = 'clusters'` });
    const answer = await api.call('GET', `/v1/clusters?namespace=one&limit=1&continue=${body.continue}`);
    expect([answer.status, answer.body.error.code]).to.deep.equal([410, 'Expired']);
  });
});
