import { randomBytes, X509Certificate } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ClientConfig } from 'pg';
import { ApiServer, KeyStillInUse, MissingEncryptionKey, rotateKey, Secrets, typeTables } from './api/index.js';
import { Bus } from './bus/index.js';
import { isPlatformError } from './client/index.js';
import { BadSetting, isLoopback, readSettings, type Settings, type TracingSettings } from './config.js';
import { startControllers } from './controllers/index.js';
import {
  Database,
  EmbeddedPostgres,
  ensureTypes,
  findEmbedded,
  isDatabaseAway,
  migrate,
  parseConnection,
  raiseVersions,
  sqlState,
  type Log,
  type RaisedVersion,
} from './db/index.js';
import { createLog } from './logging.js';
import { Exporter, SpanSource } from './tracing/index.js';

const roles = {
  run: 'everything in one process: the API, the controllers, and the embedded database when none is given',
  api: 'the API alone, as often as wanted',
  controllers: 'the controllers alone, as often as wanted',
  migrate: 'brings the database to this release and ends',
  'rotate-key': 'encrypts all secrets anew with the first key of ENCRYPTION_KEY, while the platform runs, and ends',
  'raise-versions': 'after a restored backup: lets versions go on above what clients have seen, and ends',
} as const;
type Role = keyof typeof roles;

/** Something that was started and is stopped in reverse order. */
interface Part {
  stop(): Promise<unknown>;
}

/** Ends the process with one line that says what is wrong and what to do. */
class StartError extends Error {}

async function main(): Promise<void> {
  const [name = 'run'] = process.argv.slice(2);
  const role = (Object.keys(roles) as Role[]).find(one => one === name);
  if (!role) {
    const list = Object.entries(roles).map(([one, text]) => `  ${one.padEnd(14)} ${text}`);
    throw new StartError(`"${name}" is not a role. There are:\n${list.join('\n')}`);
  }
  const settings = readSettings(undefined, role === 'run' || role === 'api');
  const log = createLog({ level: settings.logLevel, format: settings.logFormat, part: role });
  const parts: Part[] = [];
  let stopping: Promise<void> | undefined;
  const stop = () => (stopping ??= stopAll(parts, log));
  const ended = new Promise<void>(resolve => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) {
      process.on(signal, () => {
        log('info', 'stopping', { signal });
        void stop().then(resolve);
      });
    }
  });
  try {
    const lines = await start(role, settings, parts, log, () => stopping !== undefined);
    const ends = ['migrate', 'rotate-key', 'raise-versions'].includes(role);
    if (lines.length > 0 && (ends || stopping === undefined)) process.stdout.write(`${lines.join('\n')}\n`);
    if (!ends && stopping === undefined) await ended;
  } catch (error) {
    // A signal stops the parts under a start that is on its way; what the start then fails with is no news.
    if (stopping === undefined) throw error;
    log('debug', 'the start was cut short', { error });
  } finally {
    await stop();
  }
  endSoon(0);
}

