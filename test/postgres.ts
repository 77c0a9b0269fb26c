import { randomBytes } from 'node:crypto';
import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { EmbeddedPostgres, migrate, parseConnection } from '../db/index.js';

/** A database of one test's own, with the newest schema and nothing in it. */
export interface TestDatabase {
  url: string;
  /** Another one with all that is in it, as from a backup. Ends the sessions that are open in this one. */
  copy(): Promise<TestDatabase>;
  /** Removes it, together with the sessions that are still open in it. */
  drop(): Promise<void>;
}

/** The one server of a mocha run and what its databases are cloned from. */
interface TestServer {
  admin: pg.Pool;
  url: URL;
  template: string;
  stop(): Promise<void>;
}

const prefix = `test_${randomBytes(4).toString('hex')}`;
let server: Promise<TestServer> | undefined;
let made = 0;

/**
 * Makes a database by cloning a migrated template (about 50 ms). The first call of a run starts the server: an embedded Postgres
 * in a temporary directory, or, with DATABASE_URL set, a server that lets us create databases. A run that never calls starts none.
 */
export async function createDatabase(): Promise<TestDatabase> {
  server ??= startServer();
  return clone(await server, (await server).template);
}

/** Makes one that sorts texts by a locale of ICU: migrated, not cloned, which takes ten times as long. */
export async function createDatabaseSorting(locale: string): Promise<TestDatabase> {
  server ??= startServer();
  const own = await make(await server, `locale_provider icu icu_locale '${locale}' template template0`);
  await migrate(parseConnection({ DATABASE_URL: own.url }) ?? {}, () => undefined);
  return own;
}

function clone(from: TestServer, template: string): Promise<TestDatabase> {
  return make(from, `template ${template}`);
}

/** @param how as `create database` has it */
async function make(from: TestServer, how: string): Promise<TestDatabase> {
  const { admin, url } = from;
  const name = `${prefix}_${++made}`;
  await admin.query(`create database ${name} ${how}`);
  return {
    url: withDatabase(url, name),
    copy: async () => {
      // A session ends a moment after its client was closed, and a database that is in use is not cloned.
      await admin.query(`select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = $1`, [name]);
      return clone(from, name);
    },
    drop: async () => {
      await admin.query(`drop database if exists ${name} with (force)`);
    },
  };
}

/** Stops what createDatabase started, or drops what it made on a server that is not ours. Called once, after the last test. */
export async function stopPostgres(): Promise<void> {
  const started = await server?.catch(() => undefined);
  server = undefined;
  await started?.stop();
}

async function startServer(): Promise<TestServer> {
  const given = process.env.DATABASE_URL;
  if (given) return prepare(new URL(given), () => Promise.resolve());
  const directory = await mkdtemp(join(tmpdir(), 'syncsets-test-'));
  await chmod(directory, 0o711);
  const platform = new EmbeddedPostgres({
    dataDir: directory,
    log: (level, message, fields) => {
      if (level === 'warn' || level === 'error') console.error('test database:', message, fields);
    },
    // A power cut costs a test run nothing but the run. Nowhere else: what a killed process loses must stay visible,
    // so commits still go to the kernel before they are answered.
    settings: { fsync: 'off', full_page_writes: 'off' },
  });
  const end = async () => {
    await platform.stop();
    await rm(directory, { recursive: true, force: true });
  };
  try {
    return await prepare(new URL((await platform.start()).url), end);
  } catch (error) {
    await end();
    throw error;
  }
}

async function prepare(url: URL, end: () => Promise<void>): Promise<TestServer> {
  const admin = new pg.Pool({ ...parseConnection({ DATABASE_URL: url.href }), max: 4 });
  // An idle session that is lost is replaced; when the server is gone, the next query says so.
  admin.on('error', () => undefined);
  const template = `${prefix}_template`;
  await admin.query(`create database ${template}`);
  await migrate(parseConnection({ DATABASE_URL: withDatabase(url, template) }) ?? {}, () => undefined);
  // Its session ends a moment after the client was closed, and a database that is in use is not cloned.
  await admin.query(`alter database ${template} allow_connections false`);
  await admin.query(`select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = $1`, [template]);
  return {
    admin,
    url,
    template,
    stop: async () => {
      const left = await admin.query<{ datname: string }>(
        `select datname from pg_database where datname like $1 || '\\_%'`,
        [prefix],
      );
      for (const { datname } of left.rows) await admin.query(`drop database ${datname} with (force)`);
      await admin.end();
      await end();
    },
  };
}

function withDatabase(url: URL, name: string): string {
  const changed = new URL(url);
  changed.pathname = `/${name}`;
  return changed.href;
}
