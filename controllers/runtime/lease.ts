import { Backoff, isPlatformError, pause, type Controllers, type Renewal } from '../../client/index.js';

/** What a lease tells the worker that it holds claims for. */
export interface LeaseEvents {
  /** Claims that the worker believes to hold; these may turn out to be lost. */
  tokens(): string[];
  /** Those and all that it is done with, but cannot yet know that the server knows. */
  known(): Set<string>;
  /** The worker no longer holds these. */
  lost(tokens: string[]): void;
  /** The objects of these have changed since they were claimed. */
  changed(tokens: string[]): void;
  /** The worker holds these and does not know them: the answer that brought them was lost. */
  unknown(tokens: string[]): void;
  /** The server does not know the controller. */
  forgotten(): void;
  /** The server has answered a renewal, or sent a line of the stream. */
  heard(): void;
  /** Told at the first failure of an outage and at its end. */
  reachable(now: boolean, error?: unknown): void;
}

/**
 * A server that sees the stream break, or learns late that one was broken, cuts the lease to 1.5 s, whatever this side knows of it. A
 * renewal that is sent afterwards extends it again; so for so many milliseconds from the sending of one that was answered nothing can
 * have been given to others. Lines of the stream prove less: those that came while a process was frozen look new when it goes on.
 */
const believable = 1450;
/** Milliseconds after which a claim that is still unknown counts as lost although no call failed: answers may be slow. */
const slowestAnswer = 5000;
/** Milliseconds from a claim that failed to the first renewal which tells what it claimed, at most. */
const untold = 2000;
/** Milliseconds after a renewal that failed until the next one. */
const retryTime = 200;
/**
 * A worker's lease, which holds all its claims. Renewals keep it alive; an open stream tells the server at once when this
 * process dies. What is certain about it is counted here: from the moment before a renewal was sent, on this process's
 * monotonic clock, so that neither a slow network nor a frozen process believes in a lease that others see as over.
 */
export class Lease {
  readonly #controllers: Controllers;
  readonly #controller: string;
  readonly #worker: string;
  readonly #seconds: () => number;
  readonly #events: LeaseEvents;
  readonly #stop = new AbortController();
  #loops: Promise<unknown> = Promise.resolve();
  #until = -Infinity;
  /** Whether the stream is open, as far as this side knows. */
  #streams = false;
  /** When the last stream broke. The server then cuts the lease short, so only what was renewed since counts. */
  #brokenAt = -Infinity;
  #renewedAt = -Infinity;
  /** When it turned out last that the lease may have been over before the one that there is now. */
  #gapAt = -Infinity;
  /** Tokens that the worker does not know, and since when renewals tell of them. */
  #unknown = new Map<string, number>();
  #claimFailedAt = -Infinity;
  #reachable = true;
  #wake: () => void = () => undefined;
  /** When a renewal was last asked for. */
  #askedAt = -Infinity;

  constructor(options: {
    controllers: Controllers;
    controller: string;
    worker: string;
    /** As registered, which may change when a newer release registers. */
    claimSeconds: () => number;
    events: LeaseEvents;
  }) {
    this.#controllers = options.controllers;
    this.#controller = options.controller;
    this.#worker = options.worker;
    this.#seconds = options.claimSeconds;
    this.#events = options.events;
  }

  start(): void {
    this.#loops = Promise.all([this.#renewals(), this.#stream()]);
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    this.#wake();
    await this.#loops;
  }

  /** Milliseconds that the lease lasts unless the server cuts it short; negative when it may be over. */
  get left(): number {
    return this.#until - performance.now();
  }

