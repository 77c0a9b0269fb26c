import { expect } from 'chai';
import { execFile } from 'node:child_process';
import { chmod, chown, cp, mkdtemp, rm, stat } from 'node:fs/promises';
import { once } from 'node:events';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import pg from 'pg';
import { EmbeddedPostgres } from './embedded.js';
import { parseConnection } from './parameters.js';
import { reasonOf } from '../reason.js';

const run = promisify(execFile);

describe('sslmode towards a real server', function () {
  this.timeout(60_000);
  let directory: string;
  let platform: EmbeddedPostgres;
  let url: string;
  const certificate = () => join(directory, 'certificate.pem');

  before(async function () {
    directory = await mkdtemp(join(tmpdir(), 'sslmode-'));
    await chmod(directory, 0o755);
    const request = ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '1', '-subj', '/CN=localhost'];
    const files = [
      '-keyout',
      join(directory, 'key.pem'),
      '-out',
      certificate(),
      '-addext',
      'subjectAltName=DNS:localhost',
    ];
    const made = await run('openssl', [...request, ...files]).catch((error: unknown) => error);
    if (made instanceof Error && 'code' in made && made.code === 'ENOENT') this.skip();
  });
  afterEach(() => platform.stop());
  after(() => rm(directory, { recursive: true }));

  async function start(ssl: boolean): Promise<void> {
    const dataDir = join(directory, 'data');
    const log = () => undefined;
    if (ssl) {
      // The cluster's owner must own the key, so both go where it lies.
      const { uid, gid } = await stat(join(dataDir, 'postgres', 'PG_VERSION'));
      for (const name of ['key.pem', 'certificate.pem']) {
        const path = join(dataDir, 'postgres', name);
        await cp(join(directory, name), path);
        await chown(path, uid, gid);
        await chmod(path, 0o600);
      }
    }
    const on = { ssl: 'on', ssl_cert_file: 'certificate.pem', ssl_key_file: 'key.pem' };
    platform = new EmbeddedPostgres({ dataDir, log, settings: ssl ? on : {} });
    ({ url } = await platform.start());
  }

  /** Whether the session is encrypted, or why there is none. */
  async function session(mode: string, host = 'localhost'): Promise<boolean | string> {
    const DATABASE_URL = url.replace('127.0.0.1', host).replace('sslmode=disable', mode);
    const client = new pg.Client(parseConnection({ DATABASE_URL }));
    client.on('error', () => undefined);
    try {
      await client.connect();
      const [row] = (await client.query<{ ssl: boolean }>('select ssl from pg_stat_ssl where pid = pg_backend_pid()'))
        .rows;
      // More than one buffer each way
      const long = 'x'.repeat(300_000);
      expect((await client.query<{ echo: string }>('select $1::text as echo', [long])).rows[0]?.echo).to.equal(long);
      return row?.ssl ?? 'no row';
    } catch (error) {
      return reasonOf(error);
    } finally {
      await client.end();
    }
  }

  it('prefer does without encryption where the server has none, require refuses', async () => {
    await start(false);
    expect(await session('sslmode=prefer')).to.equal(false);
    expect(await session('sslmode=disable')).to.equal(false);
    expect(await session('sslmode=require')).to.match(/does not support SSL/);
  });

  it('prefer and require encrypt without a look at the certificate, the verifying modes look', async () => {
    await start(true);
    expect(await session('sslmode=disable')).to.equal(false);
    for (const mode of ['prefer', 'allow', 'require']) expect(await session(`sslmode=${mode}`), mode).to.equal(true);
    expect(await session('sslmode=verify-full')).to.match(/self-signed certificate/);
    const trusted = `sslrootcert=${certificate()}`;
    for (const mode of ['require', 'verify-ca', 'verify-full'])
      expect(await session(`sslmode=${mode}&${trusted}`), mode).to.equal(true);
    expect(await session(`sslmode=verify-ca&${trusted}`, '127.0.0.1')).to.equal(true);
    expect(await session(`sslmode=verify-full&${trusted}`, '127.0.0.1')).to.match(/does not match/);
  });

  it('prefer reports a connection that closes or is refused while TLS is negotiated', async () => {
    await start(false);
    const server = createServer(socket => socket.once('data', () => socket.destroy())).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    url = `postgres://u:p@127.0.0.1:${port}/x?sslmode=disable`;
    expect(await session('sslmode=prefer')).to.match(/closed the connection while TLS was negotiated/);
    server.close();
    await once(server, 'close');
    expect(await session('sslmode=prefer')).to.match(/ECONNREFUSED/);
  });

  it('prefer refuses bytes that were put in before the handshake', async () => {
    await start(false);
    const server = createServer(socket => socket.once('data', () => socket.write('Sinjected'))).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    url = `postgres://u:p@127.0.0.1:${port}/x?sslmode=disable`;
    expect(await session('sslmode=prefer')).to.match(/sent data before the TLS handshake/);
    server.close();
  });
});
