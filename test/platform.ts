import { spawn, type ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { ApiServer, typeTables, type ApiOptions, type TypeDefinition } from '../api/index.js';
import { Bus } from '../bus/index.js';
import { isLoopback } from '../config.js';
import { Database, ensureTypes, type Log } from '../db/index.js';
import { createDatabase, type TestDatabase } from './postgres.js';
import { program } from './program.js';
import { until } from './until.js';

export const encryptionKey = randomBytes(32);
const root = join(import.meta.dirname, '..');

export interface Answer {
  status: number;
  headers: Headers;
  // What a test expects of it, it says; nothing else depends on its type.
  // eslint-disable-next-line @typescript-eslint/no-explicit-any
  body: any;
}

/** One request with a JSON body; the answer's body is parsed when it is JSON. */
export async function call(
  url: string,
  method: string,
  path: string,
  body?: unknown,
  headers: Record<string, string> = {},
): Promise<Answer> {
  const response = await fetch(url + path, {
    method,
    headers: { ...(body === undefined ? {} : { 'Content-Type': 'application/json' }), ...headers },
    ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
  });
  const text = await response.text();
  return {
    status: response.status,
    headers: response.headers,
    body: /json/.test(response.headers.get('content-type') ?? '') ? JSON.parse(text) : text,
  };
}

export interface TestApi {
  url: string;
  database: Database;
  /** Where further replicas find the same database. */
  databaseUrl: string;
  log: { level: string; message: string; fields: Record<string, unknown> }[];
  call: (method: string, path: string, body?: unknown, headers?: Record<string, string>) => Promise<Answer>;
  stop: () => Promise<void>;
}

/** An API in this process, on a database of its own (or of another one's, as a replica). */
export async function startApi(
  options: {
    amqpUrl?: string;
    databaseUrl?: string;
    token?: string;
    types?: TypeDefinition[];
    encryptionKeys?: Buffer[];
    /** Connections to the database. */
    poolSize?: number;
    timeouts?: ApiOptions['timeouts'];
  } = {},
): Promise<TestApi> {
  const own: TestDatabase | undefined = options.databaseUrl === undefined ? await createDatabase() : undefined;
  const databaseUrl = options.databaseUrl ?? own?.url ?? '';
  const lines: TestApi['log'] = [];
  const log: Log = (level, message, fields = {}) => lines.push({ level, message, fields });
  const database = new Database({
    connection: { connectionString: databaseUrl },
    log,
    ...(options.poolSize === undefined ? {} : { poolSize: options.poolSize }),
  });
  await database.start();
  const tables = typeTables(options.types);
  await ensureTypes(database, tables, log);
  const bus = new Bus({
    database,
    types: tables.map(({ type }) => type),
    amqpUrl: options.amqpUrl,
    eventLogMax: 2 ** 32,
    instance: 'test',
    log,
  });
  await bus.start();
  const server = new ApiServer({
    database,
    bus,
    encryptionKeys: options.encryptionKeys ?? [encryptionKey],
    host: '127.0.0.1',
    port: 0,
    token: options.token,
    tls: undefined,
    isLocalHost: isLoopback,
    ...(options.timeouts ? { timeouts: options.timeouts } : {}),
    log,
    ...(options.types ? { types: options.types } : {}),
  });
  const url = `http://127.0.0.1:${await server.start()}`;
  return {
    url,
    database,
    databaseUrl,
    log: lines,
    call: (method, path, body, headers) => call(url, method, path, body, headers),
    stop: async () => {
      await server.stop();
      await bus.stop();
      await database.stop();
      await own?.drop();
    },
  };
}

export interface TestProcess {
  /** The address in its `ready:` line. */
  url: string;
  process: ChildProcess;
  output: string[];
  /** Sends a signal and waits until the process has ended. */
  end: (signal: NodeJS.Signals) => Promise<void>;
}

/** A role of the platform in a process of its own, for faults that only a process can have. Waits for its `ready:` line. */
export async function spawnPlatform(
  role: 'run' | 'api' | 'controllers',
  env: Record<string, string>,
): Promise<TestProcess> {
  const child = spawn(process.execPath, [...program, role], {
    cwd: root,
    env: {
      PATH: process.env['PATH'] ?? '',
      ENCRYPTION_KEY: encryptionKey.toString('base64'),
      PORT: '0',
      LOG_FORMAT: 'json',
      ...env,
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const output: string[] = [];
  for (const stream of [child.stdout, child.stderr])
    createInterface({ input: stream }).on('line', line => output.push(line));
  const ended = new Promise<void>(resolve => child.once('exit', () => resolve()));
  const ready = await until(
    () => (child.exitCode === null ? output.find(line => line.startsWith('ready: ')) : 'ended'),
    { deadline: 60_000, what: `the ready line of ${role}` },
  );
  if (ready === 'ended') throw new Error(`${role} ended at its start:\n${output.join('\n')}`);
  const url = ready.slice('ready: '.length);
  return {
    url,
    process: child,
    output,
    end: async signal => {
      if (child.exitCode === null && child.signalCode === null) child.kill(signal);
      await ended;
    },
  };
}
