import {
  Backoff,
  isPlatformError,
  WorkQueue,
  type Claim,
  type Client,
  type ControllerView,
  type MapClaim,
  type Resource,
} from '../../client/index.js';
import { remedyFor } from './away.js';
import { Claimer } from './claimer.js';
import type { Controller } from './controller.js';
import { Lease } from './lease.js';
import type { Log } from './log.js';
import { targetsOf } from './mapping.js';
import type { Metrics, WorkerMetrics } from './metrics.js';
import { register, workerName } from './registration.js';
import { Reporter } from './reporter.js';
import { messageOf } from './message.js';
import { Bucket } from './rate.js';
import { Runs } from './runs.js';
import { Share } from './share.js';

/** Most keys that a report enqueues. */
const largestReport = 1000;
/** Milliseconds without a word of the API after which a worker counts as not ready. */
const longestSilence = 30_000;
/** So many tokens of claims that were given back are remembered: those of ten of the largest answers. */
const mostReturned = 10_000;
/** Milliseconds that a stop waits for the last results. */
const flushTime = 5000;

/** What a worker works on, and with what. */
export interface WorkerOptions<T extends Resource> {
  controller: Controller<T>;
  client: Client;
  /** Keys worked on at once. */
  slots: number;
  /** Milliseconds that a stop waits for work in hand. */
  drainTime: number;
  log: Log;
  metrics: Metrics;
}

/** Works for one controller: claims keys, runs them, reports what became of them. */
export class Worker<T extends Resource> {
  readonly #controller: Controller<T>;
  readonly #client: Client;
  readonly #slots: number;
  readonly #drainTime: number;
  readonly #log: Log;
  readonly #metrics: WorkerMetrics;
  readonly #name = workerName();
  readonly #stopping = new AbortController();
  readonly #reporter: Reporter;
  readonly #runs: Runs<T>;
  readonly #lease: Lease;
  readonly #bucket: Bucket | undefined;
  /** Of long-running controllers. */
  readonly #share: Share | undefined;
  /** Tokens of maps that are being turned into keys. */
  readonly #maps = new Set<string>();
  /** Tokens of claims that were given back before their answer came, if it ever does; the oldest first. */
  readonly #returned = new Set<string>();
  #queue: WorkQueue | undefined;
  #claimer: Claimer | undefined;
  #stopped: Promise<void> | undefined;
  #registered = false;
  #contactAt = -Infinity;
  #claimSeconds: number;
  #away = false;

