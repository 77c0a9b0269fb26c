import { setMaxListeners } from 'node:events';
import type { Client, KeyClaim, Resource, WorkKey } from '../../client/index.js';
import type { Context } from './controller.js';
import type { Lease } from './lease.js';
import type { Log } from './log.js';

/** What all runs of a worker share. */
export interface RunSurroundings {
  controller: string;
  client: Client;
  log: Log;
  lease: Lease;
  claimSeconds: () => number;
}

/**
 * One run: a claim and the context that its reconcile sees. Made ten thousand times a second, so whatever a run may not need
 * is made when it is asked for.
 */
export class Run implements Context {
  readonly startedAt = performance.now();
  /** Why its result no longer counts. */
  abandoned: Error | undefined;
  /** Whether others have the claim now, so that there is nothing to report. */
  lost = false;
  /** The trace that its writes belong to (W3C trace context): its own span, or that of the change that it is for. */
  traceparent: string | undefined;
  readonly #claim: KeyClaim;
  readonly #shared: RunSurroundings;
  #abort: AbortController | undefined;
  #change: AbortController | undefined;
  #changed = false;
  #client: Client | undefined;
  #log: Log | undefined;

  constructor(claim: KeyClaim, shared: RunSurroundings) {
    this.#claim = claim;
    this.#shared = shared;
    this.traceparent = claim.traceparent;
  }

  get controller(): string {
    return this.#shared.controller;
  }

  get token(): string {
    return this.#claim.token;
  }

  get object(): Resource | undefined {
    return this.#claim.object ?? undefined;
  }

  get key(): WorkKey {
    const { type, namespace, name } = this.#claim;
    return { type, ...(namespace !== undefined && { namespace }), name };
  }

  get attempts(): number {
    return this.#claim.attempts;
  }

  get reason(): string {
    return this.#claim.reason;
  }

  get client(): Client {
    const { token: claim, signal, traceparent } = this;
    return (this.#client ??= this.#shared.client.with({ claim, signal, traceparent }));
  }

  get log(): Log {
    return (this.#log ??= this.#shared.log.child({ ...this.key }));
  }

  get signal(): AbortSignal {
    if (!this.#abort) {
      this.#abort = new AbortController();
      // A run may have hundreds of calls under way at once; Node would call their listeners a leak.
      setMaxListeners(0, this.#abort.signal);
      if (this.abandoned) this.#abort.abort(this.abandoned);
    }
    return this.#abort.signal;
  }

  get changed(): AbortSignal {
    if (!this.#change) {
      this.#change = new AbortController();
      if (this.#changed) this.#change.abort();
    }
    return this.#change.signal;
  }

  async notice(reason: string, message: string): Promise<void> {
    await this.client.collection(this.#claim.type).recordNotice(this.key, reason, message);
  }

  remaining(): number {
    return this.abandoned ? 0 : this.#shared.lease.certain;
  }

  async hold(milliseconds: number): Promise<void> {
    const most = this.#shared.claimSeconds() * 800;
    if (milliseconds > most) {
      throw new TypeError(
        `The claim can be certain for ${most} ms at most; raise claimSeconds to hold it for ${milliseconds}`,
      );
    }
    await this.#shared.lease.certainFor(milliseconds, this.signal);
  }

  /** Aborts the run; its result no longer counts. */
  abandon(reason: Error): void {
    this.abandoned ??= reason;
    this.#abort?.abort(reason);
  }

  /** Others have the claim now. */
  lose(): void {
    this.lost = true;
    this.abandon(new Error('the claim was lost'));
  }

  /** Tells the run that its object has changed. */
  change(): void {
    this.#changed = true;
    this.#change?.abort();
  }
}
