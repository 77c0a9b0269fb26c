import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdirSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { EmbeddedPostgres } from '../../db/index.js';
import { spawnPlatform, type TestProcess } from '../platform.js';
import { startRabbit, type Rabbit } from '../rabbitmq.js';
import type { Violations } from './violations.js';

const run = promisify(execFile);

/** A part of the fleet that faults happen to. Both return when it is there again. */
export interface Part {
  readonly name: string;
  /** kill -9, and a new start. */
  kill(): Promise<void>;
  /** SIGSTOP for some milliseconds, then SIGCONT. */
  freeze(milliseconds: number): Promise<void>;
  /** Ends it for good. */
  stop(): Promise<void>;
}

/** What a child process that is started again and again has in common. One that ends by itself is a violation. */
abstract class Restarted implements Part {
  #child: ChildProcess | undefined;
  #meant = false;

  constructor(
    readonly name: string,
    protected readonly violations: Violations,
  ) {}

  /** Starts the process and waits until it is ready; throws when it ends instead. */
  protected abstract spawn(): Promise<ChildProcess>;
  /** Its last lines. */
  protected abstract lastWords(): string;

  async start(): Promise<void> {
    for (let tries = 1; ; tries++) {
      try {
        const child = await this.spawn();
        this.#child = child;
        this.#meant = false;
        child.once('exit', (code, signal) => {
          if (this.#meant) return;
          this.violations.report(
            'process ended',
            `${this.name} ended by itself (${code ?? signal ?? ''}):\n${this.lastWords()}`,
          );
        });
        return;
      } catch (error) {
        // The database may have been killed under it; whoever runs a fleet starts it again.
        if (tries === 20) throw error;
        await sleep(500);
      }
    }
  }

  async kill(): Promise<void> {
    await this.#end('SIGKILL');
    await this.start();
  }

  async freeze(milliseconds: number): Promise<void> {
    this.#child?.kill('SIGSTOP');
    await sleep(milliseconds);
    this.#child?.kill('SIGCONT');
  }

  stop(): Promise<void> {
    return this.#end('SIGKILL');
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    const child = this.#child;
    this.#meant = true;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill(signal);
    await ended;
  }
}

export class ApiProcess extends Restarted {
  #process: TestProcess | undefined;
  readonly #env: Record<string, string>;

  constructor(name: string, env: Record<string, string>, violations: Violations) {
    super(name, violations);
    this.#env = env;
  }

  /** The same through all starts. */
  get url(): string {
    return this.#process?.url ?? '';
  }

  /** Whether it leads the relay of a type. */
  async leads(type: string): Promise<boolean> {
    const answer = await fetch(`${this.url}/metrics`, { signal: AbortSignal.timeout(500) });
    return (await answer.text()).includes(`syncsets_relay_leader{type="${type}"} 1`);
  }

  protected override async spawn(): Promise<ChildProcess> {
    const port = this.#process ? new URL(this.#process.url).port : '0';
    this.#process = await spawnPlatform('api', { ...this.#env, PORT: port });
    return this.#process.process;
  }

  protected override lastWords(): string {
    return this.#process?.output.slice(-10).join('\n') ?? '';
  }
}

export class WorkerProcess extends Restarted {
  readonly #args: string[];
  readonly #output: string;

  /** @param folder for its journals and its log */
  constructor(name: string, folder: string, args: string[], violations: Violations) {
    super(name, violations);
    this.#output = join(folder, `${name}.log`);
    this.#args = ['--import', 'tsx', join(import.meta.dirname, 'worker.ts'), name, folder, ...args];
  }

  protected override async spawn(): Promise<ChildProcess> {
    const log = openSync(this.#output, 'a');
    const child = spawn(process.execPath, this.#args, { stdio: ['ignore', log, log] });
    await once(child, 'spawn');
    return child;
  }

  protected override lastWords(): string {
    return readFileSync(this.#output, 'utf8').slice(-2_000);
  }
}

export class RabbitNode implements Part {
  readonly name = 'rabbitmq';
  readonly #rabbit: Rabbit;

  private constructor(rabbit: Rabbit) {
    this.#rabbit = rabbit;
  }

  static async start(): Promise<RabbitNode> {
    return new RabbitNode(await startRabbit());
  }

  get url(): string {
    return this.#rabbit.url;
  }

  async kill(): Promise<void> {
    await this.#rabbit.kill();
    await this.#rabbit.start();
  }

  async freeze(milliseconds: number): Promise<void> {
    this.#rabbit.pause();
    await sleep(milliseconds);
    this.#rabbit.resume();
  }

  stop(): Promise<void> {
    return this.#rabbit.close();
  }
}

/** A Postgres that whoever started it starts again when it is killed. */
export class PostgresServer implements Part {
  readonly name = 'postgres';
  readonly #server: EmbeddedPostgres;
  readonly #cluster: string;
  readonly url: string;

  private constructor(server: EmbeddedPostgres, cluster: string, url: string) {
    this.#server = server;
    this.#cluster = cluster;
    this.url = url;
  }

  /** @param more settings, as in postgresql.conf */
  static async start(folder: string, more: Record<string, string> = {}): Promise<PostgresServer> {
    const dataDir = join(folder, 'database');
    mkdirSync(dataDir);
    chmodSync(folder, 0o711);
    chmodSync(dataDir, 0o711);
    // What a killed process has written is in the kernel: only a power cut needs fsync.
    const settings = { fsync: 'off', full_page_writes: 'off', ...more };
    const server = new EmbeddedPostgres({ dataDir, log: () => undefined, settings });
    const { url } = await server.start();
    return new PostgresServer(server, join(dataDir, 'postgres'), url);
  }

  async kill(): Promise<void> {
    const killed = this.#pid();
    process.kill(killed, 'SIGKILL');
    for (let waited = 0; waited < 60_000; waited += 20) {
      if (this.#isReady(killed)) return;
      await sleep(20);
    }
    throw new Error('Postgres did not come back within a minute');
  }

  async freeze(milliseconds: number): Promise<void> {
    const postmaster = this.#pid();
    process.kill(postmaster, 'SIGSTOP');
    // Stopped first, it starts no further ones.
    const { stdout } = await run('ps', ['-A', '-o', 'pid=,ppid=']);
    const children = stdout.split('\n').flatMap(line => {
      const [pid = 0, parent] = line.trim().split(/\s+/).map(Number);
      return parent === postmaster ? [pid] : [];
    });
    for (const pid of children) signal(pid, 'SIGSTOP');
    await sleep(milliseconds);
    for (const pid of [...children, postmaster]) signal(pid, 'SIGCONT');
  }

  stop(): Promise<void> {
    return this.#server.stop();
  }

  #pid(): number {
    return Number(this.#pidFile()[0]);
  }

  #isReady(killed: number): boolean {
    try {
      const lines = this.#pidFile();
      return Number(lines[0]) !== killed && lines[7]?.trim() === 'ready';
    } catch {
      return false;
    }
  }

  #pidFile(): string[] {
    return readFileSync(join(this.#cluster, 'postmaster.pid'), 'utf8').split('\n');
  }
}

/** A session may have ended meanwhile. */
function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // Gone.
  }
}
