import { once } from 'node:events';
import net from 'node:net';
import { expect } from 'chai';
import { startApi, type TestApi } from '../test/platform.js';
import { until } from '../test/until.js';

describe('requests that mean no good', () => {
  let api: TestApi;

  before(async () => {
    api = await startApi();
  });

  after(() => api.stop());

  it('refuses an encoding that is the name of something in JavaScript', async () => {
    for (const encoding of ['constructor', '__proto__', 'toString']) {
      const headers = { 'Content-Encoding': encoding };
      const answer = await api.call('POST', '/v1/clusters', { name: 'encoded', kubeconfig: 'x' }, headers);
      expect(answer.status).to.equal(415);
    }
  });

  it('refuses NUL in paths and queries, and answers the reads beside them', async () => {
    await api.call('POST', '/v1/clusters', { name: 'innocent', kubeconfig: 'x' });
    const hostile = [
      '/v1/clusters/default/a%00b',
      '/v1/clusters?namespace=%00',
      '/v1/clusters?fieldSelector=name%3Da%00',
      '/v1/controllers/a%00',
    ];
    const innocent = Array.from({ length: 8 }, () => '/v1/clusters/default/innocent');
    const answers = await Promise.all([...hostile, ...innocent].map(path => api.call('GET', path)));
    expect(answers.map(({ status }) => status)).to.deep.equal([...hostile.map(() => 400), ...innocent.map(() => 200)]);
  });

  it('refuses deep JSON although strings in it close brackets', async () => {
    const deep = `"${']'.repeat(5_000)}", "b": ${'['.repeat(5_000)}${']'.repeat(5_000)}`;
    const body = `{"name": "deep", "clusterRefs": ["c"], "resources": [{"apiVersion": "v1", "kind": "A", "metadata": {"name": "a"}, "a": ${deep}}]}`;
    const answer = await api.call('POST', '/v1/syncsets', body);
    expect(answer.status).to.equal(422);
    expect(answer.body.error.details[0].message).to.contain('nested deeper');
  });

  it('reads an entity tag of thousands of blanks at once', async () => {
    const begun = performance.now();
    const headers = { 'If-None-Match': `x,${' '.repeat(10_000)}"" x` };
    const answer = await api.call('GET', '/v1/clusters/default/innocent', undefined, headers);
    expect(answer.status).to.equal(200);
    expect(performance.now() - begun).to.be.below(1_000);
  });

  it('forgets the streams of clients that go before they begin', async () => {
    for (let delay = 0; delay < 20; delay++) {
      const socket = net.connect(Number(new URL(api.url).port), '127.0.0.1');
      await once(socket, 'connect');
      socket.write('GET /v1/clusters?watch=true&resourceVersion=0 HTTP/1.1\r\nHost: localhost\r\n\r\n');
      setTimeout(() => socket.destroy(), delay / 4);
      await once(socket, 'close');
    }
    const watchers = async () => {
      const { body } = await api.call('GET', '/metrics');
      return /^apiserver_watchers 0$/m.test(String(body)) ? true : undefined;
    };
    await until(watchers, { deadline: 5_000, what: 'the end of all streams' });
  });
});

describe('the time to answer a request', () => {
  let api: TestApi;

  before(async () => {
    api = await startApi();
  });

  after(() => api.stop());

  it('is counted without that of claims which waited for keys', async () => {
    const base = '/v1/controllers/patient';
    const claim = async (waitSeconds: number) => {
      const answer = await api.call('POST', `${base}/claims`, { worker: 'w', max: 1, waitSeconds });
      return (answer.body.claims as unknown[]).length;
    };
    const counted = async () => {
      const { body } = await api.call('GET', '/metrics');
      const line = /^apiserver_request_duration_seconds_count{verb="POST",code="200"} (.*)$/m;
      return Number(line.exec(String(body))?.[1] ?? 0);
    };
    await api.call('PUT', base, { type: 'clusters' });
    expect(await claim(0.5)).to.equal(0);
    // Counted after the one before.
    expect(await claim(0)).to.equal(0);
    await until(async () => (await counted()) > 0, { what: 'the claim that may not wait' });
    expect(await counted()).to.equal(1);
    await api.call('POST', '/v1/clusters', { name: 'one' });
    await until(async () => (await api.call('GET', base)).body.queued === 1, { what: 'its key' });
    // It may wait and need not.
    expect(await claim(5)).to.equal(1);
    await until(async () => (await counted()) === 2, { what: 'a claim that found a key at once' });
  });
});
