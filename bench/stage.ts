import { randomBytes } from 'node:crypto';
import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { connect, type Client } from '../client/index.js';
import { EmbeddedPostgres, parseConnection, type Log } from '../db/index.js';
import { startRabbit } from '../test/rabbitmq.js';
import { Load } from './load.js';
import { Assistant, startService, type Service } from './processes.js';
import { KubernetesPeer } from './reference/kubernetes.js';
import { routesFile, writeRoutes } from './reference/routes.js';

export interface StageOptions {
  /** Where a Postgres is that lets us create databases; undefined: an embedded one in a temporary directory. */
  databaseUrl: string | undefined;
  /** A Kubernetes API server to compare with. */
  kubeconfig: string | undefined;
  /** Length of one measurement. */
  seconds: number;
  /** Where our processes write CPU profiles at their end; undefined: they write none. */
  profileDir: string | undefined;
  /** Tells people what is going on. */
  say: (text: string) => void;
}

/** A stretch of time by `now()`. */
export interface Window {
  from: number;
  to: number;
}

/** What one program runs on. Everything that it starts ends with it. */
export class Stage {
  readonly seconds: number;
  readonly warmupSeconds: number;
  readonly say: (text: string) => void;
  /** What of the profiles counts; empty: all. */
  readonly windows: Window[] = [];
  readonly #options: StageOptions;
  readonly #encryptionKey = randomBytes(32).toString('base64');
  readonly #stops: (() => Promise<unknown>)[] = [];
  #database: Promise<string> | undefined;
  #stopping: Promise<void> | undefined;

  constructor(options: StageOptions) {
    this.#options = options;
    this.seconds = options.seconds;
    this.warmupSeconds = Math.min(2, options.seconds / 2);
    this.say = options.say;
  }

  /** The URL of this stage's database, empty at first; made with the first call. */
  database(): Promise<string> {
    return (this.#database ??= this.#makeDatabase());
  }

  /** One more API process on this stage's database, as `make api` starts it. @param amqpUrl undefined: the Postgres transport */
  async api(amqpUrl?: string): Promise<Service> {
    const env = {
      DATABASE_URL: await this.database(),
      ENCRYPTION_KEY: this.#encryptionKey,
      PORT: '0',
      LOG_LEVEL: 'warn',
      ...(amqpUrl !== undefined && { AMQP_URL: amqpUrl }),
    };
    return this.own(() => startService([...this.profiling(), '--enable-source-maps', 'dist/main.js', 'api'], env));
  }

  /** The URL of a RabbitMQ node of this stage's own. @throws Error saying how to get one when none is installed */
  async broker(): Promise<string> {
    const { url } = await this.own(async () => {
      const rabbit = await startRabbit();
      return { url: rabbit.url, stop: () => rabbit.close() };
    });
    return url;
  }

  /** Express and tsoa without a database, see reference/express.ts. */
  async express(): Promise<Service> {
    await writeRoutes();
    return this.own(() => startService(['--import', 'tsx', 'bench/reference/express.ts', routesFile], {}));
  }

  /** A client of an API process. */
  client({ url }: { url: string }): Client {
    const client = connect({ url });
    this.own(() => ({ stop: () => client.close() }));
    return client;
  }

  load(): Load {
    return this.own(() => new Load());
  }

  /** A process of this room that does jobs. */
  assistant(script: string): Assistant {
    return this.own(() => new Assistant(script, this.profiling()));
  }

  /** The API server that KUBECONFIG names, if any, with a resource to create. */
  async kubernetes(): Promise<KubernetesPeer | undefined> {
    const { kubeconfig } = this.#options;
    if (kubeconfig === undefined) return undefined;
    const peer = this.own(() => new KubernetesPeer(kubeconfig));
    await peer.start();
    return peer;
  }

  /** A new directory that goes with the stage; the database's user may look through it. */
  async directory(): Promise<string> {
    const { path } = await this.own(async () => {
      const path = await mkdtemp(join(tmpdir(), 'syncsets-bench-'));
      await chmod(path, 0o711);
      return { path, stop: () => rm(path, { recursive: true, force: true }) };
    });
    return path;
  }

  /** Options of node that make a process write its CPU profile, when one was asked for. */
  profiling(): string[] {
    const { profileDir } = this.#options;
    return profileDir === undefined ? [] : ['--cpu-prof', '--cpu-prof-dir', profileDir];
  }

  /** Starts something that the stage stops at its end, if the program has not before. @throws Error the stage is cleared */
  own<T extends { stop(): Promise<unknown> }>(begin: () => T): T;
  own<T extends { stop(): Promise<unknown> }>(begin: () => Promise<T>): Promise<T>;
  own<T extends { stop(): Promise<unknown> }>(begin: () => T | Promise<T>): T | Promise<T> {
    if (this.#stopping) throw new Error('the stage is cleared');
    const begun = begin();
    // What is still starting is waited for, then stopped.
    this.#stops.push(async () => (await Promise.resolve(begun).catch(() => undefined))?.stop());
    return begun;
  }

  /** Stops what was started, the last first; goes on when something does not stop, and throws that at the end. */
  stop(): Promise<void> {
    return (this.#stopping ??= this.#clear());
  }

  async #clear(): Promise<void> {
    const failures: unknown[] = [];
    for (const stop of this.#stops.splice(0).reverse()) await stop().catch((error: unknown) => failures.push(error));
    if (failures.length > 0) throw new AggregateError(failures, 'not everything was stopped');
  }

  async #makeDatabase(): Promise<string> {
    const { databaseUrl, say } = this.#options;
    if (databaseUrl === undefined) {
      const dataDir = await this.directory();
      const log: Log = (level, message) => {
        if (level === 'warn' || level === 'error') say(`database: ${message}`);
      };
      return (await this.own(() => new EmbeddedPostgres({ dataDir, log })).start()).url;
    }
    const url = new URL(databaseUrl);
    url.pathname = `/bench_${randomBytes(4).toString('hex')}`;
    const name = url.pathname.slice(1);
    const admin = new pg.Client(parseConnection({ DATABASE_URL: databaseUrl }));
    await this.own(async () => {
      await admin.connect();
      await admin.query(`create database ${name}`);
      return {
        stop: async () => {
          await admin.query(`drop database ${name} with (force)`);
          await admin.end();
        },
      };
    });
    return url.href;
  }
}
