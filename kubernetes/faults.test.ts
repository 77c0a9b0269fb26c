import { once } from 'node:events';
import type net from 'node:net';
import { expect } from 'chai';
import type { FailureReason } from './index.js';
import { FakeApiServer } from './testing/apiserver.js';
import { errorOf, everythingOf, expectFailure } from './testing/failure.js';
import { base64 } from './testing/kubeconfig.js';
import { Opened, version } from './testing/opened.js';

describe('A target that does not answer as it should', () => {
  let opened: Opened;

  before(async () => {
    opened = await Opened.create();
  });
  after(() => opened.authority.remove());
  afterEach(() => opened.close());

  it('is called ConnectionRefused, where nothing listens', async () => {
    const fake = await FakeApiServer.start();
    await fake.stop();
    const failure = await expectFailure('ConnectionRefused', () => opened.target(fake.url).request(version));
    expect(failure.message).to.equal(`${fake.url.slice(7)} refused the connection (ECONNREFUSED)`);
  });

  it('is called HostNotFound, for a name that cannot exist', async () => {
    await expectFailure('HostNotFound', () => opened.target('https://api.cluster.invalid').request(version));
  });

  it('is called HostUnreachable, for an address that no host can have', async () => {
    await expectFailure('HostUnreachable', () => opened.target('http://255.255.255.255').request(version));
  });

  it('is called ConnectionReset, where the connection ends before, within or instead of the answer', async () => {
    for (const text of ['', 'HTTP/1.1 200 OK\r\nContent-Le', 'HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort']) {
      const address = await opened.raw(socket => socket.once('data', () => socket.end(text)));
      await expectFailure('ConnectionReset', () => opened.target(`http://${address}`).request(version));
      if (text === '')
        await expectFailure('ConnectionReset', () => opened.target(`https://${address}`).request(version));
    }
    const upgrading = await opened.raw(socket => {
      socket.once('data', () =>
        socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n'),
      );
    });
    await expectFailure('ConnectionReset', () => opened.target(`http://${upgrading}`).request(version));
  });

  it('is called Timeout, in total: however slowly bytes drip, and it says what was missing', async () => {
    const drip = (start: string, piece: string) => (socket: net.Socket) => {
      socket.write(start);
      const timer = setInterval(() => socket.write(piece), 20);
      socket.once('close', () => clearInterval(timer));
    };
    const silent = await opened.raw(() => undefined);
    const dripsHeaders = await opened.raw(drip('HTTP/1.1 200 OK\r\n', 'a: b\r\n'));
    const dripsBody = await opened.raw(drip('HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n', '.'));
    for (const [url, missing] of [
      [`http://${silent}`, 'did not answer'],
      [`https://${silent}`, 'did not finish the TLS handshake'],
      [(await opened.fake({ instead: () => true }, opened.pair)).url, 'did not answer'],
      [`http://${dripsHeaders}`, 'did not answer'],
      [`http://${dripsBody}`, 'did not finish its answer'],
    ] as const) {
      const start = performance.now();
      const target = opened.target(url, { cluster: opened.trust });
      const failure = await expectFailure('Timeout', () => target.request({ ...version, timeoutMs: 150 }));
      expect(performance.now() - start).to.be.within(140, 1000);
      expect(failure.message).to.match(new RegExp(`^127.0.0.1:\\d+ ${missing} within 150 ms$`));
    }
  });

  it('is called TooLarge, whether the length is told before or not, and for endless headers', async () => {
    let told = true;
    let whole = true;
    let released: Promise<unknown> | undefined;
    const fake = await opened.fake({
      instead: (_request, response) => {
        released = once(response, 'close');
        response.writeHead(200, told ? { 'content-length': 5000 } : {}).write('x'.repeat(whole ? 5000 : 4500));
        if (whole) response.end();
        return true;
      },
    });
    const target = opened.target(fake.url);
    for (told of [true, false]) {
      const failure = await expectFailure('TooLarge', () => target.request({ ...version, maxBytes: 4499 }));
      expect(failure.message).to.match(/more than 4499 bytes/);
      expect((await target.request({ ...version, maxBytes: 5000 })).body).to.have.length(5000);
      whole = false;
      await expectFailure('TooLarge', () => target.request({ ...version, maxBytes: 4499 }));
      await released; // the rest is not waited for
      whole = true;
    }
    const headers = await opened.raw(socket => socket.write(`HTTP/1.1 200 OK\r\n${'a: b\r\n'.repeat(10_000)}`));
    await expectFailure('TooLarge', () => opened.target(`http://${headers}`).request(version));
  });

  it('is called Redirected, with the origin alone; the other server is not asked', async () => {
    const other = await opened.fake();
    let status = 0;
    const fake = await opened.fake({
      instead: (_request, response) => {
        response.writeHead(status, { location: `${other.url}/login?ticket=CANARY` }).end();
        return true;
      },
    });
    for (status of [301, 302, 303, 307, 308]) {
      const failure = await expectFailure('Redirected', () => opened.target(fake.url).request(version));
      expect(failure.message).to.equal(`${fake.url.slice(7)} redirects to ${other.url}`);
    }
    expect(other.requests).to.deep.equal([]);
    status = 304;
    expect((await opened.target(fake.url).request(version)).status, 'an answer to if-none-match').to.equal(304);
  });

  it('is called UnexpectedAnswer, where it is not HTTP', async () => {
    const address = await opened.raw(socket => socket.end('SSH-2.0-OpenSSH_9.2\r\n'));
    await expectFailure('UnexpectedAnswer', () => opened.target(`http://${address}`).request(version));
  });

  it('brings no credential into an error, whatever goes wrong and whatever it echoes', async () => {
    const [token, password] = ['CANARY-token', 'CANARY-password'];
    const basic = base64(`me:${password}`);
    const keyLine = opened.pair.key.split('\n')[1] ?? '';
    const secrets = [token, password, basic, keyLine, base64(opened.pair.key).slice(60, 100)];
    const show = (value: unknown): void => {
      for (const secret of secrets) expect(everythingOf(value)).not.to.contain(secret);
    };

    let status = 0;
    const echo = await opened.fake(
      {
        instead: (request, response) => {
          const message = `who is ${request.headers.authorization ?? ''}?${' '.repeat(250)}${request.headers.authorization ?? ''}`;
          response.writeHead(status, { location: `https://a/?${token}` });
          response.end(JSON.stringify({ kind: 'Status', message }));
          return true;
        },
      },
      opened.pair,
    );
    const hanging = await opened.raw(() => undefined);
    const plain = await opened.fake();
    const key = { 'client-certificate-data': base64(opened.pair.cert), 'client-key-data': base64(opened.pair.key) };
    for (const user of [
      { token, ...key },
      { username: 'me', password, ...key },
    ]) {
      const target = opened.target(echo.url, { cluster: opened.trust, user });
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
        const failing = opened.target(url, { cluster, user });
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
