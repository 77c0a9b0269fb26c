import {
  Backoff,
  isPlatformError,
  pause,
  type Claim,
  type Client,
  type RefusedMessage,
  type WorkKey,
  type WorkQueue,
} from '../../client/index.js';
import type { Lease } from './lease.js';
import type { Bucket } from './rate.js';
import type { Reporter } from './reporter.js';
import type { Room } from './room.js';

/** Seconds of a long poll, and of one that only bridges an outage of RabbitMQ. */
const longPoll = 25;
const bridgePoll = 2;
/** Of one besides the messages; shorter, because for as long as it may last lost messages are not looked for otherwise. */
const standingPoll = 10;
/** Milliseconds after which one that waits has been looked for by the server. */
const lookedFor = 1_000;
/** Seconds without a message after which the queue is not believed to be all there is. */
const idleCheck = 2;
/** Most keys in one call. */
const largestClaim = 1000;
/** Milliseconds between claims that do not wait because the lease is about to end, or has. */
const impatience = 50;
/** Claims for messages that are under way at a time: while one is answered, the messages of the next one come. */
const mostUnderway = 2;
/** Milliseconds after a claim for messages in which the next one is near. */
const messagesNear = 20;

export interface ClaimerOptions {
  client: Client;
  controller: string;
  worker: string;
  claimSeconds: () => number;
  lease: Pick<Lease, 'left' | 'claimed' | 'claimFailed' | 'doubt'>;
  reporter: Reporter;
  bucket: Bucket | undefined;
  /** The controller's queue on RabbitMQ; undefined: long polls alone. */
  queue: Pick<WorkQueue, 'isReady' | 'take'> | undefined;
  /** How much to claim, and when. */
  room: Pick<Room, 'take' | 'settle'>;
  /** Where claimed keys go to. */
  begin: (claim: Claim) => void;
  /** Registers the controller unless the server knows it. @throws PlatformError the API refuses it for good */
  register: () => Promise<void>;
  /** The server does not know the controller. */
  forgotten: () => void;
  reachable: (now: boolean, error?: unknown) => void;
}

/**
 * Claims keys as there is room for them. While there is more work than a claim brings, two claims are under way in turn: one is
 * answered while the keys of the other run. Of claims for messages there are two as well: a message that comes while one is answered
 * waited 9 ms for the answer, of 39 ms from a write to its reconcile (500 writes a second, two busy cores). Besides them one long
 * poll waits for the keys of the replica that it asks, which sends no message for what a poll takes: 10 ms less.
 */
export class Claimer {
  readonly #options: ClaimerOptions;
  readonly #stopping = new AbortController();
  #loops: Promise<unknown> = Promise.resolve();
  /** Whether the last claim brought all that it asked for. */
  #plenty = false;
  /** Has the second loop look whether there is something to do for it. */
  #wakeSecond: () => void = () => undefined;
  /** Since when the second loop waits for keys without a message, and when an answer to it left none: by `performance.now()`. */
  #waitsSince: number | undefined;
  #emptyAt = -Infinity;
  /** Loops that are about to claim. */
  #near = 0;
  #messagesAt = -Infinity;
  /** There is work that no message told of: the broker is blocked or in trouble, though it keeps its connections. */
  #silent = false;

  constructor(options: ClaimerOptions) {
    this.#options = options;
  }

  /** Whether the next claim is made within milliseconds, so that results may wait for it. */
  get near(): boolean {
    return this.#near > 0 || performance.now() - this.#messagesAt < messagesNear;
  }

