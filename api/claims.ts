import type { Response } from 'express';
import type { Bus } from '../bus/index.js';
import {
  claimKeys,
  claimMap,
  findController,
  finishAndClaimKeys,
  finishKeys,
  finishMap,
  heldClaims,
  releaseWorker,
  renewWorker,
  shrinkLease,
  type Claimed,
  type ClaimedKey,
  type Database,
  type Key,
  type Log,
  type Registration,
} from '../db/index.js';
import { reasonOf } from '../reason.js';
import { Line } from './claim-line.js';
import { notFound } from './errors.js';
import type { QueueMetrics } from './queue-metrics.js';
import { sortReports, type Report, type SortedReports } from './reports.js';
import { claimToken } from './tokens.js';

/** How long, in seconds, a worker whose renew stream broke keeps its claims unless it returns. */
const brokenLease = 1.5;
/** Events of a watched type that one map claim hands out. */
const mapBatch = 200;
/** Bytes of the objects in one answer, with the states before and after events; as in the answer of a batch. */
const largestAnswer = 32 * 2 ** 20;

/** What a worker asks for. */
export interface ClaimRequest {
  worker: string;
  max: number;
  waitSeconds: number;
  keys?: ({ type: string } & Key)[];
  /** What messages named, none perhaps: the worker hears by messages of keys that other replicas queue. */
  messages?: ({ type: string } & Key)[];
  /** Of earlier claims of the controller, taken first. */
  reports?: Report[];
}

/** Claims as JSON texts; `complete`: nothing is left that others could claim, as far as this look shows. */
export interface Taken {
  claims: string[];
  complete: boolean;
}

/** What a worker gets: claims as JSON texts, and for each of its reports whether the claim was still held. */
export interface ClaimAnswer {
  claims: string[];
  held: boolean[];
}

/**
 * The claims of this process's workers. Waiting workers of a controller stand in a line: a wake-up makes one query for the
 * first of them, not one for each.
 */
export class Claims {
  readonly #database: Database;
  readonly #bus: Bus;
  readonly #metrics: QueueMetrics;
  readonly #log: Log;
  readonly #lines = new Map<string, Line>();
  readonly #streams = new Map<string, Set<Response>>();
  readonly #registrations = new Map<string, { at: number; registration: Registration }>();

  constructor(options: { database: Database; bus: Bus; metrics: QueueMetrics; log: Log }) {
    this.#database = options.database;
    this.#bus = options.bus;
    this.#metrics = options.metrics;
    this.#log = options.log;
  }

