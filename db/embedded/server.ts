import { spawn, type ChildProcess } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Log } from '../database.js';
import type { Binaries } from './binaries.js';
import { environment, type Place } from './cluster.js';
import { logSince, openLog, type Files } from './files.js';
import { readPostmaster } from './postmaster.js';

/** What a server is started with. */
export interface Launch {
  files: Files;
  place: Place;
  binaries: Binaries;
  /** Server settings, `port` among them. */
  settings: Record<string, string>;
  log: Log;
  /** Aborted: the server is stopped although it is not ready yet. */
  signal: AbortSignal;
}

/**
 * Durable, for one machine: a cache of 256 MB, room for the pools of a dozen processes, a checkpoint every 5 min or 2 GB.
 * JIT costs more than it gives on statements of a millisecond. TCP on loopback only: a socket would need a directory that
 * both users may write to.
 */
export const settings = {
  listen_addresses: '127.0.0.1',
  unix_socket_directories: '',
  max_connections: '200',
  shared_buffers: '256MB',
  max_wal_size: '2GB',
  random_page_cost: '1.1',
  jit: 'off',
  timezone: 'UTC',
  log_timezone: 'UTC',
  log_line_prefix: '%m [%p] ',
};

// Reads until its input ends, as it does when the platform is gone in whatever way; a line means that the server was stopped
// in order. The pid file is looked at again, so that a reused number is never hit.
const WATCHDOG = 'read -r word && exit 0; read -r pid <"$2" && [ "$pid" = "$1" ] && kill -INT "$1"';

/** A running Postgres and the watchdog that stops it when this process is gone. Both outlive Ctrl-C and a killed process group. */
export class Server {
  readonly #process: ChildProcess;
  readonly #watchdog: ChildProcess;
  readonly #exited: Promise<void>;
  readonly #log: Log;

  private constructor(process: ChildProcess, watchdog: ChildProcess, log: Log) {
    this.#process = process;
    this.#watchdog = watchdog;
    this.#log = log;
    this.#exited = new Promise(resolve => process.once('exit', () => resolve()));
    // The watchdog may have been killed; what is written to it then is lost, and the next start needs no watchdog.
    watchdog.stdin?.on('error', () => undefined);
  }

  /**
   * Starts a server and waits until it takes connections; recovery after a crash is part of that and may take its time.
   *
   * @returns the server, or what it said when it ended instead
   */
  static async launch(launch: Launch): Promise<Server | { failure: string }> {
    const { files, place, binaries, log, signal } = launch;
    const output = await openLog(files);
    const options = { ...place.account, cwd: '/', env: environment, detached: true };
    const child = spawn(
      binaries.postgres,
      ['-D', place.cluster, ...Object.entries(launch.settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])],
      { ...options, stdio: ['ignore', output.handle.fd, output.handle.fd] },
    );
    const pidFile = join(place.cluster, 'postmaster.pid');
    const watchdog = spawn('/bin/sh', ['-c', WATCHDOG, 'postgres-watchdog', String(child.pid), pidFile], {
      ...options,
      stdio: ['pipe', 'ignore', 'ignore'],
    });
    const server = new Server(child, watchdog, log);
    try {
      await Promise.all([once(child, 'spawn'), once(watchdog, 'spawn')]);
      const patience = setTimeout(() => log('info', 'the embedded database recovers', { log: files.log }), 5_000);
      const ready = await server.#ready(place.cluster, signal);
      clearTimeout(patience);
      if (ready) return server;
    } catch (error) {
      await server.stop();
      throw error;
    } finally {
      await output.handle.close();
    }
    await server.stop();
    return { failure: await logSince(files, output.from) };
  }

  get running(): boolean {
    return this.#process.pid !== undefined && this.#process.exitCode === null && this.#process.signalCode === null;
  }

  /** How it ended: exit code or signal. */
  get end(): string {
    return this.#process.signalCode ?? `exit code ${this.#process.exitCode ?? 'unknown'}`;
  }

  /** Fast shutdown; after 30 s an immediate one, from which the next start recovers. */
  async stop(): Promise<void> {
    if (this.running) {
      this.#process.kill('SIGINT');
      const impatience = setTimeout(() => {
        this.#log('warn', 'the embedded database does not stop, ending it at once', { pid: this.#process.pid });
        this.#process.kill('SIGQUIT');
      }, 30_000);
      await this.#exited;
      clearTimeout(impatience);
    }
    this.#watchdog.stdin?.end('done\n');
  }

  async #ready(cluster: string, signal: AbortSignal): Promise<boolean> {
    while (this.running && !signal.aborted) {
      const found = await readPostmaster(cluster);
      if (found?.pid === this.#process.pid && found?.status === 'ready') return true;
      await sleep(5);
    }
    return false;
  }
}

/** The wished port of loopback when it is free, else another one: below the range that systems give to outgoing connections. */
export async function freePort(wished: number | undefined): Promise<number> {
  for (let port = wished, tries = 0; tries < 100; tries++, port = undefined) {
    port ??= randomInt(15_000, 30_000);
    const probe = createServer();
    try {
      await once(probe.listen(port, '127.0.0.1'), 'listening');
      return port;
    } catch {
      // In use: the next one.
    } finally {
      probe.close();
    }
  }
  throw new Error('No free port on 127.0.0.1 for the embedded database');
}