/** Starts the parts of a role in order; returns the last lines to print. */
async function start(
  role: Role,
  settings: Settings,
  parts: Part[],
  log: Log,
  stopping: () => boolean,
): Promise<string[]> {
  const lines: string[] = [];
  let { apiUrl } = settings;
  if (settings.tracing) parts.push(startTracing(settings.tracing, role, settings.instance, log));
  if (role !== 'controllers') {
    const { connection, hint } = await connect(role, settings, parts, log).catch((error: unknown) =>
      refuseDatabase(error, settings),
    );
    const database = new Database({ connection, log });
    parts.push(database);
    await untilReachable(() => database.start(), log, stopping);
    if (stopping()) return [];
    await migrate(connection, log);
    await ensureTypes(database, typeTables(), log);
    if (role === 'migrate') return [];
    if (role === 'raise-versions') return raised(await raiseVersions(database));
    const encryptionKeys = settings.encryptionKeys ?? [generatedKey(settings.dataDir)];
    if (role === 'rotate-key') return rotate(database, encryptionKeys, log, stopping);
    const bus = new Bus({
      database,
      types: typeTables().map(({ type }) => type),
      amqpUrl: settings.amqpUrl,
      eventLogMax: settings.eventLogMax,
      instance: settings.instance,
      log,
    });
    parts.push(bus);
    await bus.start();
    const api = new ApiServer({
      database,
      bus,
      encryptionKeys,
      host: settings.host,
      port: settings.port,
      token: settings.apiToken,
      tls: settings.tls,
      isLocalHost: isLoopback,
      log,
    });
    parts.push(api);
    const port = await api.start().catch((error: unknown) => refuseAddress(error, 'PORT'));
    apiUrl = withPort(apiUrl, port);
    if (hint) lines.push(`database: ${hint}`);
  }
  if (role !== 'api') {
    const controllers = startControllers({
      apiUrl,
      apiToken: settings.apiToken,
      apiCaFile: settings.apiCaFile ?? (role === 'run' ? ownAuthority(settings) : undefined),
      amqpUrl: settings.amqpUrl,
      healthPort: settings.healthPort,
      host: settings.host,
      concurrency: settings.concurrency,
      // Beside the API an error that nobody caught may be the API's own, which must not go on in doubt.
      catchUncaught: role === 'controllers',
      log,
    });
    parts.push(controllers);
    await controllers.start().catch((error: unknown) => {
      if (!isPlatformError(error)) return refuseAddress(error, 'HEALTH_PORT');
      const remedy = error.status === 401 ? ' Set API_TOKEN to the token of the API.' : '';
      throw new StartError(`The API at ${apiUrl} refuses the controllers: ${error.message}${remedy}`);
    });
  }
  lines.push(`ready: ${apiUrl}`);
  return lines;
}

/** Records spans from now on; stopped last, when the other parts have ended theirs. */
function startTracing(tracing: TracingSettings, role: Role, instance: string, log: Log): Part {
  const { endpoint, headers, serviceName = `syncsets-${role}`, ratio } = tracing;
  const resource = { 'service.name': serviceName, 'service.instance.id': instance };
  const exporter = new Exporter({ endpoint, headers, resource, log });
  new SpanSource({ ratio, ended: span => exporter.add(span) }).use();
  return exporter;
}

/** Encrypts all secrets anew; returns what to tell about it. */
async function rotate(database: Database, keys: Buffer[], log: Log, stopping: () => boolean): Promise<string[]> {
  const secrets = await Secrets.load(database, keys);
  const { keyId, objects, interrupted } = await rotateKey({ database, secrets, log, stopping });
  const lines = [...objects].map(([type, count]) => `${type}: the secrets of ${count} objects encrypted anew`);
  return interrupted
    ? [...lines, 'interrupted: run it again to go on with what is left']
    : [...lines, `done: all secrets are encrypted with the key ${keyId}; the others are needed no longer`];
}

/** What to tell about raised versions. */
function raised(types: RaisedVersion[]): string[] {
  return [
    ...types.map(({ type, former, version }) => `${type}: versions go on after ${version} (the backup had ${former})`),
    'done: watchers list again, all claims are void, controllers look at every object once more',
  ];
}

/** How the database is reached; starts the embedded one when none is given and none of this DATA_DIR runs. */
async function connect(
  role: Role,
  settings: Settings,
  parts: Part[],
  log: Log,
): Promise<{ connection: ClientConfig; hint?: string }> {
  const { databaseUrl, postgresParams, dataDir } = settings;
  const external = parseConnection({ DATABASE_URL: databaseUrl, POSTGRES_PARAMS: postgresParams });
  if (external) return { connection: external };
  // A role that is started beside `run` joins its database; `run` itself refuses a DATA_DIR that another one holds.
  const running = role === 'run' ? undefined : await findEmbedded(dataDir);
  if (running) return { connection: { connectionString: running.url } };
  const embedded = new EmbeddedPostgres({ dataDir, log });
  parts.push(embedded);
  const { url, psqlHint } = await embedded.start();
  return { connection: { connectionString: url }, hint: psqlHint };
}

