import { getEventListeners, once } from 'node:events';
import type { IncomingMessage } from 'node:http';
import { inspect } from 'node:util';
import { expect } from 'chai';
import type { Target } from './index.js';
import { errorOf, expectFailure } from './testing/failure.js';
import { base64 } from './testing/kubeconfig.js';
import { Opened, version } from './testing/opened.js';

describe('Target', () => {
  let opened: Opened;

  before(async () => {
    opened = await Opened.create();
  });
  after(() => opened.authority.remove());
  afterEach(() => opened.close());

  it('asks with method, path below the server path, query, headers, body and credentials', async () => {
    const seen: [IncomingMessage, string][] = [];
    const fake = await opened.fake(
      {
        instead: (request, response) => {
          void request.toArray().then(chunks => {
            seen.push([request, Buffer.concat(chunks as Buffer[]).toString()]);
            response.writeHead(201, { 'x-some': 'header' }).end('ünï');
          });
          return true;
        },
      },
      opened.pair,
    );
    const target = opened.target(`${fake.url}/k8s/clusters/c-1/`, { cluster: opened.trust, user: { token: 't0ken' } });
    const answer = await target.request({
      method: 'PATCH',
      path: '/api/v1/namespaces/a%2Fb',
      query: { fieldManager: 'a & b' },
      headers: { 'Content-Type': 'application/apply-patch+yaml', Accept: 'text/plain' },
      body: 'größe: 1',
    });
    expect(answer).to.deep.include({ status: 201, body: 'ünï' });
    expect(answer.headers['x-some']).to.equal('header');
    const [request, body] = seen[0] ?? [];
    expect(request?.method).to.equal('PATCH');
    expect(request?.url).to.equal('/k8s/clusters/c-1/api/v1/namespaces/a%2Fb?fieldManager=a+%26+b');
    expect(body).to.equal('größe: 1');
    expect(request?.headers).to.deep.include({
      authorization: 'Bearer t0ken',
      'content-type': 'application/apply-patch+yaml',
      accept: 'text/plain',
      'content-length': '10',
    });
    const basic = opened.target(fake.url, { cluster: opened.trust, user: { username: 'me', password: 'päss:word' } });
    await basic.request(version);
    expect(seen[1]?.[0].headers.authorization).to.equal(`Basic ${base64('me:päss:word')}`);
  });

  it('takes a path that climbs or carries a query for a bug', async () => {
    const target = opened.target('http://127.0.0.1:1');
    for (const path of ['api', '', '/a/../b', '/a/%2E%2e', '/.', '/a?b=c', '/a#b', '/a b', '/a\r\nb', '/a\\b', '/ä']) {
      expect(await errorOf(() => target.request({ method: 'GET', path })), path).to.be.instanceOf(TypeError);
    }
  });

  it('keeps its connection, and reads again when the target had closed it', async () => {
    const fake = await opened.fake();
    const target = opened.target(fake.url);
    for (let i = 0; i < 5; i++) await target.request(version);
    expect(fake.connections).to.equal(1);

    // Answers once and closes when asked again: what a load balancer does to an idle connection in the wrong moment.
    let connections = 0;
    const address = await opened.raw(socket => {
      connections++;
      socket.once('data', () => {
        socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok');
        socket.once('data', () => socket.destroy());
      });
    });
    const closing = opened.target(`http://${address}`);
    for (let i = 1; i <= 3; i++) {
      expect((await closing.request(version)).body).to.equal('ok');
      expect(connections).to.equal(i);
    }
    // Whether a write has arrived is unknown, so it is not sent twice.
    await expectFailure('ConnectionReset', () => closing.request({ method: 'POST', path: '/api', body: '{}' }));
  });

  it('ends a request on its signal, with the reason of the signal, and leaves no listener behind', async () => {
    let arrived = (): void => undefined;
    const arrival = new Promise<void>(resolve => (arrived = resolve));
    const fake = await opened.fake({
      instead: request => {
        if (request.url !== '/hang') return false;
        arrived();
        return true;
      },
    });
    const target = opened.target(fake.url);
    const controller = new AbortController();
    const { signal } = controller;
    const warnings: Error[] = [];
    const onWarning = (warning: Error): void => void warnings.push(warning);
    process.on('warning', onWarning);
    opened.later(() => process.off('warning', onWarning));
    await Promise.all(Array.from({ length: 30 }, () => target.request({ ...version, signal })));
    expect(getEventListeners(signal, 'abort')).to.deep.equal([]);

    const hanging = errorOf(() => target.request({ method: 'GET', path: '/hang', signal }));
    await arrival;
    const reason = new Error('enough');
    controller.abort(reason);
    expect(await hanging).to.equal(reason);
    expect(await errorOf(() => target.request({ ...version, signal }))).to.equal(reason);
    expect(warnings).to.deep.equal([]);
  });

  it('ends what is under way when it is closed, and asks no more', async () => {
    const fake = await opened.fake({ instead: request => request.url === '/hang' });
    const target = opened.target(fake.url);
    const hanging = errorOf(() => target.request({ method: 'GET', path: '/hang' }));
    await target.request(version);
    target.close();
    target.close();
    expect(inspect(await hanging)).to.match(/This target has been closed/);
    expect(inspect(await errorOf(() => target.request(version)))).to.match(/This target has been closed/);
  });

  describe('streams an answer', () => {
    let write: (text: string) => void;
    let cut: () => void;
    let gone: Promise<unknown>;
    let target: Target;
    const read = async (body: AsyncIterable<Buffer>): Promise<number> => {
      let bytes = 0;
      for await (const chunk of body) bytes += chunk.length;
      return bytes;
    };

    beforeEach(async () => {
      const fake = await opened.fake({
        instead: (_request, response) => {
          response.writeHead(200).flushHeaders();
          write = text => void response.write(text);
          cut = () => response.destroy();
          gone = once(response, 'close');
          return true;
        },
      });
      target = opened.target(fake.url);
    });

    it('for longer than the time-out, which ends with the headers', async () => {
      const stream = await target.stream({ ...version, timeoutMs: 100 });
      setTimeout(() => write('late'), 200);
      for await (const chunk of stream.body) {
        expect(chunk.toString()).to.equal('late');
        break;
      }
      await gone; // leaving the loop has closed the connection
    });

    it('until it breaks, which throws', async () => {
      const stream = await target.stream(version);
      write('first');
      await expectFailure('ConnectionReset', async () => {
        for await (const chunk of stream.body) {
          expect(chunk.toString()).to.equal('first');
          cut();
        }
      });
    });

    it('until it is closed, by itself, its signal or its target', async () => {
      const unread = await target.stream(version);
      unread.close();
      await gone;
      expect(inspect(await errorOf(() => read(unread.body)))).to.match(/has been closed/);

      const controller = new AbortController();
      const signalled = await target.stream({ ...version, signal: controller.signal });
      const reason = new Error('enough');
      controller.abort(reason);
      expect(await errorOf(() => read(signalled.body))).to.equal(reason);

      const address = await opened.raw(socket => socket.write('HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody'));
      const arrived = await opened.target(`http://${address}`).stream(version);
      arrived.close();
      expect(inspect(await errorOf(() => read(arrived.body)))).to.match(/has been closed/);

      const last = await target.stream(version);
      target.close();
      expect(inspect(await errorOf(() => read(last.body)))).to.match(/This target has been closed/);
    });

    it('or breaks while nobody reads, without harm', async () => {
      const stream = await target.stream(version);
      cut();
      await gone;
      await expectFailure('ConnectionReset', () => read(stream.body));
    });
  });
});
