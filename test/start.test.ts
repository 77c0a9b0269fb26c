import { expect } from 'chai';
import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { chmod, mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { connect as connectTls } from 'node:tls';
import { promisify } from 'node:util';
import { Connection } from 'rabbitmq-client';
import { connect, watch, type Client } from '../client/index.js';
import { BadSetting, readSettings } from '../config.js';
import { EmbeddedPostgres } from '../db/index.js';
import { Authority } from '../kubernetes/testing/certificates.js';
import { call, encryptionKey, spawnPlatform, type TestProcess } from './platform.js';
import { createDatabase, type TestDatabase } from './postgres.js';
import { startRabbit, type Rabbit } from './rabbitmq.js';
import { variables } from './settings.js';
import { until } from './until.js';

const root = join(import.meta.dirname, '..');
const run = promisify(execFile);
const token = randomBytes(16).toString('hex');

interface Started {
  child: ChildProcess;
  output: string[];
  errors: string[];
  /** Its exit code, once it has ended. */
  ended: Promise<number | null>;
}

/** Starts a role that may not become ready. */
function begin(role: string, env: Record<string, string>): Started {
  const child = spawn(process.execPath, ['--import', 'tsx', 'main.ts', role], {
    cwd: root,
    env: { PATH: process.env['PATH'] ?? '', PORT: '0', LOG_FORMAT: 'json', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const output: string[] = [];
  const errors: string[] = [];
  createInterface({ input: child.stdout }).on('line', line => output.push(line));
  createInterface({ input: child.stderr }).on('line', line => errors.push(line));
  // 'close' and not 'exit': then all it has said has been read.
  return { child, output, errors, ended: once(child, 'close').then(([code]) => code as number | null) };
}

async function stopped(platform: TestProcess, signal: 'SIGINT' | 'SIGTERM' = 'SIGTERM'): Promise<number | null> {
  await platform.end(signal);
  return platform.process.exitCode;
}

/** The log lines of a process with a message. */
function said(output: string[], message: string | RegExp): Record<string, unknown>[] {
  return output
    .filter(line => line.startsWith('{'))
    .map(line => JSON.parse(line) as Record<string, unknown>)
    .filter(({ msg }) => (typeof message === 'string' ? msg === message : message.test(String(msg))));
}

const status = async (url: string, path: string) => (await fetch(url + path)).status;

/** Creates a cluster whose kubeconfig is none, and waits until the controller has seen it. */
async function createAndWait(client: Client, name: string): Promise<void> {
  await client.clusters.create({ name, namespace: 'foo', kubeconfig: 'foobar' });
  await until(
    async () => {
      const { status: seen } = await client.clusters.read({ namespace: 'foo', name });
      return seen?.conditions?.some(({ reason }) => reason === 'KubeconfigInvalid');
    },
    { what: `the controller to look at ${name}`, deadline: 15_000 },
  );
}

describe('settings', () => {
  const key = encryptionKey.toString('base64');
  const certificate = join(root, 'package.json');
  const open = { HOST: '0.0.0.0', API_TOKEN: token, TLS: 'off' };
  /** A bad value of a variable, what else is set, and what the message must say. */
  const bad: [string, string, RegExp, Record<string, string>?][] = [
    ['PORT', 'http', /"http" is not a port: a number from 0 to 65535/],
    ['PORT', '65536', /"65536" is not a port/],
    ['PORT', '-1', /"-1" is not a port/],
    ['HEALTH_PORT', '80a', /"80a" is not a port/],
    ['DATABASE_URL', 'postgres://u:hunter22@h/db', /^ENCRYPTION_KEY: is required with an external database: openssl/],
    ['POSTGRES_PARAMS', 'user=u password=hunter22', /^ENCRYPTION_KEY: is required with an external database/],
    ['AMQP_URL', 'http://u:hunter22@h', /its value is not a URL that begins with amqp:\/\/ or amqps:\/\//],
    ['AMQP_URL', 'hunter22', /its value is not a URL/],
    ['API_URL', 'ftp://h', /"ftp:\/\/h" is not a URL that begins with http:\/\/ or https:\/\//],
    ['API_URL', 'localhost', /"localhost" is not a URL/],
    ['API_CA_FILE', '/nowhere/ca.crt', /"\/nowhere\/ca.crt" is not a file that can be read \(ENOENT\)/],
    ['API_TOKEN', 'hunter22', /its value is not at least 16 printable characters without spaces.*openssl rand -hex 32/],
    ['API_TOKEN', 'hunter22 hunter22 hunter22', /its value is not at least 16 printable characters/],
    ['HOST', '0.0.0.0', /^API_TOKEN: is not set, and HOST is "0.0.0.0": a token is required/],
    ['HOST', '::', /^TLS_CERT_FILE: is not set, and HOST is "::": set TLS_CERT_FILE.*or TLS=off/, { API_TOKEN: token }],
    ['TLS_CERT_FILE', '/nowhere/tls.crt', /is not a file that can be read \(ENOENT\)/],
    ['TLS_CERT_FILE', certificate, /^TLS_KEY_FILE: is missing, TLS_CERT_FILE is set/],
    ['TLS_KEY_FILE', certificate, /^TLS_CERT_FILE: is missing, TLS_KEY_FILE is set/],
    ['TLS', 'yes', /"yes" is not one of on, off/],
    ['TLS', 'on', /^TLS: is "on", which needs TLS_CERT_FILE and TLS_KEY_FILE/],
    ['ENCRYPTION_KEY', 'hunter22', /its value is not 32 bytes in base64.*openssl rand -base64 32/],
    ['ENCRYPTION_KEY', `${key},hunter22`, /its value is not 32 bytes in base64/],
    ['EVENT_LOG_MAX', '4GB', /"4GB" is not a size of at least 16MiB: bytes, or a number with MiB or GiB/],
    ['EVENT_LOG_MAX', '1MiB', /"1MiB" is not a size of at least 16MiB/],
    ['CONCURRENCY', '0', /"0" is not a whole number from 1 to 1000/],
    ['LOG_LEVEL', 'loud', /"loud" is not one of debug, info, warn, error/],
    ['LOG_FORMAT', 'xml', /"xml" is not one of text, json/],
  ];

  it('names the variable that is wrong, what it holds and what it may hold, and shows no secret', () => {
    for (const [variable, value, message, more] of bad) {
      const setting = `${variable}=${value}`;
      const thrown = expect(() => readSettings({ ...more, [variable]: value }), setting).to.throw(BadSetting, message);
      thrown.with.property('message').that.matches(/^[A-Z_]+: /);
      thrown.with.property('message').that.does.not.include('hunter22');
    }
  });

  it('checks every variable that there is', () => {
    // What it may hold is for the system to say: any directory will do until it is used.
    const unchecked = ['DATA_DIR'];
    expect(variables().filter(name => !unchecked.includes(name))).to.have.members([
      ...new Set(bad.map(([variable]) => variable)),
    ]);
  });

  it('takes an empty value for one that is not set, and sizes, ports and keys as they are written', () => {
    const empty = Object.fromEntries(variables().map(name => [name, '']));
    expect({ ...readSettings(empty), instance: '' }).to.deep.equal({ ...readSettings({}), instance: '' });
    const settings = readSettings({ ...open, PORT: '80', EVENT_LOG_MAX: '32MiB', ENCRYPTION_KEY: `${key}, ${key}` });
    expect(settings).to.include({ port: 80, eventLogMax: 2 ** 25, apiUrl: 'http://127.0.0.1:80', apiToken: token });
    expect(settings.encryptionKeys).to.deep.equal([encryptionKey, encryptionKey]);
  });
});

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
        ['run', { DATA_DIR: join(root, 'package.json') }, /DATA_DIR .* cannot be used: .*Set it to a directory/],
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

    it('shows a renewed certificate without a restart, and keeps the old one until certificate and key fit', async () => {
      const first = await shown();
      await writeFile(files().key, 'half of a ke');
      await until(() => said(api.output, 'certificate not taken').length > 0, { what: 'the bad pair to be seen' });
      expect(await shown()).to.equal(first);
      await renew();
      await until(async () => (await shown()) !== first, { what: 'the new certificate to be shown' });
    });
  });

  describe('with a database that comes and goes', () => {
    let folder: string;
    let platform: Started;
    let url: string;
    let databaseUrl: string;
    let postgres: EmbeddedPostgres;
    let client: Client;

    /** Starts Postgres, at the second time on the port of the first. */
    async function startPostgres(): Promise<void> {
      postgres = new EmbeddedPostgres({ dataDir: folder, log: () => undefined, settings: { fsync: 'off' } });
      databaseUrl = (await postgres.start()).url;
    }

    before(async () => {
      folder = await mkdtemp(join(tmpdir(), 'start-postgres-'));
      await chmod(folder, 0o711);
      await startPostgres();
      await postgres.stop();
    });

    after(async () => {
      await client.close();
      platform.child.kill('SIGTERM');
      expect(await platform.ended).to.equal(0);
      await postgres.stop();
      await rm(folder, { recursive: true, maxRetries: 10 });
    });

    it('says that it waits for it, can be stopped meanwhile, and starts when it comes', async () => {
      const env = { DATABASE_URL: databaseUrl, ENCRYPTION_KEY: encryptionKey.toString('base64') };
      const message = /database does not answer; check DATABASE_URL or POSTGRES_PARAMS/;
      const impatient = begin('api', env);
      platform = begin('run', env);
      for (const one of [impatient, platform]) {
        await until(() => said(one.output, message).length > 0, { what: 'the message' });
      }
      impatient.child.kill('SIGINT');
      expect(await impatient.ended).to.equal(0);
      expect(impatient.errors).to.deep.equal([]);
      await startPostgres();
      const ready = await until(() => platform.output.find(line => line.startsWith('ready: ')), { what: 'ready' });
      url = ready.slice('ready: '.length);
      client = connect({ url, retrySeconds: 0 });
      expect(await status(url, '/readyz')).to.equal(200);
      expect(platform.output.join('\n')).not.to.include(new URL(databaseUrl).password);
    });

    it('answers 503 while it is away, lives, and goes on by itself when it is back', async () => {
      await createAndWait(client, 'before');
      const told: string[] = [];
      const end = new AbortController();
      const watching = (async () => {
        for await (const { object } of watch(client.clusters, { signal: end.signal })) told.push(object.name);
      })();
      await until(() => told.includes('before'), { what: 'the watch' });
      await postgres.stop();
      await until(async () => (await status(url, '/readyz')) === 503, { what: '/readyz to say 503' });
      expect(await status(url, '/healthz')).to.equal(200);
      const refused = await call(url, 'POST', '/v1/clusters', { name: 'meanwhile', namespace: 'foo' });
      expect(refused.status).to.equal(503);
      expect(refused.body.error).to.include({ code: 'Unavailable' });
      expect(refused.body.error.message).to.match(/^The database does not answer/);
      await startPostgres();
      await until(async () => (await status(url, '/readyz')) === 200, { what: '/readyz to say 200' });
      await createAndWait(client, 'after');
      await until(() => told.includes('after'), { what: 'the watch to go on' });
      expect(told).not.to.include('meanwhile');
      end.abort();
      await watching;
    });
  });

  describe('with a broker that does not answer', () => {
    let database: TestDatabase;
    let rabbit: Rabbit;
    let platform: TestProcess;

    before(async () => {
      [database, rabbit] = await Promise.all([createDatabase(), startRabbit()]);
      await rabbit.stop();
    });

    after(async () => {
      await platform.end('SIGTERM');
      await rabbit.close();
      await database.drop();
    });

    it('says so, works without it, and uses it when it comes', async () => {
      platform = await spawnPlatform('run', { DATABASE_URL: database.url, AMQP_URL: rabbit.url });
      const { url, output } = platform;
      const message = await until(() => said(output, /broker/)[0], { what: 'a message about the broker' });
      expect(message).to.include({ level: 'warn' });
      expect(JSON.stringify(message))
        .to.match(/AMQP_URL/)
        .and.to.match(/ECONNREFUSED/);
      const { body, status: ready } = await call(url, 'GET', '/readyz');
      expect([ready, body.broker]).to.deep.equal([200, 'away']);

      const client = connect({ url });
      const told: string[] = [];
      const end = new AbortController();
      const watching = (async () => {
        for await (const { object } of watch(client.clusters, { signal: end.signal })) told.push(object.name);
      })();
      await createAndWait(client, 'alone');
      await until(() => told.includes('alone'), { what: 'the watch' });

      await rabbit.start();
      await until(async () => (await call(url, 'GET', '/readyz')).body.broker === 'ok', {
        what: 'the platform to find the broker',
        deadline: 20_000,
      });
      const exchange = 'syncsets.events.clusters';
      const broker = new Connection(rabbit.url);
      broker.on('error', () => undefined);
      const heard: string[] = [];
      const queue = { queue: '', queueOptions: { exclusive: true }, queueBindings: [{ exchange }] };
      const consumer = broker.createConsumer(
        { ...queue, exchanges: [{ exchange, type: 'fanout', durable: true }] },
        ({ body: event }: { body?: { object: { name: string } } }) => void heard.push(event?.object.name ?? ''),
      );
      await once(consumer, 'ready');
      await createAndWait(client, 'together');
      await until(() => heard.includes('together'), { what: 'the event on RabbitMQ' });
      end.abort();
      await watching;
      await consumer.close();
      await broker.close();
      await client.close();
    });

    it('says that it is refused when the password is wrong, without showing it', async () => {
      const wrong = rabbit.url.replace('guest:guest', 'guest:hunter22');
      const api = await spawnPlatform('api', { DATABASE_URL: database.url, AMQP_URL: wrong });
      try {
        const message = await until(() => said(api.output, /broker/)[0], { what: 'a message about the broker' });
        expect(JSON.stringify(message)).to.match(/ACCESS_REFUSED/);
      } finally {
        expect(await stopped(api)).to.equal(0);
      }
      expect(api.output.join('\n')).not.to.include('hunter22');
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