/** Waits for a database that does not answer yet; says so once. What it refuses (password, name) ends the start. */
async function untilReachable(attempt: () => Promise<void>, log: Log, stopping: () => boolean): Promise<void> {
  for (let tries = 0; !stopping(); tries++) {
    try {
      await attempt();
      return;
    } catch (error) {
      const reason = error instanceof Error ? error.message || String(error) : String(error);
      // 28: authentication, 3D000: no such database
      if (/^(28|3D)/.test(sqlState(error) ?? '')) {
        throw new StartError(`The database refuses the connection: ${reason}. Check DATABASE_URL or POSTGRES_PARAMS.`);
      }
      if (!isDatabaseAway(error) && !(error instanceof AggregateError)) throw error;
      if (tries % 30 === 0) {
        log(
          'error',
          'the database does not answer; check DATABASE_URL or POSTGRES_PARAMS and that it runs; trying again every second',
          { reason },
        );
      }
      await new Promise(resolve => setTimeout(resolve, 1_000));
    }
  }
}

/** The database room's own errors are made for people; the system's, about files, need to be told which setting is meant. */
function refuseDatabase(error: unknown, { dataDir }: Settings): never {
  if (!(error instanceof Error) || error.name !== 'Error') throw error;
  if (!('syscall' in error)) throw new StartError(error.message, { cause: error });
  throw new StartError(
    `DATA_DIR ${dataDir} cannot be used: ${error.message}. Set it to a directory that this user may write to.`,
  );
}

/** Says which setting leads to another address when a server cannot listen. */
function refuseAddress(error: unknown, port: 'PORT' | 'HEALTH_PORT'): never {
  const code = error instanceof Error && 'code' in error ? String(error.code) : '';
  const remedies: Record<string, string> = {
    EADDRINUSE: `Another program listens there: stop it, or set ${port} to another port`,
    EACCES: `Ports below 1024 are for root: set ${port} to another one`,
    EADDRNOTAVAIL: `Set HOST to an address of this machine`,
    ENOTFOUND: `Set HOST to an address or a name of this machine`,
    EAI_AGAIN: `Set HOST to an address or a name of this machine`,
  };
  const remedy = remedies[code];
  if (!(error instanceof Error) || remedy === undefined) throw error;
  throw new StartError(`${error.message}. ${remedy}.`, { cause: error });
}

/** The encryption key that belongs to the embedded database: made once, beside it. */
function generatedKey(dataDir: string): Buffer {
  const file = join(dataDir, 'encryption-key');
  if (!existsSync(file)) {
    mkdirSync(dataDir, { recursive: true });
    writeFileSync(file, `${randomBytes(32).toString('base64')}\n`, { mode: 0o600, flag: 'wx' });
  }
  return Buffer.from(readFileSync(file, 'utf8').trim(), 'base64');
}

/** A self-signed certificate is its own authority; one that an authority has signed is not, and the system's are asked. */
function ownAuthority({ tls }: Settings): string | undefined {
  if (!tls) return undefined;
  const certificate = new X509Certificate(readFileSync(tls.certFile));
  return certificate.checkIssued(certificate) ? tls.certFile : undefined;
}

/** PORT=0 listens on a free port, which only the server knows. */
function withPort(url: string, port: number): string {
  const parsed = new URL(url);
  if (parsed.port === '0') parsed.port = String(port);
  return parsed.href.replace(/\/$/, '');
}

async function stopAll(parts: Part[], log: Log): Promise<void> {
  for (const part of parts.reverse()) {
    await part.stop().catch((error: unknown) => log('error', 'stopping failed', { error }));
  }
}

/** Ends the process although something may still be open: a part that was stopped while it started, a socket that hangs. */
function endSoon(code: number): void {
  process.exitCode = code;
  setTimeout(() => process.exit(code), 2_000).unref();
}

main().catch((error: unknown) => {
  const expected = [BadSetting, StartError, MissingEncryptionKey, KeyStillInUse];
  const known = expected.some(kind => error instanceof kind);
  const text = error instanceof Error ? ((known ? undefined : error.stack) ?? error.message) : String(error);
  process.stderr.write(`error: ${text}\n`);
  endSoon(1);
});