  /** Whether messages come at present. */
  get #hears(): boolean {
    return this.#options.queue?.isReady() === true;
  }

  start(): void {
    this.#loops = Promise.all([this.#claim(), this.#claimMore()]);
  }

  /** Ends its calls; what they may have claimed is given back with the worker's goodbye. */
  async stop(): Promise<void> {
    this.#stopping.abort(new Error('shutting down'));
    this.#wakeSecond();
    await this.#loops;
  }

  /** The first loop: one turn after the other, but for those that claim for messages. */
  async #claim(): Promise<void> {
    const backoff = new Backoff(50, 2000);
    // Of two at a bucket both would see the same permission in it before either takes that.
    const most = this.#options.bucket ? 1 : mostUnderway;
    const underway = new Set<Promise<void>>();
    while (!this.#stopping.signal.aborted) {
      await new Promise<void>(goOn => {
        const turn = this.#turn(backoff, goOn).finally(() => {
          underway.delete(turn);
          goOn();
        });
        underway.add(turn);
      });
      if (underway.size >= most) await Promise.race(underway);
    }
    await Promise.all(underway);
  }

  /**
   * The second loop: where messages come, it waits for keys without one; else it works while the first loop finds more than it can
   * take. Not where there is a bucket.
   */
  async #claimMore(): Promise<void> {
    if (this.#options.bucket) return;
    const backoff = new Backoff(50, 2000);
    while (!this.#stopping.signal.aborted) {
      if (this.#plenty || this.#hears) await this.#turn(backoff);
      else await new Promise<void>(resolve => (this.#wakeSecond = resolve));
    }
  }

  /** @param goOn called when messages came: the next ones may be waited for; without it this is a turn of the second loop */
  async #turn(backoff: Backoff, goOn?: () => void): Promise<void> {
    const { bucket, begin, lease, register, room, forgotten, reachable } = this.#options;
    const { signal } = this.#stopping;
    const hears = this.#hears;
    const stands = hears && !goOn;
    this.#near++;
    const taking = room.take(signal, !hears || bucket ? 'all' : stands ? 'smaller' : 'larger');
    let free = (await (stands ? this.#far(taking) : taking)) ?? 0;
    const took = (keys: number) => {
      room.settle(free - keys);
      free = keys;
      goOn?.();
    };
    try {
      const allowed = Math.min(free, (await this.#far(bucket?.available(signal))) ?? free, largestClaim);
      signal.throwIfAborted();
      await this.#far(register());
      // The queue came or went while this waited: the second loop has another task by now.
      if (!goOn && this.#hears !== hears) return;
      const claims = await (stands ? this.#stand(allowed, signal) : this.#ask(allowed, took, signal));
      signal.throwIfAborted(); // what came with it is released by the goodbye
      if (!claims) return;
      backoff.reset();
      reachable(true);
      for (const claim of claims) begin(claim);
      this.#plenty = claims.length >= allowed;
      if (this.#plenty) this.#wakeSecond();
    } catch (error) {
      if (signal.aborted) return;
      this.#plenty = false;
      lease.claimFailed();
      if (isPlatformError(error, 'NotFound')) forgotten();
      else reachable(false, error);
      await this.#far(backoff.pause(signal, isPlatformError(error) ? (error.retryAfter ?? 0) * 1000 : 0));
    } finally {
      room.settle(free);
      // What runs and ends within this turn of the event loop is reported with the next claim.
      await new Promise<void>(resolve => setImmediate(resolve));
      this.#near--;
    }
  }

  /** Waits for what may take long, so that no result waits with it. */
  async #far<V>(wait: Promise<V> | undefined): Promise<V | undefined> {
    if (!wait) return undefined;
    this.#near--;
    try {
      return await wait;
    } finally {
      this.#near++;
    }
  }

  /**
   * Claims by the messages of the queue, or while there is none by long polls.
   *
   * @param took told for how many keys there are messages
   * @returns undefined: there was no need for a call
   */
  async #ask(max: number, took: (keys: number) => void, signal: AbortSignal): Promise<Claim[] | undefined> {
    const { queue } = this.#options;
    if (!queue?.isReady()) return this.#poll({ max, waitSeconds: queue ? bridgePoll : longPoll }, signal);
    this.#wakeSecond();
    const messages = await this.#far(queue.take(max, { idleSeconds: this.#silent ? 0 : idleCheck, signal }));
    if (!messages) {
      signal.throwIfAborted();
      if (!queue.isReady()) return undefined;
      if (this.#isLookedFor) {
        this.#silent = false;
        return undefined;
      }
      const claims = await this.#poll({ max, waitSeconds: this.#silent ? bridgePoll : 0 }, signal);
      this.#silent = claims.length > 0;
      return claims;
    }
    this.#silent = false;
    this.#messagesAt = performance.now();
    let refused: RefusedMessage[] = [];
    try {
      // Within, because these are acknowledged at a stop too: their keys stay queued, and nobody else gives the messages up.
      signal.throwIfAborted();
      // As many as there were messages, so that the other replicas have their share.
      const request = { max: Math.min(max, Math.max(1, messages.keys.length)), messages: messages.keys };
      took(request.max);
      const answer = await this.#call(request, signal);
      refused = answer.refused;
      return answer.claims;
    } finally {
      messages.acknowledge(refused);
    }
  }

  /** A long poll besides the messages. */
  async #stand(max: number, signal: AbortSignal): Promise<Claim[]> {
    if (this.#patient) this.#waitsSince = performance.now();
    try {
      const claims = await this.#poll({ max, waitSeconds: standingPoll, messages: [] }, signal);
      if (claims.length < max) this.#emptyAt = performance.now();
      return claims;
    } finally {
      this.#waitsSince = undefined;
    }
  }

  /** Whether the second loop would have got what is queued and was told of by no message. */
  get #isLookedFor(): boolean {
    const now = performance.now();
    if (now - this.#emptyAt < idleCheck * 1000) return true;
    const waited = now - (this.#waitsSince ?? now);
    // A server that is gone without a word answers nothing for long.
    return waited > lookedFor && waited < standingPoll * 1000 + lookedFor;
  }

  /** A long poll's answer says nothing certain about the lease, which is counted from the question. */
  get #patient(): boolean {
    const { lease, claimSeconds } = this.#options;
    return !this.#plenty && lease.left > claimSeconds() * 500;
  }

  async #poll(
    { waitSeconds, ...request }: { max: number; waitSeconds: number; messages?: [] },
    signal: AbortSignal,
  ): Promise<Claim[]> {
    const patient = this.#patient;
    // Where there is plenty, the answer comes at once, and what ends meanwhile is reported with the next claim.
    const call = this.#call({ ...request, waitSeconds: patient ? waitSeconds : 0 }, signal);
    const claims = (await (patient ? this.#far(call) : call))?.claims ?? [];
    // Until the lease is renewed: no reason to ask as fast as the network lets us.
    if (waitSeconds > 0 && !patient && !this.#plenty && claims.length === 0) await this.#far(pause(impatience, signal));
    return claims;
  }

  /** One call, which takes along what there is to report. */
  async #call(
    request: { max: number; waitSeconds?: number; messages?: WorkKey[] },
    signal: AbortSignal,
  ): Promise<{ claims: Claim[]; refused: RefusedMessage[] }> {
    const { client, controller, worker, lease, claimSeconds, reporter } = this.#options;
    const { controllers } = client;
    const results = reporter.take();
    const { messages, ...rest } = request;
    const sentAt = performance.now();
    let answer: { claims: Claim[]; refused: RefusedMessage[] };
    if (results.length > 0) {
      try {
        const all = await controllers.doneAndClaim(controller, { worker, ...request, results, signal });
        reporter.reported(results, all.results);
        answer = all;
      } catch (error) {
        reporter.failed(results);
        throw error;
      }
    } else if (messages) {
      answer = await controllers.claimForMessages(controller, { worker, ...rest, messages, signal });
    } else {
      answer = { claims: await controllers.claim(controller, { worker, ...rest, signal }), refused: [] };
    }
    // Only claims are on the disk when their answer is sent; a lease that came with none may be forgotten in a crash.
    if (answer.claims.length > 0) lease.claimed(sentAt, claimSeconds());
    else lease.doubt();
    return answer;
  }
}