  /** The same, but 0 while the server may have cut the lease short: enough to begin a call to the outside? */
  get certain(): number {
    const now = performance.now();
    // A stream that is open again does not tell what was lost between; only a renewal does.
    const renewed = this.#renewedAt > this.#brokenAt && now - this.#renewedAt < believable;
    return renewed ? Math.max(0, this.#until - now) : 0;
  }

  /** Waits until the claims are certainly held for some milliseconds; rejects with the reason of `signal`. */
  async certainFor(milliseconds: number, signal: AbortSignal): Promise<void> {
    while (this.certain < milliseconds) {
      signal.throwIfAborted();
      await pause(50, signal);
    }
    signal.throwIfAborted();
  }

  /**
   * A claim was sent at this time and brought something, with a lease of so many seconds: an extension of the one that there was,
   * as far as that is certain. Else it may have been lost, with all that was held, and this be a new one; a renewal tells. So does it
   * of what comes late, which may have been claimed under a lease that is over.
   */
  claimed(sentAt: number, seconds: number): void {
    if (sentAt < this.#gapAt) this.#brokenAt = performance.now();
    if (this.certain > 0) this.#extended(sentAt, seconds);
    else this.#ask();
  }

  /** A claim failed, so its answer may be lost with all that it brought. */
  claimFailed(): void {
    this.#claimFailedAt = performance.now();
  }

  /** Renews at once unless the lease is certain: only a claim begins a new one after the end of the last. */
  doubt(): void {
    if (this.certain <= 0) this.#ask();
  }

  #ask(): void {
    this.#askedAt = performance.now();
    this.#wake();
  }

  #extended(sentAt: number, seconds: number): void {
    const isFirst = this.#renewedAt === -Infinity;
    if (!isFirst && sentAt - this.#renewedAt >= believable) this.#gapAt = performance.now();
    this.#until = Math.max(this.#until, sentAt + seconds * 1000);
    this.#renewedAt = Math.max(this.#renewedAt, sentAt);
  }

  /** There was none any more. What was claimed since has another one, which a renewal is to tell of. */
  #ended(sentAt: number): void {
    this.#until = Math.min(this.#until, sentAt);
    this.#gapAt = performance.now();
  }

  async #renewals(): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      const beganAt = performance.now();
      const renewed = await this.#renew(signal);
      // Asked for while this one was under way, which may be older than what is to be renewed.
      if (renewed && this.#askedAt >= beganAt && this.certain <= 0) continue;
      // With time for the answer within what is believable.
      const regular = Math.min(800, this.#seconds() * 150);
      // Without a stream the lease may be down to 1.5 s.
      const wait = !renewed ? retryTime : this.#streams ? regular : Math.min(500, regular);
      await Promise.race([pause(wait, signal), new Promise<void>(resolve => (this.#wake = resolve))]);
    }
  }

  async #renew(signal: AbortSignal): Promise<boolean> {
    const tokens = this.#events.tokens();
    const sentAt = performance.now();
    try {
      const renewal = await this.#controllers.renew(this.#controller, { worker: this.#worker }, signal);
      const held = new Set(renewal.held);
      this.#events.heard();
      if (renewal.expiresInSeconds > 0) this.#extended(sentAt, renewal.expiresInSeconds);
      else this.#ended(sentAt);
      this.#report({ ...renewal, lost: tokens.filter(token => !held.has(token)) });
      this.#findUnknown(renewal);
      this.#contact(true);
      return true;
    } catch (error) {
      if (signal.aborted) return false;
      if (isPlatformError(error, 'NotFound')) this.#events.forgotten();
      else this.#contact(false, error);
      return false;
    }
  }

  async #stream(): Promise<void> {
    const { signal } = this.#stop;
    const backoff = new Backoff(50, 1000);
    while (!signal.aborted) {
      await this.#listen(backoff, signal);
      await backoff.pause(signal);
    }
  }

  /** One stream, until it breaks. */
  async #listen(backoff: Backoff, signal: AbortSignal): Promise<void> {
    try {
      for await (const renewal of this.#controllers.renewStream(this.#controller, this.#worker, signal)) {
        this.#streams = true;
        this.#events.heard();
        this.#report(renewal);
        backoff.reset();
      }
    } catch (error) {
      if (!signal.aborted && !isPlatformError(error, 'NotFound')) this.#contact(false, error);
    }
    if (!this.#streams) return;
    this.#streams = false;
    this.#brokenAt = performance.now();
    this.#ask();
  }

  #report({ lost, changed }: Renewal): void {
    if (lost.length > 0) this.#events.lost(lost);
    if (changed.length > 0) this.#events.changed(changed);
  }

  /**
   * Claims may be on their way here, for seconds where their answer is large or the network slow. So only those count that are
   * unknown at two renewals in a row, and they do when a claim failed, or when no answer takes that long.
   */
  #findUnknown({ held }: Renewal): void {
    const known = this.#events.known();
    const now = performance.now();
    const unknown = held.filter(token => !known.has(token));
    const lost = unknown.filter(token => {
      const since = this.#unknown.get(token);
      return since !== undefined && (this.#claimFailedAt > since - untold || now - since > slowestAnswer);
    });
    this.#unknown = new Map(unknown.map(token => [token, this.#unknown.get(token) ?? now]));
    if (lost.length > 0) this.#events.unknown(lost);
  }

  #contact(now: boolean, error?: unknown): void {
    if (now === this.#reachable) return;
    this.#reachable = now;
    this.#events.reachable(now, error);
  }
}
