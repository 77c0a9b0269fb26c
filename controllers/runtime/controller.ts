import type { Client, Interest, Kinds, Resource, WorkKey } from '../../client/index.js';
import type { Duration } from './duration.js';
import type { Log } from './log.js';
import type { RateLimit } from './rate.js';

/**
 * Brings what an object says about. The runtime calls `reconcile` whenever the object may have changed, never twice at once
 * for one object in the whole fleet, and again with growing pauses after an error.
 *
 * @example
 * export const hello: Controller<Cluster> = {
 *   name: 'hello',
 *   type: 'clusters',
 *   watches: [{ type: 'syncsets', enqueue: set => ({ names: set.clusterRefs }) }],
 *   async reconcile(cluster, context) {
 *     if (!cluster) return;
 *     await context.notice('Greeted', `Hello, ${cluster.name}`);
 *     return { requeueAfter: '2h' };
 *   },
 * };
 */
export interface Controller<T extends Resource = Resource> {
  /** Names its work everywhere: registration, queue, metrics. One name is one controller in the whole fleet. */
  name: string;
  /** The type that it reconciles, or `*` for all. */
  type: string;
  /** Which parts of a change matter. Default spec, metadata and deletion; `status` has to be asked for. */
  on?: Interest[];
  /** Other types whose changes matter. */
  watches?: Watch[];
  /** Seconds after which the work of a worker that fell silent goes to others. Default 15. */
  claimSeconds?: number;
  /** Raise it with every change of `type`, `on`, `watches`, `claimSeconds`, `reveal` or `longRunning`: the highest one holds. */
  revision?: number;
  /** Types whose secret fields it reads (`context.client.clusters.reveal`). */
  reveal?: string[];
  /**
   * A run lasts for as long as its object exists; it has no deadline and is told of changes by `context.changed`. When replicas
   * join, each aborts what exceeds its share of the keys, so that the others get theirs.
   */
  longRunning?: boolean;
  /**
   * Longest run; a longer one is aborted, counts as failed and frees its slot, whether or not it ends then. Default 5 minutes.
   */
  deadline?: Duration;
  /** How often runs begin in each process, whatever there is to do. Default: as fast as they end. */
  rateLimit?: RateLimit;
  /** Put on every object before its first run and removed after `finalize`, so that no object goes without it. */
  finalizer?: string;
  /** Runs in place of `reconcile` once deletion was asked for. */
  finalize?(object: T, context: Context): Promise<void>;
  /**
   * Makes the world as the object says. Called with the object as it is now, or `undefined` when it is gone. Everything thrown
   * counts as failed and comes again; `TerminalError` only when the object changes.
   */
  // eslint-disable-next-line @typescript-eslint/no-invalid-void-type -- a reconcile that ends without `return` is the usual one
  reconcile(object: T | undefined, context: Context): Promise<Result | void>;
}

/** When to run again although nothing changed. */
export interface Result {
  /** From the end of this run, at most a year; a change that comes before makes a run of its own. */
  requeueAfter?: Duration;
}

/** A type whose changes make work, and for which objects. */
export type Watch = {
  [Type in keyof Kinds]: {
    type: Type;
    /**
     * Which objects depend on this one. Asked with the state before and after each change, so that objects that no longer
     * depend on it run too. Only computes; it must not read from anywhere.
     */
    enqueue(object: Kinds[Type]): Targets | undefined;
  };
}[keyof Kinds];

/**
 * Objects to run: by name (`namespace` as the watched object's when left out, `''` for cluster-wide types), by labels (of all
 * namespaces when left out), or all. `type` is needed by controllers of `*` only.
 */
export type Targets = { type?: string } & (
  { names: string[]; namespace?: string } | { labelSelector: string; namespace?: string } | { all: true }
);

/** One run's surroundings. */
export interface Context {
  /** The object's key, also when it is gone. */
  readonly key: WorkKey;
  /** Its writes are attributed to the controller and refused once the claim is lost. */
  readonly client: Client;
  /** Says controller and key in every line. */
  readonly log: Log;
  /** Aborts when the claim is or may be lost, at the deadline, and at the end of a shutdown. Pass it to whatever waits. */
  readonly signal: AbortSignal;
  /** Aborts when the object has changed since the run began; the next run sees it, a long one may want to end. */
  readonly changed: AbortSignal;
  /** Failed runs before this one. */
  readonly attempts: number;
  /** Why it runs: `added`, `modified`, `requeueAfter`, `error`, … */
  readonly reason: string;
  /**
   * Records something that people should know about the object; `reason` is one word in CamelCase, for programs.
   *
   * @throws PlatformError NotFound: the object is gone
   * @example
   * await context.notice('CertificateExpires', 'The certificate ends in 6 days');
   */
  notice(reason: string, message: string): Promise<void>;
  /**
   * Milliseconds for which the claim is certainly held, by this process's own clock.
   *
   * @example
   * if (context.remaining() < 5_000) return { requeueAfter: 0 };
   */
  remaining(): number;
  /**
   * Waits until the claim is certainly held for some milliseconds. Call it before a call to the outside with its time-out:
   * fencing protects the platform's database, not a foreign server. Rejects with the signal's reason.
   *
   * @example
   * await context.hold(10_000);
   * await fetch(url, { method: 'POST', signal: AbortSignal.any([context.signal, AbortSignal.timeout(10_000)]) });
   */
  hold(milliseconds: number): Promise<void>;
}

/**
 * Says that trying again is useless until the object changes.
 *
 * @example
 * throw new TerminalError('spec.url is not a URL');
 */
export class TerminalError extends Error {
  override readonly name = 'TerminalError';
}
