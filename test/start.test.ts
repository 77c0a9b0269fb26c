import { expect } from 'chai';
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { chmod, mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect as connectTls } from 'node:tls';
import { promisify } from 'node:util';
import { connect } from '../client/index.js';
import { Authority } from '../kubernetes/testing/certificates.js';
import { call, encryptionKey, spawnPlatform, type TestProcess } from './platform.js';
import { createDatabase, type TestDatabase } from './postgres.js';
import { begin, createAndWait, said, status, stopped } from './started.js';
import { until } from './until.js';

const run = promisify(execFile);
const token = randomBytes(16).toString('hex');

describe('starting', function () {
  this.timeout(60_000);

  describe('with something that cannot work', () => {
    let database: TestDatabase;
    const other = createServer();
    let port: string;

    before(async () => {
      database = await createDatabase();
      other.listen(0, '127.0.0.1');
      await once(other, 'listening');
      port = String((other.address() as AddressInfo).port);
    });

    after(async () => {
      other.close();
      await database.drop();
    });

    it('ends with code 1 and says in one line what to change, without a secret', async () => {
      const external = { DATABASE_URL: database.url, ENCRYPTION_KEY: encryptionKey.toString('base64') };
      const wrongPassword = new URL(database.url);
      wrongPassword.password = 'hunter22';
      const missing = new URL(database.url);
      missing.pathname = '/nowhere';
      const cases: [string, Record<string, string>, RegExp][] = [
        ['run', { LOG_LEVEL: 'loud' }, /^error: LOG_LEVEL: "loud" is not one of debug, info, warn, error$/],
        ['run', { HOST: '0.0.0.0' }, /^error: API_TOKEN: is not set, and HOST is "0.0.0.0"/],
        ['api', { ...external, PORT: port }, /^error: .*EADDRINUSE.*Another program listens there.*set PORT/],
        ['api', { ...external, HOST: '192.0.2.1', API_TOKEN: token, TLS: 'off' }, /EADDRNOTAVAIL.*Set HOST to/],
        ['controllers', { HEALTH_PORT: port, API_URL: 'http://127.0.0.1:1' }, /EADDRINUSE.*set HEALTH_PORT/],
        [
          'migrate',
          { ...external, DATABASE_URL: 'mysql://u:hunter22@h' },
          /DATABASE_URL: a URL must begin with postgres/,
        ],
        ['api', { ...external, DATABASE_URL: '', POSTGRES_PARAMS: 'user=u pass=hunter22' }, /POSTGRES_PARAMS: unknown/],
        ['api', { ...external, DATABASE_URL: wrongPassword.href }, /refuses the connection: password.*DATABASE_URL or/],
        ['api', { ...external, DATABASE_URL: missing.href }, /refuses the connection: .*"nowhere" does not exist/],
        ['run', { DATA_DIR: import.meta.filename }, /DATA_DIR .* cannot be used: .*Set it to a directory/],
      ];
      // Two at a time: as many as there are cores on the machine that the suite is measured on.
      const next = async (): Promise<void> => {
        const [role, env, message] = cases.shift() ?? [];
        if (role === undefined || !env || !message) return;
        const { ended, errors, output } = begin(role, env);
        expect(await ended, `${role} ${message.source}: ${errors.join('\n')}`).to.equal(1);
        expect(errors).to.have.length(1);
        expect(errors[0]).to.match(message);
        expect([...errors, ...output].join('\n')).not.to.include('hunter22');
        await next();
      };
      await Promise.all([next(), next()]);
    });

    it('lists the roles when there is no such role', async () => {
      const { ended, errors } = begin('everything', {});
      expect(await ended).to.equal(1);
      expect(errors[0]).to.equal('error: "everything" is not a role. There are:');
      expect(errors.slice(1).map(line => line.trim().split(' ')[0])).to.deep.equal([
        'run',
        'api',
        'controllers',
        'migrate',
        'rotate-key',
        'raise-versions',
      ]);
    });
  });

  describe('with HTTPS and a token', () => {
    let database: TestDatabase;
    let authority: Authority;
    let folder: string;
    let api: TestProcess;
    const files = () => ({ cert: join(folder, 'tls.crt'), key: join(folder, 'tls.key'), ca: join(folder, 'ca.crt') });

    before(async () => {
      database = await createDatabase();
      authority = await Authority.create();
      folder = await mkdtemp(join(tmpdir(), 'start-tls-'));
      await writeFile(files().ca, authority.ca);
      await renew();
      api = await spawnPlatform('api', {
        DATABASE_URL: database.url,
        HOST: '0.0.0.0',
        API_TOKEN: token,
        TLS_CERT_FILE: files().cert,
        TLS_KEY_FILE: files().key,
      });
    });

    after(async () => {
      await api.end('SIGTERM');
      await authority.remove();
      await rm(folder, { recursive: true });
      await database.drop();
    });

    /** Puts a new certificate in place; returns its serial number. */
    async function renew(): Promise<void> {
      const { cert, key } = await authority.issue('IP:127.0.0.1,DNS:localhost');
      for (const [path, text] of [
        [files().cert, cert],
        [files().key, key],
      ] as const) {
        await writeFile(`${path}.new`, text);
        await rename(`${path}.new`, path);
      }
    }

    /** The serial number of the certificate that a new connection is shown. */
    async function shown(): Promise<string> {
      const socket = connectTls({ port: Number(new URL(api.url).port), host: '127.0.0.1', ca: authority.ca });
      await once(socket, 'secureConnect');
      const { serialNumber } = socket.getPeerCertificate();
      socket.destroy();
      return serialNumber;
    }

    it('answers to the token over HTTPS, and to nobody else', async () => {
      expect(api.url).to.match(/^https:\/\/127\.0\.0\.1:\d+$/);
      const known = connect({ url: api.url, caFile: files().ca, token, retrySeconds: 0 });
      const unknown = connect({ url: api.url, caFile: files().ca, retrySeconds: 0 });
      const plain = connect({ url: api.url.replace('https', 'http'), token, retrySeconds: 0 });
      try {
        expect((await known.clusters.list()).items).to.deep.equal([]);
        expect(await unknown.clusters.list().catch((error: unknown) => error)).to.include({ code: 'Unauthorized' });
        expect(await plain.clusters.list().catch((error: unknown) => error)).to.include({ name: 'ConnectionError' });
      } finally {
        for (const client of [known, unknown, plain]) await client.close();
      }
    });

    it('lets controllers in that have its URL, its authority and its token', async () => {
      const env = { API_URL: api.url, API_CA_FILE: files().ca };
      const stranger = begin('controllers', { ...env, API_TOKEN: `${token}x` });
      const controllers = await spawnPlatform('controllers', { ...env, API_TOKEN: token });
      const client = connect({ url: api.url, caFile: files().ca, token });
      try {
        expect(controllers.url).to.equal(api.url);
        await createAndWait(client, 'cluster1');
        expect(await stranger.ended).to.equal(1);
        expect(stranger.errors.join('\n')).to.match(/^error: The API at \S+ refuses the controllers: .*API_TOKEN/);
      } finally {
        await client.close();
        expect(await stopped(controllers)).to.equal(0);
      }
    });

    it('has controllers wait that cannot reach it, and says which setting they lack', async () => {
      const plain = { API_URL: api.url.replace('https', 'http'), API_TOKEN: token };
      const untrusting = begin('controllers', { API_URL: api.url, API_TOKEN: token });
      const misnamed = begin('controllers', { ...plain, API_CA_FILE: files().ca });
      try {
        const remedies = [
          { process: untrusting, remedy: /API_CA_FILE is to name the certificate of the authority/ },
          { process: misnamed, remedy: /API_URL says where it is/ },
        ];
        for (const { process, remedy } of remedies) {
          const told = () =>
            said(process.output, 'the API is away; waiting for it').some(line => remedy.test(String(line['remedy'])));
          await until(told, { what: `${remedy.source} in ${process.output.join('\n')}`, deadline: 20_000 });
        }
      } finally {
        for (const { child, ended } of [untrusting, misnamed]) {
          child.kill('SIGTERM');
          await ended;
        }
      }
    });

    it('shows a renewed certificate without a restart, and keeps the old one until certificate and key fit', async () => {
      const first = await shown();
      await writeFile(files().key, 'half of a ke');
      await until(() => said(api.output, 'certificate not taken').length > 0, { what: 'the bad pair to be seen' });
      expect(await shown()).to.equal(first);
      await renew();
      await until(async () => (await shown()) !== first, { what: 'the new certificate to be shown' });
    });
  });

  describe('with a Postgres of its user, given as libpq takes it', () => {
    let database: TestDatabase;
    before(async () => (database = await createDatabase()));
    after(() => database.drop());

    it('keeps what is stored in a table of the type, which psql shows', async () => {
      const { username, password, hostname, port, pathname } = new URL(database.url);
      const where = `dbname=${pathname.slice(1)} host=${hostname} port=${port} sslmode=disable`;
      const params = `user=${username} password='${decodeURIComponent(password)}' ${where}`;
      const api = await spawnPlatform('api', { POSTGRES_PARAMS: params });
      try {
        const made = await call(api.url, 'POST', '/v1/clusters', { name: 'cluster1', namespace: 'foo' });
        expect(made.status).to.equal(201);
        const { stdout } = await run('psql', [params, '-c', 'select * from clusters']);
        expect(stdout).to.match(/^ clusters \| foo +\| cluster1 \|/m);
      } finally {
        expect(await stopped(api)).to.equal(0);
      }
    });
  });

  describe('in a data directory', () => {
    let folder: string;

    before(async () => {
      folder = await mkdtemp(join(tmpdir(), 'start-data-'));
      await chmod(folder, 0o711);
    });
    after(() => rm(folder, { recursive: true, maxRetries: 10 }));

    it('ends clean at Ctrl-C in the middle of its start', async () => {
      const early = begin('run', { DATA_DIR: join(folder, 'early') });
      await until(() => said(early.output, 'making the embedded database').length > 0, { what: 'the start' });
      early.child.kill('SIGINT');
      expect(await early.ended).to.equal(0);
      expect(early.errors).to.deep.equal([]);
      expect(said(early.output, 'stopping')).to.have.length(1);
    });

    it('refuses a second platform, lets other processes join, and ends clean at Ctrl-C', async () => {
      const env = { DATA_DIR: join(folder, 'data') };
      const platform = await spawnPlatform('run', env);
      const second = begin('run', env);
      const joined = await spawnPlatform('api', env);
      try {
        expect(await second.ended).to.equal(1);
        expect(second.errors).to.have.length(1);
        expect(second.errors[0]).to.match(/DATA_DIR \S+ is in use by another platform .*set DATA_DIR to another/);
        await call(platform.url, 'POST', '/v1/clusters', { name: 'shared', namespace: 'foo' });
        expect(await status(joined.url, '/v1/clusters/foo/shared')).to.equal(200);
      } finally {
        expect(await stopped(joined)).to.equal(0);
        expect(await stopped(platform, 'SIGINT')).to.equal(0);
      }
      const troubles = [...joined.output, ...platform.output].filter(line =>
        /"level":"(warn|error)"|^error/.test(line),
      );
      expect(troubles).to.deep.equal([]);
    });
  });
});
