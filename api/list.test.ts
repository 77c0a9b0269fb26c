import { once } from 'node:events';
import { connect } from 'node:net';
import { expect } from 'chai';
import { until } from '../test/until.js';
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

  it('refuses a continue token that was edited', async () => {
    const { body } = await api.call('GET', '/v1/clusters?namespace=one&limit=1');
    const [text = '', signature = ''] = body.continue.split('.');
    const edited = Buffer.from(Buffer.from(text, 'base64url').toString().replace('"a"', '"b"')).toString('base64url');
    for (const token of [
      `${edited}.${signature}`,
      text,
      `${text}.${signature}.`,
      `${text}.${signature.slice(1)}`,
      'x',
      '',
    ]) {
      const answer = await api.call('GET', `/v1/clusters?namespace=one&limit=1&continue=${token}`);
      expect([token, answer.status, answer.body.error?.code]).to.deep.equal([token, 400, 'InvalidQuery']);
    }
  });

  it('answers 410 to a page whose version the log no longer reaches, with a token that goes on in the state of now', async () => {
    const { body } = await api.call('GET', '/v1/clusters?namespace=one&limit=1');
    await api.call('POST', '/v1/clusters', { name: 'later', namespace: 'one' });
    await api.database.query({ text: `update syncsets.types set log_start = version where type = 'clusters'` });
    const answer = await api.call('GET', `/v1/clusters?namespace=one&limit=1&continue=${body.continue}`);
    expect([answer.status, answer.body.error.code]).to.deep.equal([410, 'Expired']);
    const rest = await api.call('GET', `/v1/clusters?namespace=one&limit=9&continue=${answer.body.error.continue}`);
    expect(rest.body.items.map((item: { name: string }) => item.name)).to.deep.equal(['b', 'c', 'later']);
    expect(Number(rest.body.resourceVersion)).to.be.greaterThan(Number(body.resourceVersion));
  });

  it('answers 410 to a token from the future of a restored database', async () => {
    const { body } = await api.call('GET', '/v1/clusters?namespace=one&limit=1');
    const versions = await api.database.query<{ version: number }>({
      text: `update syncsets.types set version = version - 1, log_start = 0 where type = 'clusters' returning version`,
    });
    expect(versions).to.have.length(1);
    const answer = await api.call('GET', `/v1/clusters?namespace=one&limit=1&continue=${body.continue}`);
    await api.database.query({ text: `update syncsets.types set version = version + 1 where type = 'clusters'` });
    expect([answer.status, answer.body.error.code]).to.deep.equal([410, 'Expired']);
  });

  it('says how many objects follow, the same on every page', async () => {
    for (let i = 0; i < 6; i++)
      await api.call('POST', '/v1/clusters', { name: `n${i}`, namespace: 'counted', labels: { n: '1' } });
    for (const selector of ['', '&labelSelector=n=1']) {
      const query = `/v1/clusters?namespace=counted&limit=2${selector}`;
      const pages = [(await api.call('GET', query)).body];
      await api.call('POST', '/v1/clusters', { name: `more${pages.length}`, namespace: 'counted', labels: { n: '1' } });
      await api.call('DELETE', `/v1/clusters/counted/more${pages.length}`);
      while (pages.at(-1).continue)
        pages.push((await api.call('GET', `${query}&continue=${pages.at(-1).continue}`)).body);
      expect(pages.map(page => page.remainingItemCount)).to.deep.equal([4, 2, undefined]);
    }
  });

  it('sends the parts of objects that were asked for, and with each which object it is', async () => {
    await api.call('POST', '/v1/clusters', {
      name: 'parts',
      namespace: 'parts',
      labels: { a: '1' },
      kubeconfig: 'secret',
      paused: { reason: 'a', until: '2027-01-31T12:00:00Z' },
    });
    const parts = async (fields: string) => {
      const { body } = await api.call('GET', `/v1/clusters?namespace=parts&fields=${fields}`);
      const [{ resourceVersion, ...rest }] = body.items;
      expect(resourceVersion).to.match(/^[0-9]+$/);
      return rest;
    };
    const key = { name: 'parts', namespace: 'parts' };
    expect(await parts('labels')).to.deep.equal({ ...key, labels: { a: '1' } });
    expect(await parts('paused.reason,labels.b')).to.deep.equal({ ...key, paused: { reason: 'a' }, labels: {} });
    expect(await parts('paused.until,paused')).to.deep.equal({
      ...key,
      paused: { reason: 'a', until: '2027-01-31T12:00:00Z' },
    });
    expect(await parts('kubeconfig,status.nodeCount,context.x')).to.deep.equal({ ...key, kubeconfig: '••••••' });
  });

  it('orders by an indexed field both ways, in pages of one state', async () => {
    const types = ['c', undefined, 'b', 'a', 'b', 'ü', 'B'];
    for (const [i, secretType] of types.entries())
      await api.call('POST', '/v1/secrets', { name: `s${i}`, namespace: `ns${i % 2}`, secretType, labels: { o: '1' } });
    for (const selector of ['', '&labelSelector=o=1', '&labelSelector=o']) {
      for (const [order, expected] of [
        ['secretType', ['s6', 's1', 's3', 's2', 's4', 's0', 's5']],
        ['secretType asc', ['s6', 's1', 's3', 's2', 's4', 's0', 's5']],
        ['secretType desc', ['s5', 's0', 's4', 's2', 's3', 's1', 's6']],
      ] as const) {
        const query = `/v1/secrets?limit=2&orderBy=${order}${selector}`;
        let page = (await api.call('GET', query)).body;
        // What happens from now on belongs to a later state.
        await api.call('PATCH', '/v1/secrets/ns0/s4', { secretType: 'zzz' });
        await api.call('DELETE', '/v1/secrets/ns1/s5');
        await api.call('POST', '/v1/secrets', { name: 'new', secretType: 'bb', labels: { o: '1' } });
        const found = [...page.items];
        while (page.continue) {
          page = (await api.call('GET', `${query}&continue=${page.continue}`)).body;
          found.push(...page.items);
        }
        expect(
          found.map(item => item.name),
          query,
        ).to.deep.equal(expected);
        await api.call('PATCH', '/v1/secrets/ns0/s4', { secretType: 'b' });
        await api.call('POST', '/v1/secrets', { name: 's5', namespace: 'ns1', secretType: 'ü', labels: { o: '1' } });
        await api.call('DELETE', '/v1/secrets/default/new');
      }
    }
  });

  it('finds by an indexed field', async () => {
    await api.call('POST', '/v1/secrets', { name: 'tls', namespace: 'found', secretType: 'kubernetes.io/tls' });
    await api.call('POST', '/v1/secrets', { name: 'long', namespace: 'found', secretType: `${'x'.repeat(5_000)}1` });
    const found = async (selector: string) => {
      const { body } = await api.call(
        'GET',
        `/v1/secrets?namespace=found&fieldSelector=${encodeURIComponent(selector)}`,
      );
      return body.items.map((item: { name: string }) => item.name);
    };
    expect(await found('secretType=kubernetes.io/tls')).to.deep.equal(['tls']);
    expect(await found('secretType in (a,kubernetes.io/tls)')).to.deep.equal(['tls']);
    expect(await found('secretType!=kubernetes.io/tls')).to.deep.equal(['long']);
    expect(await found(`secretType=${'x'.repeat(5_000)}1`)).to.deep.equal(['long']);
    expect(await found(`secretType=${'x'.repeat(5_000)}2`)).to.deep.equal([]);
  });

  for (const [query, code, text] of [
    ['fieldSelector=kubeconfig=x', 'Invalid', /"kubeconfig" is secret/],
    ['fieldSelector=kubeconfig~x', 'Invalid', /"kubeconfig" is secret/],
    ['fieldSelector=annotations.a=x', 'InvalidQuery', /cannot be selected/],
    ['orderBy=context', 'InvalidQuery', /no indexed fields/],
    ['fields=nonsense', 'InvalidQuery', /no path into clusters/],
    ['fields=labels..a', 'InvalidQuery', /no path into clusters/],
    [`fields=${Array(65).fill('labels').join()}`, 'InvalidQuery', /65 paths, the limit is 64/],
    ['watch=true&fields=labels', 'InvalidQuery', /a watch sends whole objects/],
    [`labelSelector=${Array(65).fill('a').join()}`, 'InvalidQuery', /65 conditions, the limit is 64/],
    [`labelSelector=a in (${Array(513).fill('x').join()})`, 'InvalidQuery', /513 values, the limit is 512/],
    [`labelSelector=a=${'x'.repeat(8192)}`, 'InvalidQuery', /at most 8192 characters/],
    [`fieldSelector=context in (${Array(513).fill('x').join()})`, 'InvalidQuery', /513 values, the limit is 512/],
    [`fieldSelector=status${'.a'.repeat(20)}=x`, 'InvalidQuery', /21 parts, the limit is 16/],
  ] as const) {
    it(`refuses ${query.slice(0, 40)} and says why`, async () => {
      const { status, body } = await api.call('GET', `/v1/clusters?${encodeURI(query)}`);
      expect([status, body.error.code]).to.deep.equal([code === 'Invalid' ? 422 : 400, code]);
      expect(body.error.message).to.match(text);
    });
  }

  it('answers with as many large objects as were asked for', async () => {
    const annotations = { note: 'x'.repeat(200_000) };
    for (let i = 0; i < 50; i++)
      await api.call('POST', '/v1/clusters', { name: `l${i}`, namespace: 'large', annotations });
    const first = (await api.call('GET', '/v1/clusters?namespace=large&limit=45')).body;
    expect(first.items).to.have.length(45);
    expect(first.remainingItemCount).to.equal(5);
    const rest = (await api.call('GET', `/v1/clusters?namespace=large&continue=${first.continue}`)).body;
    const all = [...first.items, ...rest.items].map(item => item.name);
    expect(all).to.deep.equal(Array.from({ length: 50 }, (_, i) => `l${i}`).sort());
  });

  it('holds no connection to the database for those who do not read on', async () => {
    const annotations = { note: 'x'.repeat(100_000) };
    for (let i = 0; i < 60; i++)
      await api.call('POST', '/v1/clusters', { name: `big${i}`, namespace: 'big', annotations });
    const { hostname, port } = new URL(api.url);
    // More than there are connections to the database.
    const readers = await Promise.all(
      Array.from({ length: 15 }, async () => {
        const socket = connect({ host: hostname, port: Number(port) });
        socket.write(`GET /v1/clusters?namespace=big HTTP/1.1\r\nHost: ${hostname}\r\n\r\n`);
        await once(socket, 'readable');
        return socket;
      }),
    );
    try {
      expect((await api.call('GET', '/v1/clusters/one/a')).status).to.equal(200);
      // Leases and the like have their moments; a reader that held a connection would hold it until the end.
      const isQuiet = async () => {
        const [row] = await api.database.query<{ busy: number }>({
          text: `select count(*)::integer as busy from pg_stat_activity
            where datname = current_database() and state <> 'idle' and pid <> pg_backend_pid()`,
        });
        return row?.busy === 0;
      };
      await until(isQuiet, { what: 'no connection to be in use' });
    } finally {
      for (const socket of readers) socket.destroy();
    }
  });
});
