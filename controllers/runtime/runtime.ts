import { collectDefaultMetrics, Registry } from 'prom-client';
import { pino } from 'pino';
import { connect, type Client, type ConnectOptions, type Resource } from '../../client/index.js';
import type { Controller } from './controller.js';
import { secondsOf, type Duration } from './duration.js';
import { HealthServer } from './health.js';
import type { Log } from './log.js';
import { messageOf } from './message.js';
import { Metrics } from './metrics.js';
import { Bucket } from './rate.js';
import { controllerOf, hasten, isTask, type Task } from './task.js';
import { catchUncaught } from './uncaught.js';
import type { Run } from './run.js';
import { Worker } from './worker.js';

/**
 * How controllers run in this process, and how they reach the platform.
 *
 * @example
 * await run([hello], { url, token, concurrency: 32, healthPort: 8080, drain: '1m' });
 */
export interface RunOptions extends Omit<ConnectOptions, 'log' | 'signal'> {
  /** Keys that each controller works on at once in this process. Default 16. */
  concurrency?: number;
  /** A client to use in place of a connection of its own; it is left open at the end. */
  client?: Client;
  /** Default: pino's, JSON on standard output. */
  log?: Log;
  /** Where `/healthz`, `/readyz` and `/metrics` answer. Default: nowhere. */
  healthPort?: number;
  /** Default 127.0.0.1. */
  healthHost?: string;
  /** Whether SIGTERM and SIGINT stop the controllers. Default true. */
  handleSignals?: boolean;
  /** How long a stop waits for work in hand before it aborts that. Default 30 s. */
  drain?: Duration;
  /**
   * Whether the process goes on when code that a reconcile started fails where nobody catches it (a promise that nobody
   * awaits, a callback of a timer); such errors are logged and counted. Default true; false leaves them to Node, which ends
   * the process.
   */
  catchUncaught?: boolean;
}

/** Controllers at work. */
export interface Running {
  /** Where health and metrics answer, if anywhere. */
  readonly healthPort: number | undefined;
  /**
   * Stops claiming, waits for work in hand (`drain`) and gives the rest back to other replicas. May be called more than once;
   * each waits for the end.
   *
   * @example
   * const running = await run([hello], { handleSignals: false });
   * await running.stop();
   */
  stop(): Promise<void>;
}

/**
 * Runs controllers and tasks until they are stopped. Start as many processes as wanted: they share the work without configuration.
 * Resolves when all are registered; waits for an API that is away.
 *
 * @throws PlatformError the API refuses a registration; TypeError an option is none
 * @example
 * await run([hello], { url: 'http://127.0.0.1:7070', concurrency: 16 });
 */
export async function run(controllers: (Controller | Task)[], options: RunOptions = {}): Promise<Running> {
  const runtime = new Runtime(controllers, options);
  const onSignal = () => void runtime.stop();
  if (options.handleSignals ?? true) for (const name of signals) process.once(name, onSignal);
  runtime.onStop(() => {
    for (const name of signals) process.off(name, onSignal);
  });
  try {
    await runtime.start();
  } catch (error) {
    await runtime.stop();
    throw error;
  }
  return runtime;
}

const signals = ['SIGTERM', 'SIGINT'] as const;

/** Controllers of one process, their client and their health server. */
export class Runtime implements Running {
  readonly #client: Client;
  readonly #ownsClient: boolean;
  readonly #workers: Worker<Resource>[];
  readonly #names: string[];
  readonly #tasks: Task[];
  readonly #log: Log;
  readonly #metrics: Metrics;
  readonly #catches: boolean;
  #uncatch: () => void = () => undefined;
  readonly #health: HealthServer | undefined;
  #healthPort: number | undefined;
  #afterStop: () => void = () => undefined;
  #stopped: Promise<void> | undefined;

  /** @throws TypeError a controller or an option is wrong */
  constructor(given: (Controller | Task)[], options: RunOptions) {
    const { concurrency = 16, client, log = pino(), healthPort, healthHost, drain = 30 } = options;
    const controllers = given.map(one => (isTask(one) ? controllerOf(one) : one));
    if (!Number.isInteger(concurrency) || concurrency < 1)
      throw new TypeError('concurrency must be a whole number from 1');
    for (const controller of controllers) check(controller);
    const register = new Registry();
    const metrics = new Metrics(register);
    const drainTime = secondsOf(drain, 'drain') * 1000;
    this.#metrics = metrics;
    this.#log = log;
    this.#catches = options.catchUncaught ?? true;
    this.#tasks = given.filter(isTask);
    this.#ownsClient = client === undefined;
    const onAnswer: ConnectOptions['onAnswer'] = attempt => {
      metrics.request(attempt);
      options.onAnswer?.(attempt);
    };
    this.#client = client ?? connect({ ...options, log, onAnswer });
    this.#names = controllers.map(controller => controller.name);
    this.#workers = controllers.map(
      controller => new Worker({ controller, client: this.#client, slots: concurrency, drainTime, log, metrics }),
    );
    if (healthPort !== undefined) {
      collectDefaultMetrics({ register });
      this.#health = new HealthServer({ port: healthPort, host: healthHost, register, missing: () => this.#missing() });
    }
  }

  get healthPort(): number | undefined {
    return this.#healthPort;
  }

  /** Called once, after everything has stopped. */
  onStop(afterStop: () => void): void {
    this.#afterStop = afterStop;
  }

  async start(): Promise<void> {
    this.#healthPort = await this.#health?.start();
    if (this.#catches) this.#uncatch = catchUncaught((error, run) => this.#uncaught(error, run));
    await Promise.all(this.#workers.map(worker => worker.start()));
    await Promise.all(this.#tasks.map(task => hasten(this.#client, task, this.#log)));
  }

  stop(): Promise<void> {
    return (this.#stopped ??= this.#stop());
  }

  async #stop(): Promise<void> {
    await Promise.all(this.#workers.map(worker => worker.stop()));
    if (this.#ownsClient) await this.#client.close();
    await this.#health?.stop();
    this.#uncatch();
    this.#afterStop();
  }

  #uncaught(error: unknown, run: Run | undefined): void {
    this.#metrics.uncaught(run?.controller ?? '');
    const fields = { error: messageOf(error), stack: error instanceof Error ? error.stack : undefined };
    if (run) run.log.error(fields, 'code that a reconcile started failed, and nobody caught it');
    else this.#log.error(fields, 'nobody caught an error; runs are marked from now on, so the next one names its run');
  }

  #missing(): string[] {
    if (this.#stopped) return ['stopping'];
    return this.#names.filter((_, at) => this.#workers[at]?.ready !== true);
  }
}

function check(controller: Controller): void {
  const { name, finalizer, deadline, claimSeconds, rateLimit } = controller;
  if (!/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/.test(name)) {
    throw new TypeError(`The controller's name "${name}" must be lower-case letters, digits and dashes, at most 63`);
  }
  if ((finalizer === undefined) !== (controller.finalize === undefined)) {
    throw new TypeError(`${name}: finalizer and finalize belong together`);
  }
  if (rateLimit) new Bucket(rateLimit);
  if (deadline !== undefined) secondsOf(deadline, `${name}: deadline`);
  if (claimSeconds !== undefined && claimSeconds < 2) throw new TypeError(`${name}: claimSeconds must be at least 2`);
}
