import type { LogEvent } from '../db/index.js';
import type { Tail } from './tail.js';

/** Keys whose newest change is remembered with its trace, for each type; as many events as a tail keeps. */
const kept = 10_000;

/** Milliseconds that a claim waits for the events that led to it, where another replica wrote them. */
const patience = 1_000;

/** Why a key was queued, where a change of its object is what its run follows from. */
const followed = new Set(['added', 'modified', 'deleted', 'changed', 'error', 'released', 'lease expired']);

/** A claimed key. */
export interface TracedKey {
  type: string;
  namespace: string;
  name: string;
  reason: string;
  /** The object as JSON text. */
  object: string | null;
}

interface Trace {
  traceparent: string;
  /** The controller that wrote it on a key of its own; undefined: anybody else. */
  by: string | undefined;
  /** What came before it, for that controller: it does not run for what it wrote itself. */
  before: Omit<Trace, 'before'> | undefined;
}

/**
 * Remembers in which trace each key was changed last, so that a claim can say what its run follows from. In memory, from the
 * tail: a column of the work table would make every enqueue write it, traced or not. While nothing is traced this is one
 * comparison for each event.
 */
export class Traces {
  readonly #keys = new Map<string, Trace>();
  /** Whether anything was traced since the start: only then is it worth waiting for the tail. */
  #used = false;
  readonly #tail: Tail;
  readonly #stop: () => void;

  constructor(tail: Tail) {
    this.#tail = tail;
    this.#stop = tail.subscribe({
      events: events => {
        for (const event of events) if (event.traceparent !== null || this.#keys.size > 0) this.#take(event);
      },
      // What is remembered may be older than changes that nobody has seen.
      lost: () => this.#keys.clear(),
    });
  }

  stop(): void {
    this.#stop();
  }

  /** The `traceparent` of the newest change of a key that was not the controller's own, if that is why it was queued. */
  async of(key: TracedKey, controller: string): Promise<string | undefined> {
    if (!this.#used || !followed.has(key.reason)) return undefined;
    if (key.object !== null) await this.#reach(versionOf(key.object));
    return this.known(key, controller);
  }

  /** The same as far as this replica knows now, whatever the key was queued for. */
  known({ namespace, name }: { namespace: string; name: string }, controller: string): string | undefined {
    const trace = this.#keys.get(`${namespace}/${name}`);
    return trace?.by === controller ? trace.before?.traceparent : trace?.traceparent;
  }

  /** Waits until the tail of this replica has come to a version. */
  async #reach(version: number): Promise<void> {
    if ((this.#tail.head ?? 0) >= version) return;
    await new Promise<void>(resolve => {
      const end = () => {
        clearTimeout(timer);
        stop();
        resolve();
      };
      const timer = setTimeout(end, patience);
      const stop = this.#tail.subscribe({
        events: () => {
          if ((this.#tail.head ?? 0) >= version) end();
        },
      });
    });
  }

  #take({ namespace, name, traceparent, own, actor }: LogEvent): void {
    this.#used = true;
    const key = `${namespace}/${name}`;
    const by = own ? actor.slice('controller:'.length) : undefined;
    const former = this.#keys.get(key);
    const before =
      former?.by !== undefined && former.by === by
        ? former.before
        : former && { traceparent: former.traceparent, by: former.by };
    this.#keys.delete(key);
    if (traceparent !== null) {
      this.#keys.set(key, { traceparent, by, before });
      if (this.#keys.size <= kept) return;
      for (const oldest of this.#keys.keys()) {
        this.#keys.delete(oldest);
        return;
      }
    } else if (by !== undefined && former) this.#keys.set(key, former);
  }
}

function versionOf(object: string): number {
  // Stored by the platform, which puts it into every object.
  const { resourceVersion } = JSON.parse(object) as { resourceVersion?: string };
  return Number(resourceVersion ?? 0);
}
