import { spawn, type ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdir, mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { text } from 'node:stream/consumers';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { freePort } from './ports.js';
import { advice, findInstallation, linkPlugins } from './rabbitmq-package.js';
import { until } from './until.js';

/** A RabbitMQ node of one test's own, which may be treated badly. */
export interface Rabbit {
  /** The same through every stop and start. */
  url: string;
  /** With TLS, where the node was started with a certificate. */
  tlsUrl: string;
  /** Its Erlang name. */
  name: string;
  /** Where its log and data lie, for a look at a failure. */
  directory: string;
  /** Starts a node that was stopped or killed, with its data: about 4 s. */
  start(): Promise<void>;
  /** Ends it in order, about 1 s: the broker closes its connections and queues. */
  stop(): Promise<void>;
  /**
   * kill -9, of a broker whose declarations have reached the disk. RabbitMQ keeps those of the last 2 s in memory, and a quorum
   * queue that is lost halfway answers nothing for 65 s (3.10); confirmed messages need no such care. A frozen node is killed as it is.
   */
  kill(): Promise<void>;
  /** Freezes it: connections stay open and nothing answers. */
  pause(): void;
  resume(): void;
  /** Evaluates Erlang on the node, which `erl_call` does in 10 ms and rabbitmqctl in a second; returns what it answers. */
  evaluate(expression: string): Promise<string>;
  /** Ends it for good and removes its data. May be called again. */
  close(): Promise<void>;
}

/** How a node is to be. */
interface RabbitOptions {
  tls?: { cert: string; key: string };
  /** The cluster that it belongs to: its own name in it, the names of all, what they share. */
  cluster?: { name: string; members: string[]; epmd: number; cookie: string };
}

let shared: Promise<{ url: string; close?: () => Promise<void> }> | undefined;

/** The one broker of a mocha run: the one at AMQP_URL when it answers, else a private node, started by the first call. */
export async function sharedRabbit(): Promise<{ url: string }> {
  shared ??= (async () => {
    const given = process.env.AMQP_URL;
    if (given) {
      const { hostname, port, protocol } = new URL(given);
      if (await answers(hostname, Number(port) || (protocol === 'amqps:' ? 5671 : 5672))) return { url: given };
      console.error('AMQP_URL does not answer: the tests start a RabbitMQ node of their own');
    }
    return startRabbit();
  })();
  const { url } = await shared;
  return { url };
}

/** Ends the shared broker when it is ours. Called once, after the last test. */
export async function stopSharedRabbit(): Promise<void> {
  const started = await shared?.catch(() => undefined);
  shared = undefined;
  await started?.close?.();
}

/**
 * Starts a private RabbitMQ node from the installed package, without plugins: its own ports, data, log, cookie and epmd. It
 * runs as the user that we are, root too, and needs nothing that the package set up for its system service. When this process
 * is killed, the node ends too.
 *
 * The package's start script is not used: it puts every plugin on Erlang's code path, where each module is looked for in turn.
 * With only what `rabbit` depends on there, the node starts in 3.4–5 s instead of 6.7–7.9 s (2 cores).
 *
 * @throws Error saying how to get RabbitMQ when it is not installed
 */
export async function startRabbit(options: RabbitOptions = {}): Promise<Rabbit> {
  const home = await findInstallation();
  const directory = await mkdtemp(join(tmpdir(), 'syncsets-rabbitmq-'));
  const plugins = await linkPlugins(join(home, 'plugins'), join(directory, 'plugins'));
  const port = await freePort();
  const distribution = await freePort();
  const ownEpmd = await freePort();
  const tlsPort = await freePort();
  const { name = `test-${randomBytes(4).toString('hex')}@localhost`, members, epmd, cookie } = options.cluster ?? {};
  for (const name of ['data', 'log']) await mkdir(join(directory, name));
  const settings = [`{tcp_listeners, [{"127.0.0.1", ${port}}]}`];
  for (const [name, pem] of Object.entries(options.tls ?? {})) await writeFile(join(directory, `${name}.pem`), pem);
  if (options.tls) {
    const files = `{certfile, "${directory}/cert.pem"}, {keyfile, "${directory}/key.pem"}`;
    settings.push(`{ssl_listeners, [{"127.0.0.1", ${tlsPort}}]}`, `{ssl_options, [${files}]}`);
  }
  if (members) {
    const names = members.map(member => `'${member}'`).join(', ');
    settings.push(`{cluster_nodes, {[${names}], disc}}`, '{cluster_partition_handling, pause_minority}');
  }
  if (cookie) await writeFile(join(directory, '.erlang.cookie'), cookie, { mode: 0o400 });
  await writeFile(join(directory, 'rabbitmq.config'), `[{rabbit, [${settings.join(', ')}]}].\n`);
  await writeFile(join(directory, 'enabled_plugins'), '[].\n');
  const environment = {
    PATH: process.env.PATH,
    HOME: directory,
    ERL_LIBS: plugins,
    ERL_EPMD_PORT: String(epmd ?? ownEpmd),
    RABBITMQ_HOME: home,
    RABBITMQ_NODENAME: name,
    RABBITMQ_NODE_PORT: String(port),
    RABBITMQ_DIST_PORT: String(distribution),
    RABBITMQ_MNESIA_BASE: join(directory, 'data'),
    RABBITMQ_LOG_BASE: join(directory, 'log'),
    RABBITMQ_CONFIG_FILE: join(directory, 'rabbitmq.config'),
    RABBITMQ_CONF_ENV_FILE: join(directory, 'no-rabbitmq-env.conf'),
    RABBITMQ_ENABLED_PLUGINS_FILE: join(directory, 'enabled_plugins'),
    RABBITMQ_PID_FILE: join(directory, 'pid'),
  };
  const node = new Node(directory, port, tlsPort, environment);
  try {
    await node.start();
  } catch (error) {
    await node.close();
    throw error;
  }
  return node;
}

/**
 * Starts a cluster of three nodes, about 12 s. A node that sees fewer than two pauses, as RabbitMQ recommends for clusters.
 * Quorum queues have a replica on each.
 */
export async function startRabbitCluster(): Promise<Rabbit[]> {
  const epmd = await freePort();
  const cookie = randomBytes(10).toString('hex');
  const cluster = randomBytes(4).toString('hex');
  const members = [1, 2, 3].map(number => `test-${cluster}-${number}@localhost`);
  // At once: from 4.0 on the nodes wait for each other and begin with the same one.
  const started = await Promise.allSettled(
    members.map(name => startRabbit({ cluster: { name, members, epmd, cookie } })),
  );
  const nodes = started.flatMap(result => (result.status === 'fulfilled' ? [result.value] : []));
  const failed = started.find(result => result.status === 'rejected');
  if (!failed) return nodes;
  await Promise.all(nodes.map(node => node.close()));
  throw failed.reason;
}

class Node implements Rabbit {
  readonly url: string;
  readonly tlsUrl: string;
  readonly name: string;
  readonly directory: string;
  readonly #port: number;
  readonly #environment: NodeJS.ProcessEnv;
  #epmd: ChildProcess | undefined;
  #broker: ChildProcess | undefined;
  #frozen = false;

  constructor(directory: string, port: number, tlsPort: number, environment: NodeJS.ProcessEnv) {
    this.directory = directory;
    this.name = environment.RABBITMQ_NODENAME ?? '';
    this.url = `amqp://guest:guest@127.0.0.1:${port}`;
    this.tlsUrl = `amqps://guest:guest@127.0.0.1:${tlsPort}`;
    this.#port = port;
    this.#environment = environment;
  }

  async start(): Promise<void> {
    if (runs(this.#broker)) return;
    // Erlang nodes find each other through epmd. Were there none, the node would start one that outlives it.
    const epmd = this.#environment.ERL_EPMD_PORT ?? '';
    if (!runs(this.#epmd)) this.#epmd = await this.#spawn('epmd', ['-port', epmd, '-address', '127.0.0.1']);
    await until(() => accepts('127.0.0.1', Number(epmd)), { what: 'epmd to listen' });
    // What the package's script passes, less what is for big machines.
    const flags =
      '-noinput -s rabbit boot -boot start_sasl +W w +sbwt none +sbwtdcpu none +sbwtdio none -start_epmd false';
    const kernel = [
      '-kernel',
      'inet_dist_use_interface',
      '{127,0,0,1}',
      '-kernel',
      'prevent_overlapping_partitions',
      'false',
    ];
    const quiet = ['-syslog', 'logger', '[]', '-syslog', 'syslog_error_logger', 'false'];
    const broker = await this.#spawn('erl', [...flags.split(' '), ...kernel, ...quiet]);
    this.#broker = broker;
    this.#frozen = false;
    const ready = async () => !runs(broker) || (await answers('127.0.0.1', this.#port));
    await until(ready, { what: 'RabbitMQ to answer', deadline: 60_000 });
    if (!runs(broker)) throw new Error(`RabbitMQ ended while it started: ${await this.#lastWords()}`);
  }

  async stop(): Promise<void> {
    await end(this.#broker, 'SIGTERM');
  }

  async kill(): Promise<void> {
    if (runs(this.#broker) && !this.#frozen) await this.#settle();
    await end(this.#broker, 'SIGKILL');
  }

  pause(): void {
    this.#frozen = true;
    this.#broker?.kill('SIGSTOP');
  }

  resume(): void {
    this.#frozen = false;
    this.#broker?.kill('SIGCONT');
  }

  async close(): Promise<void> {
    await end(this.#broker, 'SIGKILL');
    await end(this.#epmd, 'SIGKILL');
    // Helpers of the killed node may write a last time: retried by rm itself.
    await rm(this.directory, { recursive: true, force: true, maxRetries: 10 });
  }

  async evaluate(expression: string): Promise<string> {
    const cookie = await readFile(join(this.directory, '.erlang.cookie'), 'utf8');
    const args = ['-n', this.name, '-c', cookie, '-e'];
    const call = spawn('erl_call', args, { env: this.#environment, stdio: ['pipe', 'pipe', 'ignore'], timeout: 5_000 });
    call.on('error', () => undefined);
    call.stdin.on('error', () => undefined);
    call.stdin.end(`${expression}.\n`);
    return text(call.stdout).catch(() => '');
  }

  /** Makes the node write down its metadata; where erl_call is missing, waits as long as it takes by itself. */
  async #settle(): Promise<void> {
    // erl_call exits with 0 whatever the node answers.
    const answer = await this.evaluate('[dets:sync(Table) || Table <- dets:all()], mnesia:dump_log()');
    if (!answer.startsWith('{ok, dumped')) await sleep(3_000);
  }

  async #spawn(command: string, args: string[]): Promise<ChildProcess> {
    const output = await open(join(this.directory, 'output'), 'a');
    try {
      // A group of its own: Ctrl-C in a terminal is for mocha, whose teardown comes here.
      const stdio = ['ignore', output.fd, output.fd] as const;
      const child = spawn(command, args, {
        cwd: this.directory,
        env: this.#environment,
        detached: true,
        stdio: [...stdio],
      });
      const watchdog = ['-c', 'read -r word || kill -9 "$1"', 'rabbitmq-watchdog', String(child.pid)];
      const guard = spawn('/bin/sh', watchdog, { detached: true, stdio: ['pipe', 'ignore', 'ignore'] });
      child.once('exit', () => guard.stdin.end('ended\n'));
      await once(child, 'spawn').catch(() => Promise.reject(new Error(`${command} cannot be run. ${advice}`)));
      return child;
    } finally {
      await output.close();
    }
  }

  async #lastWords(): Promise<string> {
    return (await readFile(join(this.directory, 'output'), 'utf8')).slice(-2_000);
  }
}

function runs(child: ChildProcess | undefined): boolean {
  return child !== undefined && child.exitCode === null && child.signalCode === null;
}

async function end(child: ChildProcess | undefined, signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
  if (!child || !runs(child)) return;
  const ended = once(child, 'exit');
  // A frozen process takes no SIGTERM.
  if (signal === 'SIGTERM') child.kill('SIGCONT');
  child.kill(signal);
  const impatience = setTimeout(() => child.kill('SIGKILL'), 20_000);
  await ended;
  clearTimeout(impatience);
}

function accepts(host: string, port: number): Promise<boolean> {
  return talk(host, port, '');
}

/** Whether an AMQP 0-9-1 broker greets: its first frame is a method frame (type 1). */
function answers(host: string, port: number): Promise<boolean> {
  return talk(host, port, 'AMQP\0\0\x09\x01');
}

function talk(host: string, port: number, greeting: string): Promise<boolean> {
  return new Promise(resolve => {
    const socket = connect({ host, port, timeout: 2_000 });
    const result = (good: boolean) => {
      socket.destroy();
      resolve(good);
    };
    socket.once('connect', () => (greeting ? socket.write(greeting, 'latin1') : result(true)));
    socket.once('data', data => result(data[0] === 1));
    for (const event of ['error', 'timeout', 'close']) socket.once(event, () => result(false));
  });
}
