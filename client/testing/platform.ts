import { spawn, type ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { chmod, mkdtemp, realpath, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { connect, type Client } from '../connect.js';

/** What a platform for tests is made of. */
export interface PlatformOptions {
  /** A Postgres to use, empty or a platform's. Default: one of its own, which is gone after `stop`. */
  databaseUrl?: string;
  /** RabbitMQ. Default: none. */
  amqpUrl?: string;
  /**
   * Whether the platform's own controllers run too: the garbage collector, which deletes what owners leave behind, and the one
   * that looks after clusters. Default false: nothing but what the test starts changes anything.
   */
  ownControllers?: boolean;
  /** Seconds that a start may take. Default 60: the first one on a machine unpacks and makes a database. */
  deadline?: number;
}

/** A platform that runs beside the test. */
export interface TestPlatform {
  /** Where its API is. */
  readonly url: string;
  /** A client of it, closed by `stop`. */
  readonly client: Client;
  /**
   * What it has logged, for the message of a test that failed: JSON, a line for each entry.
   *
   * @example
   * afterEach(function () {
   *   if (this.currentTest?.state === 'failed') console.error(platform.log());
   * });
   */
  log(): string;
  /**
   * Stops the API and starts it again at the same address with the same data: the outage that controllers must bear.
   *
   * @throws Error it did not start again
   * @example
   * await platform.restart();
   * await platform.client.clusters.patch({ name: 'cluster1' }, { labels: { env: 'prod' } });
   */
  restart(): Promise<void>;
  /**
   * Closes the client, ends the platform and removes its data. May be called more than once.
   *
   * @example
   * after(() => platform.stop());
   */
  stop(): Promise<void>;
}

/**
 * Starts a platform for tests: the real API on a real Postgres, as processes of their own in a temporary directory. Takes 2 to
 * 4 s, so start one for a test file and keep its tests apart by namespaces. It ends with the test process, also when that is
 * killed.
 *
 * @throws Error it did not start, with what it said
 * @example
 * const platform = await startPlatform();
 * const running = await run([hello], { client: platform.client, handleSignals: false });
 * await platform.client.clusters.create({ name: 'cluster1', namespace: 'test' });
 * await until(() => platform.client.clusters.read({ name: 'cluster1', namespace: 'test' }), { what: 'the cluster' });
 * await running.stop();
 * await platform.stop();
 */
export async function startPlatform(options: PlatformOptions = {}): Promise<TestPlatform> {
  const folder = await mkdtemp(join(tmpdir(), 'syncsets-kit-'));
  // Started by root, Postgres runs as another user, who has to pass; what is in there is its owner's alone.
  await chmod(folder, 0o711);
  const output: string[] = [];
  let platform: Process | undefined;
  try {
    platform = await Process.start(options, { DATA_DIR: folder, PORT: '0' }, output);
  } catch (error) {
    await remove(folder);
    throw error;
  }
  const { url } = platform;
  const client = connect({ url, amqpUrl: options.amqpUrl });
  let stopped: Promise<void> | undefined;
  const stop = async () => {
    await client.close();
    await platform?.stop();
    await remove(folder);
  };
  return {
    url,
    client,
    log: () => output.join('\n'),
    restart: async () => {
      await platform?.stop();
      platform = await Process.start(options, { DATA_DIR: folder, PORT: new URL(url).port }, output);
    },
    stop: () => (stopped ??= stop()),
  };
}

/** Removes the data; where that user could not pass, the database is elsewhere and only linked. */
async function remove(folder: string): Promise<void> {
  const database = await realpath(join(folder, 'postgres')).catch(() => folder);
  for (const one of [database, folder]) await rm(one, { recursive: true, force: true });
}

/** One key for all: a platform on a database that an earlier one has used must read its secrets. */
const encryptionKey = randomBytes(32).toString('base64');

/**
 * Runs its arguments as a child and ends it when its own input ends, so when whoever holds the other end is gone, however
 * that was. Who ends in order says a word before, and removes the data by itself.
 */
const guard = `exec 3<&0
"$@" </dev/null 3<&- &
child=$!
{
  word=$(cat <&3)
  kill -TERM $child
  if [ -z "$word" ]; then
    while kill -0 $child; do sleep 0.1; done
    rm -rf "$(readlink -f "$DATA_DIR/postgres")" "$DATA_DIR"
  fi
} >/dev/null 2>&1 &
exec 3<&-
wait $child`;

class Process {
  readonly url: string;
  readonly #child: ChildProcess;
  readonly #ended: Promise<unknown>;

  private constructor(url: string, child: ChildProcess, ended: Promise<unknown>) {
    this.url = url;
    this.#child = child;
    this.#ended = ended;
  }

  static async start(
    { databaseUrl, amqpUrl, ownControllers = false, deadline = 60 }: PlatformOptions,
    settings: Record<string, string>,
    output: string[],
  ): Promise<Process> {
    const child = spawn('sh', ['-c', guard, 'sh', process.execPath, ...program(), ownControllers ? 'run' : 'api'], {
      env: {
        // Not a setting: what the child needs to find its programs.
        // eslint-disable-next-line no-restricted-properties
        PATH: process.env['PATH'],
        LOG_FORMAT: 'json',
        ...settings,
        ...(databaseUrl === undefined ? {} : { DATABASE_URL: databaseUrl, ENCRYPTION_KEY: encryptionKey }),
        ...(amqpUrl === undefined ? {} : { AMQP_URL: amqpUrl }),
      },
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    const ended = new Promise(resolve => child.once('exit', resolve));
    // The guard may be gone before it has heard of the end.
    child.stdin.on('error', () => undefined);
    const url = await new Promise<string>((resolve, reject) => {
      const fail = (problem: string) => {
        child.stdin.end('in order');
        reject(new Error(`The platform ${problem}. It said:\n${output.slice(-20).join('\n')}`));
      };
      const timer = setTimeout(() => fail(`did not start in ${deadline} s`), deadline * 1000);
      child.once('error', reject);
      child.once('close', () => fail('ended at its start'));
      for (const stream of [child.stdout, child.stderr]) {
        createInterface({ input: stream }).on('line', line => {
          output.push(line);
          if (!line.startsWith('ready: ')) return;
          clearTimeout(timer);
          resolve(line.slice('ready: '.length));
        });
      }
      child.once('exit', () => clearTimeout(timer));
    });
    return new Process(url, child, ended);
  }

  async stop(): Promise<void> {
    this.#child.stdin?.end('in order');
    await this.#ended;
  }
}

/** The program beside the compiled client, or among the sources, where tsx has to load it. */
function program(): string[] {
  const compiled = fileURLToPath(new URL('../../main.js', import.meta.url));
  return existsSync(compiled) ? [compiled] : ['--import', 'tsx', compiled.replace(/js$/, 'ts')];
}
