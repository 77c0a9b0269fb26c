import { getEventListeners, once } from 'node:events';
import type { IncomingMessage } from 'node:http';
import net from 'node:net';
import { inspect } from 'node:util';
import { expect } from 'chai';
import { parseKubeconfig, Target, type FailureReason, type TargetRequest } from './index.js';
import { FakeApiServer, type FakeCluster } from './testing/apiserver.js';
import { Authority, type Pair } from './testing/certificates.js';
import { errorOf, everythingOf, expectFailure } from './testing/failure.js';
import { base64, kubeconfigText } from './testing/kubeconfig.js';

const version: TargetRequest = { method: 'GET', path: '/version' };

describe('Target', () => {
  const opened: (() => unknown)[] = [];
  let authority: Authority;
  let pair: Pair;

  before(async () => {
    authority = await Authority.create();
    pair = await authority.issue('IP:127.0.0.1,DNS:api.example');
  });
  after(() => authority.remove());
  afterEach(async () => {
    for (const close of opened.splice(0).reverse()) await close();
  });

  async function fakeOf(cluster: FakeCluster = {}, tls?: Pair & { ca?: string }): Promise<FakeApiServer> {
    const fake = await FakeApiServer.start(cluster, tls);
    opened.push(() => fake.stop());
    return fake;
  }

  function targetOf(url: string, more: { cluster?: object; user?: object } = {}): Target {
    const target = new Target(parseKubeconfig(kubeconfigText(url, more)));
    opened.push(() => target.close());
    return target;
  }

  /** A TCP server that does with a connection what no HTTP server would. */
  async function rawServer(onConnection: (socket: net.Socket) => void): Promise<string> {
    const sockets = new Set<net.Socket>();
    const server = net.createServer(socket => {
      sockets.add(socket.on('error', () => undefined));
      onConnection(socket);
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    opened.push(async () => {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, 'close');
    });
    return `127.0.0.1:${(server.address() as net.AddressInfo).port}`;
  }

  const trust = (): object => ({ 'certificate-authority-data': base64(authority.ca) });

  it('asks with method, path below the server path, query, headers, body and credentials', async () => {
    const seen: [IncomingMessage, string][] = [];
    const fake = await fakeOf(
      {
        instead: (request, response) => {
          void request.toArray().then(chunks => {
            seen.push([request, Buffer.concat(chunks as Buffer[]).toString()]);
            response.writeHead(201, { 'x-some': 'header' }).end('ünï');
          });
          return true;
        },
      },
      pair,
    );
    const target = targetOf(`${fake.url}/k8s/clusters/c-1/`, { cluster: trust(), user: { token: 't0ken' } });
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
    const basic = targetOf(fake.url, { cluster: trust(), user: { username: 'me', password: 'päss:word' } });
    await basic.request(version);
    expect(seen[1]?.[0].headers.authorization).to.equal(`Basic ${base64('me:päss:word')}`);
  });

  it('takes a path that climbs or carries a query for a bug', async () => {
    const target = targetOf('http://127.0.0.1:1');
    for (const path of ['api', '', '/a/../b', '/a/%2E%2e', '/.', '/a?b=c', '/a#b', '/a b', '/a\r\nb', '/a\\b', '/ä']) {
      expect(await errorOf(() => target.request({ method: 'GET', path })), path).to.be.instanceOf(TypeError);
    }
  });

  it('keeps its connection, and reads again when the target had closed it', async () => {
    const fake = await fakeOf();
    const target = targetOf(fake.url);
    for (let i = 0; i < 5; i++) await target.request(version);
    expect(fake.connections).to.equal(1);

    // Answers once and closes when asked again: what a load balancer does to an idle connection in the wrong moment.
    let connections = 0;
    const address = await rawServer(socket => {
      connections++;
      socket.once('data', () => {
        socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok');
        socket.once('data', () => socket.destroy());
      });
    });
    const closing = targetOf(`http://${address}`);
    for (let i = 1; i <= 3; i++) {
      expect((await closing.request(version)).body).to.equal('ok');
      expect(connections).to.equal(i);
    }
    // Whether a write has arrived is unknown, so it is not sent twice.
    await expectFailure('ConnectionReset', () => closing.request({ method: 'POST', path: '/api', body: '{}' }));
  });

  describe('says why there is no answer', () => {
    it('ConnectionRefused, where nothing listens', async () => {
      const fake = await FakeApiServer.start();
      await fake.stop();
      const failure = await expectFailure('ConnectionRefused', () => targetOf(fake.url).request(version));
      expect(failure.message).to.equal(`${fake.url.slice(7)} refused the connection (ECONNREFUSED)`);
    });

    it('HostNotFound, for a name that cannot exist', async () => {
      await expectFailure('HostNotFound', () => targetOf('https://api.cluster.invalid').request(version));
    });

    it('HostUnreachable, for an address that no host can have', async () => {
      await expectFailure('HostUnreachable', () => targetOf('http://255.255.255.255').request(version));
    });

    it('ConnectionReset, where the connection ends before, within or instead of the answer', async () => {
      for (const text of ['', 'HTTP/1.1 200 OK\r\nContent-Le', 'HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort']) {
        const address = await rawServer(socket => socket.once('data', () => socket.end(text)));
        await expectFailure('ConnectionReset', () => targetOf(`http://${address}`).request(version));
        if (text === '') await expectFailure('ConnectionReset', () => targetOf(`https://${address}`).request(version));
      }
      const upgrading = await rawServer(socket => {
        socket.once('data', () =>
          socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n'),
        );
      });
      await expectFailure('ConnectionReset', () => targetOf(`http://${upgrading}`).request(version));
    });

    it('Timeout, in total: however slowly bytes drip, and it says what was missing', async () => {
      const drip = (start: string, piece: string) => (socket: net.Socket) => {
        socket.write(start);
        const timer = setInterval(() => socket.write(piece), 20);
        socket.once('close', () => clearInterval(timer));
      };
      const silent = await rawServer(() => undefined);
      const dripsHeaders = await rawServer(drip('HTTP/1.1 200 OK\r\n', 'a: b\r\n'));
      const dripsBody = await rawServer(drip('HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n', '.'));
      for (const [url, missing] of [
        [`http://${silent}`, 'did not answer'],
        [`https://${silent}`, 'did not finish the TLS handshake'],
        [`http://${dripsHeaders}`, 'did not answer'],
        [`http://${dripsBody}`, 'did not finish its answer'],
      ] as const) {
        const start = performance.now();
        const failure = await expectFailure('Timeout', () => targetOf(url).request({ ...version, timeoutMs: 150 }));
        expect(performance.now() - start).to.be.within(140, 1000);
        expect(failure.message).to.match(new RegExp(`^127.0.0.1:\\d+ ${missing} within 150 ms$`));
      }
    });

    it('TooLarge, whether the length is told before or not, and for endless headers', async () => {
      let told = true;
      const fake = await fakeOf({
        instead: (_request, response) => {
          if (told) response.writeHead(200, { 'content-length': 5000 });
          response.end('x'.repeat(5000));
          return true;
        },
      });
      const target = targetOf(fake.url);
      for (told of [true, false]) {
        const failure = await expectFailure('TooLarge', () => target.request({ ...version, maxBytes: 4999 }));
        expect(failure.message).to.match(/more than 4999 bytes/);
        expect((await target.request({ ...version, maxBytes: 5000 })).body).to.have.length(5000);
      }
      const headers = await rawServer(socket => socket.write(`HTTP/1.1 200 OK\r\n${'a: b\r\n'.repeat(10_000)}`));
      await expectFailure('TooLarge', () => targetOf(`http://${headers}`).request(version));
    });

    it('Redirected, with the origin alone; the other server is not asked', async () => {
      const other = await fakeOf();
      let status = 0;
      const fake = await fakeOf({
        instead: (_request, response) => {
          response.writeHead(status, { location: `${other.url}/login?ticket=CANARY` }).end();
          return true;
        },
      });
      for (status of [301, 302, 303, 307, 308]) {
        const failure = await expectFailure('Redirected', () => targetOf(fake.url).request(version));
        expect(failure.message).to.equal(`${fake.url.slice(7)} redirects to ${other.url}`);
      }
      expect(other.requests).to.deep.equal([]);
      status = 304;
      expect((await targetOf(fake.url).request(version)).status, 'an answer to if-none-match').to.equal(304);
    });

    it('UnexpectedAnswer, where it is not HTTP', async () => {
      const address = await rawServer(socket => socket.end('SSH-2.0-OpenSSH_9.2\r\n'));
      await expectFailure('UnexpectedAnswer', () => targetOf(`http://${address}`).request(version));
    });
  });

  describe('trusts a certificate', () => {
    const ask = (fake: FakeApiServer, cluster: object, user: object = {}): Promise<{ status: number }> =>
      targetOf(fake.url, { cluster, user }).request(version);

    it('of the authority in the kubeconfig and no other', async () => {
      const fake = await fakeOf({}, pair);
      expect((await ask(fake, trust())).status).to.equal(200);
      await expectFailure('CertificateInvalid', () => ask(fake, {}));
      const another = await Authority.create();
      opened.push(() => another.remove());
      const cluster = { 'certificate-authority-data': base64(another.ca) };
      const failure = await expectFailure('CertificateInvalid', () => ask(fake, cluster));
      expect(failure.message).to.match(/does not trust \(UNABLE_TO_VERIFY_LEAF_SIGNATURE\)/);
      expect((await ask(fake, { 'insecure-skip-tls-verify': true })).status).to.equal(200);
    });

    it('that is not self-signed, unless it is the authority itself', async () => {
      const selfSigned = await authority.selfSigned('IP:127.0.0.1');
      const fake = await fakeOf({}, selfSigned);
      const failure = await expectFailure('CertificateInvalid', () => ask(fake, trust()));
      expect(failure.message).to.match(/self-signed/);
      expect((await ask(fake, { 'certificate-authority-data': base64(selfSigned.cert) })).status).to.equal(200);
    });

    it('made for its host, or for the tls-server-name', async () => {
      const fake = await fakeOf({}, await authority.issue('DNS:api.example'));
      const failure = await expectFailure('CertificateInvalid', () => ask(fake, trust()));
      expect(failure.message).to.match(/another host/);
      expect((await ask(fake, { ...trust(), 'tls-server-name': 'api.example' })).status).to.equal(200);
      await expectFailure('CertificateInvalid', () => ask(fake, { ...trust(), 'tls-server-name': 'other.example' }));
    });

    it('that has not expired', async () => {
      const fake = await fakeOf({}, await authority.issue('IP:127.0.0.1', { expired: true }));
      await expectFailure('CertificateExpired', () => ask(fake, trust()));
    });

    it('even if the environment says that none is checked', async () => {
      const fake = await fakeOf({}, pair);
      process.env.NODE_TLS_REJECT_UNAUTHORIZED = '0';
      opened.push(() => delete process.env.NODE_TLS_REJECT_UNAUTHORIZED);
      await expectFailure('CertificateInvalid', () => ask(fake, {}));
    });

    it('and shows its own where it has one', async () => {
      const fake = await fakeOf({}, { ...pair, ca: authority.ca });
      const mine = { 'client-certificate-data': base64(pair.cert), 'client-key-data': base64(pair.key) };
      expect((await ask(fake, trust(), mine)).status).to.equal(200);
      await expectFailure('TlsFailed', () => ask(fake, trust()));
    });

    it('only on a port that speaks TLS', async () => {
      const fake = await fakeOf();
      const target = targetOf(fake.url.replace('http:', 'https:'), { cluster: trust() });
      await expectFailure('TlsFailed', () => target.request(version));
    });
  });

  it('ends a request on its signal, with the reason of the signal, and leaves no listener behind', async () => {
    const arrived = new AbortController();
    const fake = await fakeOf({ instead: request => request.url === '/hang' && (arrived.abort(), true) });
    const target = targetOf(fake.url);
    const controller = new AbortController();
    const { signal } = controller;
    await Promise.all(Array.from({ length: 30 }, () => target.request({ ...version, signal })));
    expect(getEventListeners(signal, 'abort')).to.deep.equal([]);

    const hanging = errorOf(() => target.request({ method: 'GET', path: '/hang', signal }));
    if (!arrived.signal.aborted) await once(arrived.signal, 'abort');
    const reason = new Error('enough');
    controller.abort(reason);
    expect(await hanging).to.equal(reason);
    expect(await errorOf(() => target.request({ ...version, signal }))).to.equal(reason);
  });

  it('ends what is under way when it is closed, and asks no more', async () => {
    const fake = await fakeOf({ instead: request => request.url === '/hang' });
    const target = targetOf(fake.url);
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
      const fake = await fakeOf({
        instead: (_request, response) => {
          response.writeHead(200).flushHeaders();
          write = text => void response.write(text);
          cut = () => response.destroy();
          gone = once(response, 'close');
          return true;
        },
      });
      target = targetOf(fake.url);
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

  it('never shows a credential, whatever goes wrong and whatever the target echoes', async () => {
    const [token, password] = ['CANARY-token', 'CANARY-password'];
    const basic = base64(`me:${password}`);
    const keyLine = pair.key.split('\n')[1] ?? '';
    const secrets = [token, password, basic, keyLine, base64(pair.key).slice(60, 100)];
    const show = (value: unknown): void => {
      for (const secret of secrets) expect(everythingOf(value)).not.to.contain(secret);
    };

    let status = 0;
    const echo = await fakeOf(
      {
        instead: (request, response) => {
          const message = `who is ${request.headers.authorization ?? ''}?${' '.repeat(250)}${request.headers.authorization ?? ''}`;
          response.writeHead(status, { location: `https://a/?${token}` });
          response.end(JSON.stringify({ kind: 'Status', message }));
          return true;
        },
      },
      pair,
    );
    const hanging = await rawServer(() => undefined);
    const plain = await fakeOf();
    const key = { 'client-certificate-data': base64(pair.cert), 'client-key-data': base64(pair.key) };
    for (const user of [
      { token, ...key },
      { username: 'me', password, ...key },
    ]) {
      const target = targetOf(echo.url, { cluster: trust(), user });
      for (status of [200, 400, 401, 403, 404, 409, 422, 429, 500, 503]) {
        const refusal = target.refusal('GET /version', await target.request(version));
        expect(refusal.message).to.match(/who is (Bearer|Basic) \*\*\*\?/);
        show(refusal);
      }
      status = 302;
      show(await expectFailure('Redirected', () => target.request(version)));
      show(target);
      for (const [reason, url, cluster] of [
        ['CertificateInvalid', echo.url, {}],
        ['Timeout', `https://${hanging}`, {}],
        ['TlsFailed', plain.url.replace('http:', 'https:'), {}],
        ['ConnectionRefused', 'https://127.0.0.1:1', {}],
        ['HostNotFound', 'https://api.cluster.invalid', {}],
      ] as [FailureReason, string, object][]) {
        const failing = targetOf(url, { cluster, user });
        show(
          await expectFailure(reason, () =>
            failing.request({ ...version, timeoutMs: reason === 'Timeout' ? 100 : 5000 }),
          ),
        );
      }
      target.close();
      show(await errorOf(() => target.request(version)));
    }
  });
});
