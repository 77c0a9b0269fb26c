import {
  Backoff,
  isPlatformError,
  WorkQueue,
  type Claim,
  type Client,
  type ControllerView,
  type MapClaim,
  type RefusedMessage,
  type Resource,
} from '../../client/index.js';
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

/** Seconds of a long poll, and of one that only bridges an outage of RabbitMQ. */
const longPoll = 25;
const bridgePoll = 2;
/** Seconds without a message after which the queue is not believed to be all there is. */
const idleCheck = 2;
/** Most keys in one call. */
const largestClaim = 1000;
/** Milliseconds that a stop waits for the last results. */
const flushTime = 5000;

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
  #queue: WorkQueue | undefined;
  /** There is work that no message told of: the broker is blocked or in trouble, though it keeps its connections. */
  #silent = false;
  #loop: Promise<void> = Promise.resolve();
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
    this.#reporter = new Reporter({ ...shared, fenced: count => this.#metrics.lost(count) });
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
    });
    if (controller.longRunning) {
      this.#share = new Share({
        ...shared,
        active: () => this.#runs.active,
        release: count => this.#runs.release(count),
        changed: () => this.#runs.wake(),
      });
    }
  }

  /** Whether it is registered and has heard from the API in the last half minute. */
  get ready(): boolean {
    return this.#registered && performance.now() - this.#contactAt < 30_000;
  }

  /**
   * Registers the controller and begins to work. Waits for an API that is away.
   * @throws PlatformError the API refuses the registration
   */
  async start(): Promise<void> {
    await this.#register();
    if (this.#isStopping()) return;
    const { broker } = this.#client;
    if (broker) this.#queue = new WorkQueue(broker, this.#controller.name, 2 * this.#slots);
    this.#runs.start();
    this.#lease.start();
    this.#share?.start();
    this.#loop = this.#work();
  }

  /** Stops claiming, waits for work in hand, gives the rest back. */
  stop(): Promise<void> {
    return (this.#stopped ??= this.#stop());
  }

  async #stop(): Promise<void> {
    this.#stopping.abort(new Error('shutting down'));
    await Promise.all([this.#loop, this.#share?.stop()]);
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
    while (!this.#isStopping() && !this.#registered) {
      try {
        this.#accept(await register(this.#controller, this.#client.controllers, this.#log, signal));
      } catch (error) {
        if (this.#isStopping()) return;
        if (isPlatformError(error) && error.status < 500 && error.status !== 429) throw error;
        this.#reachable(false, error);
        await backoff.pause(signal);
      }
    }
  }

  #accept({ claimSeconds }: ControllerView): void {
    this.#claimSeconds = claimSeconds ?? this.#claimSeconds;
    this.#registered = true;
    this.#reachable(true);
  }

  async #work(): Promise<void> {
    const { signal } = this.#stopping;
    const backoff = new Backoff(50, 2000);
    while (!this.#isStopping()) {
      const room = await this.#runs.room(signal);
      const free = Math.min(room, (await this.#bucket?.available(signal)) ?? room);
      if (this.#isStopping()) return;
      try {
        if (!this.#registered) await this.#register();
        const claims = await this.#claim(Math.min(free, largestClaim), signal);
        if (this.#isStopping()) return; // what came with it is released by the goodbye
        backoff.reset();
        this.#reachable(true);
        for (const claim of claims) this.#begin(claim);
      } catch (error) {
        if (this.#isStopping()) return;
        if (isPlatformError(error, 'NotFound')) this.#registered = false;
        else this.#reachable(false, error);
        await backoff.pause(signal, isPlatformError(error) ? (error.retryAfter ?? 0) * 1000 : 0);
      }
    }
  }

  /** Claims by the messages of the queue, or while there is none by long polls. */
  async #claim(max: number, signal: AbortSignal): Promise<Claim[]> {
    const queue = this.#queue;
    if (!queue?.isReady()) return this.#ask({ max, waitSeconds: queue ? bridgePoll : longPoll }, signal);
    const messages = await queue.take(max, { idleSeconds: this.#silent ? 0 : idleCheck, signal });
    if (this.#isStopping()) return [];
    if (!messages) {
      if (!queue.isReady()) return [];
      const claims = await this.#ask({ max, waitSeconds: this.#silent ? bridgePoll : 0 }, signal);
      this.#silent = claims.length > 0;
      return claims;
    }
    this.#silent = false;
    let refused: RefusedMessage[] = [];
    try {
      // As many as there were messages, so that the other replicas have their share.
      const request = { max: Math.min(max, Math.max(1, messages.keys.length)), messages: messages.keys };
      const sentAt = performance.now();
      const answer = await this.#client.controllers.claimForMessages(this.#controller.name, {
        worker: this.#name,
        ...request,
        signal,
      });
      this.#lease.extended(sentAt, this.#claimSeconds);
      refused = answer.refused;
      return answer.claims;
    } finally {
      messages.acknowledge(refused);
    }
  }

  async #ask(request: { max: number; waitSeconds?: number }, signal: AbortSignal): Promise<Claim[]> {
    const sentAt = performance.now();
    // A long poll's answer says nothing certain about the lease, which is counted from the question.
    const patient = this.#lease.left > this.#claimSeconds * 500;
    const claims = await this.#client.controllers.claim(this.#controller.name, {
      worker: this.#name,
      ...request,
      ...(patient ? {} : { waitSeconds: 0 }),
      signal,
    });
    this.#lease.extended(sentAt, this.#claimSeconds);
    return claims;
  }

  #begin(claim: Claim): void {
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
    const { controllers } = this.#client;
    for (let start = largestClaim; start < targets.length; start += largestClaim) {
      const chunk = targets.slice(start, start + largestClaim);
      const keys = chunk.filter(target => 'name' in target);
      if (keys.length > 0) await controllers.enqueue(this.#controller.name, { keys });
      for (const target of chunk) if (!('name' in target)) await controllers.enqueue(this.#controller.name, target);
    }
    this.#reporter.add({ token: claim.token, result: 'done', enqueue: targets.slice(0, largestClaim) });
  }

  /** Gives back claims that came with an answer which never arrived. */
  #release(tokens: string[]): void {
    this.#log.warn({ count: tokens.length }, 'found claims whose answer was lost; giving them back');
    for (const token of tokens) this.#reporter.add({ token, result: 'released' });
  }

  // A call, because TypeScript takes a flag that it has looked at for settled.
  #isStopping(): boolean {
    return this.#stopping.signal.aborted;
  }

  /** One line for each outage, not for each attempt. */
  #reachable(now: boolean, error?: unknown): void {
    if (now) this.#contactAt = performance.now();
    if (now !== this.#away) return;
    this.#away = !now;
    if (now) this.#log.info({}, 'the API answers again');
    else this.#log.warn({ error: messageOf(error) }, 'the API is away; waiting for it (API_URL says where it is)');
  }
}
