import { expect } from 'chai';
import { getEventListeners } from 'node:events';
import { inspect } from 'node:util';
import { failedCalls } from '../test/failedCalls.js';
import { until } from '../test/until.js';
import { pause } from './backoff.js';
import { connect } from './connect.js';
import { ConnectionError, isPlatformError, PlatformError } from './errors.js';
import { events } from './events.js';
import { failure, FakeServer, json, type Answer } from './testing/fake-server.js';
import { Transport, type TransportOptions } from './transport.js';

describe('transport', () => {
  const servers: FakeServer[] = [];
  const transports: Transport[] = [];
  const serve = async (answer: Answer, port = 0) => {
    const server = await FakeServer.start(answer, port);
    servers.push(server);
    return server;
  };
  const open = (url: string, options: Partial<TransportOptions> = {}) => {
    const transport = new Transport({ url, ...options });
    transports.push(transport);
    return transport;
  };
  const caught = async (promise: Promise<unknown>): Promise<unknown> => {
    try {
      await promise;
    } catch (error) {
      return error;
    }
    throw new Error('it succeeded');
  };

  afterEach(async () => {
    for (const transport of transports.splice(0)) transport.close();
    for (const server of servers.splice(0)) await server.stop();
  });

  it('sends method, query, body, token and claim, under the path of the base URL', async () => {
    const server = await serve((_, response) => json(response, 200, { ok: true }));
    const transport = open(`${server.url}/platform`, { token: 'sesame' });
    const answer = await transport.send({
      method: 'PATCH',
      path: '/v1/clusters/a%2Fb/c',
      query: { limit: 3, labelSelector: 'a in (b,c)', namespace: undefined },
      body: { labels: { ä: 'ö' } },
      contentType: 'application/merge-patch+json',
      claim: 'token-1',
    });
    expect(answer).to.deep.equal({ ok: true });
    const [seen] = server.seen;
    expect(seen?.method).to.equal('PATCH');
    expect(seen?.url.pathname).to.equal('/platform/v1/clusters/a%2Fb/c');
    expect([...(seen?.url.searchParams ?? [])]).to.deep.equal([
      ['limit', '3'],
      ['labelSelector', 'a in (b,c)'],
    ]);
    expect(seen?.body).to.deep.equal({ labels: { ä: 'ö' } });
    expect(seen?.headers).to.include({
      authorization: 'Bearer sesame',
      claim: 'token-1',
      'content-type': 'application/merge-patch+json',
    });
  });

  it('throws what the catalogue says, with every detail', async () => {
    const details = [{ path: 'labels.env', message: 'too long' }];
    const server = await serve((_, response) =>
      json(response, 422, { error: { code: 'Invalid', status: 422, message: 'No', details, requestId: 'r7' } }),
    );
    const error = await caught(open(server.url).send({ method: 'POST', path: '/v1/clusters', body: {} }));
    expect(isPlatformError(error, 'Invalid')).to.equal(true);
    expect(error).to.deep.include({ code: 'Invalid', status: 422, message: 'No', details, requestId: 'r7' });
  });

  it('makes an error of an answer that is not from the API', async () => {
    const server = await serve((seen, response) => {
      response.writeHead(seen.url.pathname === '/v1/bad' ? 400 : 200, { 'content-type': 'text/html' });
      response.end('<html>');
    });
    const bad = await caught(open(server.url).send({ method: 'GET', path: '/v1/bad' }));
    expect(bad).to.be.instanceOf(PlatformError).and.include({ code: 'Http400', status: 400 });
    const odd = await caught(open(server.url).send({ method: 'GET', path: '/v1/odd' }));
    expect(odd).to.be.instanceOf(PlatformError).and.include({ code: 'NotJson' });
  });

  it('repeats after 429 when the server says so, a creation too', async () => {
    let asked = 0;
    const server = await serve((_, response) => {
      if (++asked < 3) failure(response, 429, 'TooManyRequests', { 'retry-after': '0' });
      else json(response, 201, { name: 'a' });
    });
    expect(await open(server.url).send({ method: 'POST', path: '/v1/clusters', body: {} })).to.deep.equal({
      name: 'a',
    });
    expect(asked).to.equal(3);
  });

  it('tells of each attempt, and of one that got no answer', async () => {
    let asked = 0;
    const server = await serve((_, response) => {
      if (++asked < 2) failure(response, 429, 'TooManyRequests', { 'retry-after': '0' });
      else if (asked < 3) json(response, 200, {});
      else response.destroy();
    });
    const told: string[] = [];
    const onAnswer = ({ method, host, code }: { method: string; host: string; code: string }) =>
      told.push(`${method} ${host} ${code}`);
    const transport = open(server.url, { retrySeconds: 0, onAnswer });
    const { host } = new URL(server.url);
    await transport.send({ method: 'GET', path: '/v1/clusters' }).catch(() => undefined);
    await transport.send({ method: 'GET', path: '/v1/clusters' });
    await caught(transport.send({ method: 'GET', path: '/v1/clusters' }));
    expect(told).to.deep.equal([`GET ${host} 429`, `GET ${host} 200`, `GET ${host} <error>`]);
  });

  it('repeats after 503 only what has the effect of once, and not beyond its budget', async () => {
    const server = await serve((_, response) => failure(response, 503, 'Unavailable', { 'retry-after': '0' }));
    const transport = open(server.url, { retrySeconds: 0.5 });
    const created = await caught(transport.send({ method: 'POST', path: '/v1/clusters', body: {} }));
    expect(isPlatformError(created, 'Unavailable')).to.equal(true);
    expect(server.seen).to.have.length(1);
    const read = await caught(transport.send({ method: 'GET', path: '/v1/clusters' }));
    expect(isPlatformError(read, 'Unavailable')).to.equal(true);
    expect(server.seen.length).to.be.within(3, 8);
  });

  it('waits for a server that is not up yet', async () => {
    const gone = await serve(() => undefined);
    const { port } = gone;
    await gone.stop();
    const refused = failedCalls(1);
    const answer = open(`http://127.0.0.1:${port}`).send({ method: 'POST', path: '/v1/clusters', body: {} });
    await refused;
    await serve((_, response) => json(response, 201, { late: true }), port);
    expect(await answer).to.deep.equal({ late: true });
  });

  it('asks again when an answer was lost, but does not create twice', async () => {
    const server = await serve((seen, response) => {
      if (server.seen.filter(one => one.method === seen.method).length === 1) response.destroy();
      else json(response, 200, {});
    });
    const transport = open(server.url);
    await transport.send({ method: 'GET', path: '/v1/clusters' });
    const error = await caught(transport.send({ method: 'POST', path: '/v1/clusters', body: {} }));
    expect(error).to.be.instanceOf(ConnectionError).and.include({ sent: true });
    expect(server.seen.map(seen => seen.method)).to.deep.equal(['GET', 'GET', 'POST']);
  });

  it('fails when an answer ends in the middle', async () => {
    const server = await serve((_, response) => {
      response.writeHead(200, { 'content-length': '100' });
      response.write('{"half":');
      setImmediate(() => response.destroy());
    });
    const error = await caught(open(server.url, { retrySeconds: 0 }).send({ method: 'GET', path: '/v1/clusters' }));
    expect(error).to.be.instanceOf(ConnectionError).and.include({ sent: true });
  });

  it('gives up when the whole answer takes too long', async () => {
    const server = await serve((_, response) => {
      response.writeHead(200);
      const timer = setInterval(() => response.write(' '), 10);
      response.once('close', () => clearInterval(timer));
    });
    const error = await caught(open(server.url, { timeoutSeconds: 0.2 }).send({ method: 'GET', path: '/v1/clusters' }));
    expect(error).to.be.instanceOf(ConnectionError).and.include({ code: 'Timeout', sent: true });
  });

  it('ends calls with the reason of their signal, and all when it is closed', async () => {
    const server = await serve(() => undefined);
    const transport = open(server.url);
    const controller = new AbortController();
    const first = caught(transport.send({ method: 'GET', path: '/v1/a', signal: controller.signal }));
    const second = caught(transport.send({ method: 'GET', path: '/v1/b' }));
    const reason = new Error('enough');
    controller.abort(reason);
    expect(await first).to.equal(reason);
    transport.close();
    expect(await second).to.include({ message: 'The client is closed' });
    expect(await caught(transport.send({ method: 'GET', path: '/v1/c' }))).to.include({
      message: 'The client is closed',
    });
  });

  it('ends calls that wait for their next attempt when it is closed, or by their signal', async () => {
    const server = await serve((_, response) => failure(response, 503, 'Unavailable', { 'retry-after': '20' }));
    const transport = open(server.url, { retrySeconds: 60 });
    const controller = new AbortController();
    const since = performance.now();
    const first = caught(transport.send({ method: 'GET', path: '/v1/a', signal: controller.signal }));
    const second = caught(transport.send({ method: 'GET', path: '/v1/b' }));
    await until(() => server.seen.length === 2, { what: 'both attempts' });
    const reason = new Error('enough');
    controller.abort(reason);
    expect(await first).to.equal(reason);
    transport.close();
    expect(await second).to.include({ message: 'The client is closed' });
    expect(performance.now() - since).to.be.lessThan(15_000);
  });

  it('leaves nothing on the signal of a client that is closed, and closes all by it', async () => {
    const server = await serve((_, response) => json(response, 200, { name: 'a', uid: 'u', resourceVersion: '1' }));
    const long = new AbortController();
    const options = { url: server.url, amqpUrl: 'amqp://127.0.0.1', signal: long.signal };
    const [closed, other, ended] = [connect(options), connect(options), connect(options)];
    expect((await ended.clusters.read({ name: 'a' })).uid).to.equal('u');
    expect(getEventListeners(long.signal, 'abort')).to.have.length(3);
    await closed.close();
    await other.with({ claim: 'token-1' }).close();
    expect(getEventListeners(long.signal, 'abort')).to.have.length(1);
    const reason = new Error('enough');
    long.abort(reason);
    expect(await caught(ended.clusters.read({ name: 'a' }))).to.equal(reason);
    expect(await caught(events(ended.clusters).next())).to.include({ message: 'The client is closed' });
    connect(options);
    expect(getEventListeners(long.signal, 'abort')).to.deep.equal([]);
  });

  it('never shows the token', async () => {
    const server = await serve((_, response) => void response.destroy());
    const client = connect({ url: server.url, token: 'sesame', retrySeconds: 0 });
    const error = await caught(client.clusters.read({ name: 'a' }));
    expect(inspect([client, client.clusters, error], { depth: 9, showHidden: true })).not.to.include('sesame');
    await client.close();
  });

  it('waits for ever if it is to, and refuses times that are none', async () => {
    const server = await serve(async (_, response) => {
      await pause(200);
      json(response, 200, { late: true });
    });
    for (const timeoutSeconds of [Infinity, 1e9]) {
      expect(await open(server.url, { timeoutSeconds }).send({ method: 'GET', path: '/v1/a' })).to.deep.equal({
        late: true,
      });
    }
    for (const times of [{ timeoutSeconds: NaN }, { timeoutSeconds: 0 }, { retrySeconds: NaN }, { retrySeconds: -1 }])
      expect(() => new Transport({ url: server.url, ...times })).to.throw(TypeError, 'must be a number');
  });

  it('refuses a URL or token that cannot work, without repeating secrets', () => {
    expect(() => new Transport({ url: 'nonsense' })).to.throw(TypeError, 'not a URL');
    expect(() => new Transport({ url: 'ftp://host' })).to.throw(TypeError, 'http://');
    expect(() => new Transport({ url: 'http://u:sesame@host' }))
      .to.throw(TypeError)
      .with.property('message')
      .that.does.not.include('sesame');
    expect(() => new Transport({ url: 'http://host', token: 'ses\name' }))
      .to.throw(TypeError)
      .with.property('message')
      .that.does.not.include('ses');
  });
});
