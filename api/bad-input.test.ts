import { expect } from 'chai';
import { gzipSync } from 'node:zlib';
import { startApi, type TestApi } from '../test/platform.js';

describe('the object API, with bad input', () => {
  let api: TestApi;
  before(async () => {
    api = await startApi();
  });
  after(() => api.stop());

  const bad: [string, string, string, unknown, Record<string, string>, number, string, RegExp][] = [
    ['malformed JSON', 'POST', '/v1/clusters', '{"name": "a",}', {}, 400, 'InvalidJson', /line 1, column 14/],
    ['NaN', 'POST', '/v1/clusters', '{"name": NaN,\n"x": 1}', {}, 400, 'InvalidJson', /unexpected.*line 1, column 10 /],
    [
      'a wrong word',
      'POST',
      '/v1/clusters',
      '{"name":\n tru, "name": 1}',
      {},
      400,
      'InvalidJson',
      /unexp.*line 2, column 2 /,
    ],
    ['a truncated body', 'POST', '/v1/clusters', '{"name": "a"', {}, 400, 'InvalidJson', /too early/],
    ['a word that is cut', 'POST', '/v1/clusters', '{"name": tr', {}, 400, 'InvalidJson', /too early.*column 12 /],
    ['an array', 'POST', '/v1/clusters', '[]', {}, 400, 'InvalidJson', /object/],
    ['an empty body', 'POST', '/v1/clusters', ' ', {}, 400, 'InvalidJson', /empty/],
    [
      'a wrong content type',
      'POST',
      '/v1/clusters',
      'name=a',
      { 'Content-Type': 'text/plain' },
      415,
      'UnsupportedMediaType',
      /application\/json/,
    ],
    [
      'unknown fields',
      'POST',
      '/v1/clusters',
      { name: 'a', bogus: 1, nope: 2 },
      {},
      400,
      'UnknownField',
      /bogus, nope/,
    ],
    ['a wrong type', 'POST', '/v1/clusters', { name: 'a', kubeconfig: 5 }, {}, 422, 'Invalid', /kubeconfig/],
    ['a name that is not DNS-1123', 'POST', '/v1/clusters', { name: 'A_b' }, {}, 422, 'Invalid', /name.*DNS-1123/],
    ['no name', 'POST', '/v1/clusters', {}, {}, 422, 'Invalid', /name/],
    [
      'a label value of 64 characters',
      'POST',
      '/v1/clusters',
      { name: 'a', labels: { l: 'x'.repeat(64) } },
      {},
      422,
      'Invalid',
      /labels\.l.*63/,
    ],
    [
      'mistakes of model and syntax, all at once',
      'POST',
      '/v1/clusters',
      { name: 'A_b', labels: { l: 'a b' } },
      {},
      422,
      'Invalid',
      /name.*labels\.l/,
    ],
    [
      '65 labels',
      'POST',
      '/v1/clusters',
      { name: 'a', labels: Object.fromEntries(Array.from({ length: 65 }, (_, i) => [`l${i}`, 'x'])) },
      {},
      422,
      'Invalid',
      /64/,
    ],
    [
      'a NUL character',
      'POST',
      '/v1/clusters',
      '{"name": "a", "context": "x\\u0000y"}',
      {},
      422,
      'Invalid',
      /context.*NUL/,
    ],
    [
      'half a surrogate pair',
      'POST',
      '/v1/clusters',
      '{"name": "a", "context": "\\ud800"}',
      {},
      422,
      'Invalid',
      /context.*surrogate/,
    ],
    [
      'nesting beyond the limit',
      'POST',
      '/v1/syncsets',
      `{"name":"a","clusterRefs":["a"],"resources":[${'{"a":'.repeat(70)}1${'}'.repeat(70)}]}`,
      {},
      422,
      'Invalid',
      /64/,
    ],
    ['the type of another URL', 'POST', '/v1/clusters', { name: 'a', type: 'syncsets' }, {}, 422, 'Invalid', /type/],
    [
      'a mask where nothing is stored',
      'POST',
      '/v1/clusters',
      { name: 'a', kubeconfig: '••••••' },
      {},
      422,
      'Invalid',
      /kubeconfig.*mask/,
    ],
    ['an unknown type', 'GET', '/v1/nothings', undefined, {}, 404, 'UnknownType', /\/v1/],
    [
      'an unknown selector operator',
      'GET',
      '/v1/clusters?labelSelector=a>1',
      undefined,
      {},
      400,
      'InvalidQuery',
      /allowed are/,
    ],
    [
      'an unknown field in a selector',
      'GET',
      '/v1/clusters?fieldSelector=bogus=1',
      undefined,
      {},
      400,
      'InvalidQuery',
      /bogus/,
    ],
    [
      'a secret field in a selector',
      'GET',
      '/v1/clusters?fieldSelector=kubeconfig=1',
      undefined,
      {},
      422,
      'Invalid',
      /secret/,
    ],
    [
      'resourceVersion=abc',
      'GET',
      '/v1/clusters?resourceVersion=abc',
      undefined,
      {},
      400,
      'InvalidQuery',
      /resourceVersion/,
    ],
    [
      'a made-up continue token',
      'GET',
      '/v1/clusters?continue=abc.def',
      undefined,
      {},
      400,
      'InvalidQuery',
      /continue/,
    ],
    ['limit=0', 'GET', '/v1/clusters?limit=0', undefined, {}, 400, 'InvalidQuery', /limit/],
    ['an unknown query parameter', 'GET', '/v1/clusters?nope=1', undefined, {}, 400, 'InvalidQuery', /nope/],
    [
      'a version from the future',
      'GET',
      '/v1/clusters?resourceVersion=99999999',
      undefined,
      {},
      410,
      'Expired',
      /99999999/,
    ],
    [
      'an option that is not there on a write',
      'POST',
      '/v1/clusters?dryRun=Some',
      { name: 'a' },
      {},
      400,
      'InvalidQuery',
      /dryRun/,
    ],
    ['a body on DELETE', 'DELETE', '/v1/clusters/foo/x', { a: 1 }, {}, 400, 'InvalidJson', /no body/],
    [
      'a namespace for a cluster-wide type',
      'POST',
      '/v1/selectorsyncsets',
      { name: 'a', namespace: 'b', matchAll: true },
      {},
      400,
      'UnknownField',
      /namespace/,
    ],
  ];
  for (const [what, method, target, body, headers, status, code, message] of bad) {
    it(`answers ${status} ${code} to ${what}, and says where`, async () => {
      const answer = await api.call(method, target, body, headers);
      const said = JSON.stringify(answer.body);
      expect([answer.status, answer.body.error?.code], said).to.deep.equal([status, code]);
      expect(said).to.match(message);
      expect(answer.body.error.requestId).to.equal(answer.headers.get('x-request-id'));
    });
  }

  it('takes the last of a field that is there twice, however the numbers are written', async () => {
    for (const [name, seconds] of [
      ['twice-plain', '60'],
      ['twice-long', '6e1'],
    ] as const) {
      const { status, body } = await api.call(
        'POST',
        '/v1/clusters',
        `{"name":"${name}","verifySeconds":50,"verifySeconds":${seconds}}`,
      );
      expect(status, JSON.stringify(body)).to.equal(201);
      expect(body.verifySeconds).to.equal(60);
    }
  });

  it('refuses a body of 5 MB by its length and stores nothing', async () => {
    const answer = await api
      .call('POST', '/v1/clusters', { name: 'large', annotations: { a: 'x'.repeat(5_000_000) } })
      .catch((error: unknown) => error);
    // The server may close the connection before all is sent; then the client sees no answer but nothing is stored either.
    if (!(answer instanceof Error)) expect(answer).to.have.property('status', 413);
    expect((await api.call('GET', '/v1/clusters/default/large')).status).to.equal(404);
    expect((await api.call('GET', '/healthz')).status).to.equal(200);
  });

  it('reads a body that is packed, and refuses one that unpacks beyond the limit', async () => {
    const send = (body: Uint8Array<ArrayBuffer>) =>
      fetch(`${api.url}/v1/clusters`, {
        method: 'POST',
        body,
        headers: { 'Content-Type': 'application/json', 'Content-Encoding': 'gzip' },
      });
    expect((await send(gzipSync(JSON.stringify({ name: 'packed' })))).status).to.equal(201);
    expect(
      (await send(gzipSync(JSON.stringify({ name: 'packed-large', context: 'x'.repeat(5_000_000) })))).status,
    ).to.equal(413);
    expect((await send(Buffer.from('not packed'))).status).to.equal(400);
  });

  it('refuses an object above 1.5 MB and names the limit', async () => {
    const resources = Array.from({ length: 20 }, (_, i) => ({
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { name: `x${i}` },
      data: { a: 'x'.repeat(80_000) },
    }));
    const answer = await api.call('POST', '/v1/syncsets', { name: 'large', clusterRefs: [], resources });
    expect([answer.status, answer.body.error.code]).to.deep.equal([413, 'TooLarge']);
    expect(answer.body.error.message).to.include('1500000');
  });
});