  constructor({ controller, client, slots, drainTime, log, metrics }: WorkerOptions<T>) {
    this.#controller = controller;
    this.#client = client;
    this.#slots = slots;
    this.#drainTime = drainTime;
    this.#bucket = controller.rateLimit && new Bucket(controller.rateLimit);
    this.#log = log.child({ controller: controller.name });
    this.#claimSeconds = controller.claimSeconds ?? 15;
    const claimSeconds = () => this.#claimSeconds;
    const shared = { controllers: client.controllers, controller: controller.name, log: this.#log };
    this.#metrics = metrics.of({
      controller: controller.name,
      slots,
      active: () => this.#runs.active,
      hung: () => this.#runs.hung,
      unfinished: () => this.#runs.unfinished(),
    });
    this.#reporter = new Reporter({
      ...shared,
      fenced: count => this.#metrics.lost(count),
      company: () => this.#claimer?.near === true,
    });
    this.#lease = new Lease({
      ...shared,
      worker: this.#name,
      claimSeconds,
      events: {
        tokens: () => this.#runs.tokens(),
        known: () => new Set([...this.#runs.tokens(), ...this.#maps, ...this.#reporter.tokens()]),
        lost: tokens => this.#runs.lose(tokens),
        changed: tokens => this.#runs.change(tokens),
        unknown: tokens => this.#release(tokens),
        forgotten: () => (this.#registered = false),
        heard: () => (this.#contactAt = performance.now()),
        reachable: (now, error) => {
          if (now) this.#log.info({}, 'the lease is renewed again');
          else this.#log.warn({ error: messageOf(error) }, 'the lease cannot be renewed');
        },
      },
    });
    this.#runs = new Runs<T>({
      controller,
      slots,
      surroundings: { controller: controller.name, client, log: this.#log, lease: this.#lease, claimSeconds },
      metrics: this.#metrics,
      report: result => this.#reporter.add(result),
      limit: () => this.#share?.limit ?? slots,
      // A key that a rate limit holds up, or runs that never end, is left to others.
      ahead: !this.#bucket && controller.longRunning !== true,
    });
    if (controller.longRunning) {
      this.#share = new Share({
        ...shared,
        active: () => this.#runs.active,
        release: count => this.#runs.release(count),
        changed: () => this.#runs.room.look(),
      });
    }
  }

  /** Whether it is registered and has heard from the API in the last half minute. */
  get ready(): boolean {
    return this.#registered && this.silence < longestSilence;
  }

  /** Milliseconds since it last heard from the API, by any call: a worker whose slots are all busy claims nothing, but renews. */
  get silence(): number {
    return performance.now() - this.#contactAt;
  }

  /**
   * Registers the controller and begins to work. Waits for an API that is away.
   * @throws PlatformError the API refuses the registration
   */
  async start(): Promise<void> {
    await this.#register();
    if (this.#stopping.signal.aborted) return;
    const { broker } = this.#client;
    if (broker) this.#queue = new WorkQueue(broker, this.#controller.name, 2 * this.#slots);
    this.#runs.start();
    this.#lease.start();
    this.#share?.start();
    this.#claimer = new Claimer({
      client: this.#client,
      controller: this.#controller.name,
      worker: this.#name,
      claimSeconds: () => this.#claimSeconds,
      lease: this.#lease,
      reporter: this.#reporter,
      bucket: this.#bucket,
      queue: this.#queue,
      room: this.#runs.room,
      begin: claim => this.#begin(claim),
      register: () => this.#register(),
      forgotten: () => (this.#registered = false),
      reachable: (now, error) => this.#reachable(now, error),
    });
    this.#claimer.start();
  }

  /** Stops claiming, waits for work in hand, gives the rest back. */
  stop(): Promise<void> {
    return (this.#stopped ??= this.#stop());
  }

  async #stop(): Promise<void> {
    this.#stopping.abort(new Error('shutting down'));
    await Promise.all([this.#claimer?.stop(), this.#share?.stop()]);
    // Before the wait, so that others get at once what came for us.
    await this.#queue?.close();
    await this.#runs.drain(this.#drainTime);
    await this.#reporter.flush(flushTime);
    await this.#lease.stop();
    if (!this.#registered) return;
    await this.#client.controllers.leave(this.#controller.name, this.#name).catch((error: unknown) => {
      this.#log.warn({ error: messageOf(error) }, 'could not say goodbye; what is left is free when the lease ends');
    });
  }

  /** Registers until it succeeds, or a stop. */
  async #register(): Promise<void> {
    const { signal } = this.#stopping;
    const backoff = new Backoff(100, 2000);
    while (!signal.aborted && !this.#registered) await this.#tryToRegister(backoff, signal);
  }

  async #tryToRegister(backoff: Backoff, signal: AbortSignal): Promise<void> {
    try {
      this.#accept(await register(this.#controller, this.#client.controllers, this.#log, signal));
    } catch (error) {
      if (signal.aborted) return;
      if (isPlatformError(error) && error.status < 500 && error.status !== 429) throw error;
      this.#reachable(false, error);
      await backoff.pause(signal);
    }
  }

  #accept({ claimSeconds }: ControllerView): void {
    this.#claimSeconds = claimSeconds ?? this.#claimSeconds;
    this.#registered = true;
    this.#reachable(true);
  }

  #begin(claim: Claim): void {
    // The answer was not lost but late, and others may have the key by now.
    if (this.#returned.has(claim.token)) return;
    if (claim.kind === 'key') {
      if (this.#share && this.#runs.active >= this.#share.limit) {
        // Asked for before a replica joined; a long poll takes up to 25 s.
        this.#reporter.add({ token: claim.token, result: 'released' });
        return;
      }
      this.#bucket?.take(1);
      this.#runs.begin(claim);
      return;
    }
    const { token, type } = claim;
    this.#maps.add(token);
    void this.#map(claim)
      .catch((error: unknown) => {
        this.#log.error({ type, error: messageOf(error) }, 'mapping a watched type failed');
        this.#reporter.add({ token, result: 'error', message: messageOf(error) });
      })
      .finally(() => this.#maps.delete(token));
  }

  /** Reports the keys that a map's events mean. One report takes 1,000; what is beyond that is queued before it. */
  async #map(claim: MapClaim): Promise<void> {
    const targets = targetsOf(this.#controller, claim);
    const { priority } = claim;
    const { controllers } = this.#client;
    for (let start = largestReport; start < targets.length; start += largestReport) {
      const chunk = targets.slice(start, start + largestReport);
      const keys = chunk.filter(target => 'name' in target);
      if (keys.length > 0) await controllers.enqueue(this.#controller.name, { keys, priority });
      for (const target of chunk)
        if (!('name' in target)) await controllers.enqueue(this.#controller.name, { ...target, priority });
    }
    this.#reporter.add({ token: claim.token, result: 'done', enqueue: targets.slice(0, largestReport) });
  }

  /** Gives back claims that came with an answer which has not arrived. If it still does, they are not run. */
  #release(tokens: string[]): void {
    this.#log.warn({ count: tokens.length }, 'found claims whose answer was lost; giving them back');
    for (const token of tokens) {
      this.#returned.add(token);
      this.#reporter.add({ token, result: 'released' });
    }
    for (const oldest of this.#returned) {
      if (this.#returned.size <= mostReturned) break;
      this.#returned.delete(oldest);
    }
  }

  /** One line for each outage, not for each attempt. */
  #reachable(now: boolean, error?: unknown): void {
    if (now) this.#contactAt = performance.now();
    if (now !== this.#away) return;
    this.#away = !now;
    if (now) this.#log.info({}, 'the API answers again');
    else this.#log.warn({ error: messageOf(error), remedy: remedyFor(error) }, 'the API is away; waiting for it');
  }
}