  /** A controller's registration, at most a second old. */
  async find(controller: string): Promise<Registration | undefined> {
    const known = this.#registrations.get(controller);
    if (known && performance.now() - known.at < 1_000) return known.registration;
    const registration = await findController(this.#database, controller);
    // An unknown one is not remembered: it may be registered at another replica now, and there is no end of such names.
    if (registration) this.#registrations.set(controller, { at: performance.now(), registration });
    else this.#registrations.delete(controller);
    return registration;
  }

  /** Drops what is remembered of a registration that was changed. */
  forget(controller: string): void {
    this.#registrations.delete(controller);
  }

  /**
   * Takes a worker's reports, then claims keys for it; waits up to `waitSeconds` for the first one. When the client has gone
   * meanwhile, what it got is given back at once. Throws NotFound for an unknown controller.
   */
  async claim(
    controller: string,
    { reports = [], ...request }: ClaimRequest,
    { signal, onWait }: { signal: AbortSignal; onWait: () => void },
  ): Promise<ClaimAnswer> {
    const registration = await this.#registered(controller);
    const line = request.waitSeconds > 0 ? this.#line(registration) : undefined;
    const since = line?.enter() ?? { all: 0, here: 0 };
    try {
      const { claims, complete, held } = await this.#finishAndTake(registration, reports, request);
      if (complete) line?.looked(since);
      const waits = line && claims.length === 0 && !signal.aborted;
      if (waits) onWait();
      const { messages, ...rest } = request;
      const all = waits ? await line.wait(rest, { signal, since, hears: messages !== undefined }) : claims;
      return { claims: await this.#deliver(controller, request.worker, all, signal), held };
    } finally {
      line?.leave();
    }
  }

  /** Takes reports on claims; true where the claim was still held. */
  async done(controller: string, reports: Report[]): Promise<boolean[]> {
    return this.#finish(controller, sortReports(controller, reports));
  }

  async #finish(controller: string, { keys, maps, count }: SortedReports): Promise<boolean[]> {
    const held: boolean[] = new Array<boolean>(count).fill(false);
    let woken = false;
    for (const { at, claim, outcome } of maps) {
      const finished = await finishMap(this.#database, { controller, type: claim.map, nonce: claim.nonce }, outcome);
      held[at] = finished.held;
      woken ||= finished.woken;
    }
    if (keys.length > 0) {
      const results = await finishKeys(
        this.#database,
        controller,
        keys.map(key => key.result),
      );
      for (const [i, { at }] of keys.entries()) {
        held[at] = results[i]?.held === true;
        woken ||= results[i]?.queued === true;
      }
    }
    if (woken) this.#bus.queued(controller);
    return held;
  }

  /** Extends a worker's lease and tells what it holds; `seconds` is 0 when the lease had run out, and all is lost. */
  async renew(controller: string, worker: string): Promise<{ seconds: number; held: Map<string, boolean> }> {
    const { claimSeconds } = await this.#registered(controller);
    if (!(await renewWorker(this.#database, controller, worker, claimSeconds))) return { seconds: 0, held: new Map() };
    return { seconds: claimSeconds, held: (await this.held(controller, worker)).held };
  }

  /** The tokens that a worker holds, each with whether its object has changed since; does not extend the lease. */
  async held(controller: string, worker: string): Promise<{ seconds: number; held: Map<string, boolean> }> {
    const { secondsLeft, held, maps } = await heldClaims(this.#database, controller, worker);
    // Maps as well: one whose answer was lost is held for as long as its worker lives, unless that finds it here.
    const tokens = new Map(held.map(claim => [claimToken(claim), claim.dirty]));
    for (const map of maps) tokens.set(claimToken(map), false);
    return { seconds: secondsLeft, held: tokens };
  }

  /** Ends all renew streams in order: their workers return to another replica, none of them is taken for broken. */
  stop(): void {
    for (const streams of this.#streams.values()) for (const stream of streams) stream.end();
  }

  /** A stream of the worker opened; it is `closed` later. */
  opened(controller: string, worker: string, stream: Response): void {
    const name = `${controller} ${worker}`;
    this.#streams.set(name, (this.#streams.get(name) ?? new Set()).add(stream));
  }

  /** A worker's stream is gone without goodbye: its claims end soon unless it returns, or has returned by another one. */
  async closed(controller: string, worker: string, stream: Response, broken: boolean): Promise<void> {
    const name = `${controller} ${worker}`;
    const streams = this.#streams.get(name);
    streams?.delete(stream);
    if (streams?.size) return;
    this.#streams.delete(name);
    if (broken) await this.#cutShort(controller, worker);
  }

  #cutShort(controller: string, worker: string): Promise<void> {
    return shrinkLease(this.#database, controller, worker, brokenLease);
  }

  /** A worker says goodbye: what it held is queued again at once. */
  async leave(controller: string, worker: string): Promise<void> {
    if (await releaseWorker(this.#database, controller, worker)) this.#bus.queued(controller);
  }

  async #registered(controller: string): Promise<Registration> {
    const registration = await this.find(controller);
    if (!registration)
      throw notFound(`The controller ${controller}, which registers with PUT /v1/controllers/${controller},`);
    return registration;
  }

  #line(registration: Registration): Line {
    let line = this.#lines.get(registration.name);
    if (!line) {
      line = new Line({
        // Read each time: a line lives for as long as anybody waits, a registration may change meanwhile.
        take: async request => this.#take(await this.#registered(registration.name), request),
        listen: listener => this.#bus.onWork(registration.name, listener),
        taken: all => this.#bus.taken(registration.name, all),
        lost: worker => this.#cutShort(registration.name, worker),
        onEmpty: () => this.#lines.delete(registration.name),
      });
      this.#lines.set(registration.name, line);
    }
    return line;
  }

  /** Both in one call of the database where the reports are results of keys and nothing else. */
  async #finishAndTake(
    registration: Registration,
    reports: Report[],
    request: ClaimRequest,
  ): Promise<Taken & { held: boolean[] }> {
    const { name: controller, claimSeconds } = registration;
    if (reports.length === 0) return { ...(await this.#take(registration, request)), held: [] };
    const sorted = sortReports(controller, reports);
    const { keys, maps, count } = sorted;
    if (request.keys || maps.length > 0 || keys.length === 0 || keys.some(({ result }) => result.enqueue.length > 0)) {
      const held = await this.#finish(controller, sorted);
      return { ...(await this.#take(registration, request)), held };
    }
    const { worker, max, messages } = request;
    const { results, claimed } = await finishAndClaimKeys(
      this.#database,
      keys.map(({ result: { enqueue: _, ...result } }) => result),
      { controller, worker, max, seconds: claimSeconds, ...(messages?.length ? { messages } : {}) },
    );
    const held: boolean[] = new Array<boolean>(count).fill(false);
    for (const [i, { at }] of keys.entries()) held[at] = results[i]?.held === true;
    if (results.some(({ queued }) => queued)) this.#bus.queued(controller);
    return { ...(await this.#taken(registration, request, claimed)), held };
  }

  async #take(registration: Registration, request: ClaimRequest): Promise<Taken> {
    const { worker, max, keys, messages } = request;
    const claimed = await claimKeys(this.#database, {
      controller: registration.name,
      worker,
      max,
      seconds: registration.claimSeconds,
      ...(keys ? { keys } : {}),
      ...(messages?.length ? { messages } : {}),
    });
    return this.#taken(registration, request, claimed);
  }

  /** What was claimed as JSON texts, with a stretch of a watched type's events when there is one to map. */
  async #taken(registration: Registration, request: ClaimRequest, { keys, more }: Claimed): Promise<Taken> {
    const claims = await this.#keysOf(registration, keys);
    let complete = !request.keys && !more && keys.length < request.max;
    if (registration.watches.length > 0) {
      const weight = keys.reduce((sum, { object }) => sum + Buffer.byteLength(object ?? ''), 0);
      try {
        const map = await this.#mapOf(registration, request.worker, largestAnswer - weight);
        if (map !== undefined) {
          claims.push(map);
          // There may be another one.
          complete = false;
        }
      } catch (error) {
        // Keys are claimed and results taken by now: without an answer the worker would hold them and not know.
        const about = { controller: registration.name, error: reasonOf(error) };
        this.#log('warn', 'events of a watched type cannot be claimed', about);
        complete = false;
      }
    }
    this.#metrics.claimed(registration.name, keys);
    if (keys.length > 0) this.#bus.claimed(registration.name);
    // Whoever looked meanwhile found those keys locked.
    if (more) this.#bus.queued(registration.name);
    return { claims, complete };
  }

  async #keysOf({ name: controller, claimSeconds }: Registration, keys: ClaimedKey[]): Promise<string[]> {
    const traces = await Promise.all(keys.map(key => this.#bus.traceOf(key, controller)));
    return keys.map(({ type, namespace, name, uid, attempts, reason, nonce, object }, at) => {
      const head = {
        token: claimToken({ controller, type, namespace, name, nonce }),
        kind: 'key',
        type,
        ...(namespace === '' ? {} : { namespace }),
        name,
        uid,
        attempts,
        reason,
        ...(traces[at] === undefined ? {} : { traceparent: traces[at] }),
        expiresInSeconds: claimSeconds,
      };
      return withJson(head, 'object', object ?? 'null');
    });
  }

  async #mapOf(
    { name: controller, claimSeconds }: Registration,
    worker: string,
    bytes: number,
  ): Promise<string | undefined> {
    const map = await claimMap(this.#database, controller, worker, { events: mapBatch, bytes });
    if (map === 'resynced') this.#bus.queued(controller);
    if (typeof map !== 'object') return undefined;
    const { type, nonce, priority } = map;
    const token = claimToken({ controller, map: type, nonce });
    const events = map.events.map(
      ({ op, before, object }) => `{"op":"${op}","before":${before ?? 'null'},"object":${object ?? 'null'}}`,
    );
    const head = { token, kind: 'map', type, priority, expiresInSeconds: claimSeconds };
    return withJson(head, 'events', `[${events.join(',')}]`);
  }

  async #deliver(controller: string, worker: string, claims: string[], signal: AbortSignal): Promise<string[]> {
    if (claims.length > 0 && signal.aborted) await this.#cutShort(controller, worker);
    return claims;
  }
}

/**
 * An object as JSON text with one more field, whose value is JSON text already: states come as text from the database and go out
 * as such. To parse and write them again would cost more than all the rest of a claim.
 *
 * @param head has at least one field
 */
function withJson(head: Record<string, unknown>, field: string, json: string): string {
  return `${JSON.stringify(head).slice(0, -1)},"${field}":${json}}`;
}
