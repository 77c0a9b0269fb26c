import { setTimeout as sleep } from 'node:timers/promises';
import {
  connect,
  ConnectionError,
  PlatformError,
  type BatchWrite,
  type Client,
  type Resource,
} from '../../client/index.js';
import type { Random } from './random.js';
import { types, type Scale, type Type } from './scale.js';
import type { Violations } from './violations.js';

/** A write that was answered: it must never be lost. */
export interface Answered {
  type: Type;
  /** `namespace/name`. */
  name: string;
  version: number;
}

/** An object as its writer knows it; nobody else writes it, but the workers its status. */
interface Owned {
  type: Type;
  namespace: string;
  name: string;
  exists: boolean;
  /** A call whose answer was lost may still be under way, in a frozen process say, and be carried out at any later time. */
  doubtful: boolean;
  serial: number;
}

/** A write of whatever type. */
type Next =
  | { op: 'create'; object: Made }
  | { op: 'patch'; namespace: string; name: string; patch: { labels: Record<string, string> } }
  | { op: 'delete'; namespace: string; name: string };

interface Made {
  namespace: string;
  name: string;
  labels: Record<string, string>;
  clusterRefs?: never[];
  allowMissing?: boolean;
}

/** Clients that write at the same time, each its own share of the objects, so that each knows what must be there. */
export class Writers {
  /** How many writes were answered. */
  answered = 0;
  /** Calls that were given up without an answer: carried out or not. */
  unknown = 0;
  readonly #scale: Scale;
  readonly #violations: Violations;
  readonly #client: Client;
  readonly #random: Random;
  readonly #prefix: string;
  readonly #onAnswered: ((write: Answered) => void) | undefined;
  readonly #began = performance.now();
  #sent = 0;
  #stopped = false;

  /**
   * @param options.prefix of their objects' names, so that nobody else writes them
   * @param options.onAnswered is told of each write; the writers keep none, since a day has 17 million
   */
  constructor(options: {
    scale: Scale;
    url: string;
    prefix: string;
    random: Random;
    violations: Violations;
    onAnswered?: (write: Answered) => void;
  }) {
    const { scale, url, prefix, random, violations } = options;
    this.#prefix = prefix;
    this.#onAnswered = options.onAnswered;
    this.#scale = scale;
    this.#violations = violations;
    this.#random = random;
    this.#client = connect({ url, retrySeconds: 20, timeoutSeconds: 30 });
  }

  /** Writes until enough writes were answered. */
  async run(): Promise<void> {
    const { lanes } = this.#scale;
    await Promise.all(Array.from({ length: lanes }, (_, lane) => this.#lane(lane)));
    await this.#client.close();
  }

  /** Lets no more writes begin. */
  stop(): void {
    this.#stopped = true;
  }

  async #lane(lane: number): Promise<void> {
    const { objects, lanes, pattern, writes } = this.#scale;
    const random = this.#random.fork(`lane ${lane}`);
    const owned: Owned[] = [];
    for (let i = lane; i < objects; i += lanes) {
      const type = types[i % types.length] ?? 'clusters';
      owned.push({
        type,
        namespace: `n${i % 7}`,
        name: `${this.#prefix}${i}`,
        exists: false,
        doubtful: false,
        serial: 0,
      });
    }
    const [first, ...others] = owned;
    if (!first) return;
    if (pattern === 'rounds') {
      for (const object of owned) for (let n = 0; n < 6; n++) await this.#write(object, random, false);
      return;
    }
    const one = async () => {
      await this.#write(random.pick([first, ...others]), random, true);
    };
    const several = async () => {
      const picked = Array.from({ length: Math.ceil(random.between([0, this.#scale.batch])) }, () =>
        random.pick([first, ...others]),
      );
      await this.#writeTogether([...new Set(picked)], random);
    };
    while (this.answered < writes && !this.#stopped) await (lane < this.#scale.batching ? several() : one());
  }

  async #write(object: Owned, random: Random, deletes: boolean): Promise<void> {
    await this.#turn();
    const next = this.#next(object, random, deletes);
    const collection = this.#client.collection(object.type);
    try {
      if (next.op === 'create') this.#note(object, 'create', await collection.create(next.object));
      else if (next.op === 'delete') this.#note(object, 'delete', await collection.remove(next));
      else this.#note(object, 'patch', await collection.patch(next, next.patch));
    } catch (error) {
      this.#failed(object, error);
    }
  }

  /** One request with a write for each of the objects. */
  async #writeTogether(objects: Owned[], random: Random): Promise<void> {
    await this.#turn(objects.length);
    const writes = objects.map(object => ({ object, next: this.#next(object, random, true) }));
    try {
      const outcomes = await this.#client.batch(writes.map(({ object, next }) => typed(object.type, next)));
      outcomes.forEach((outcome, at) => {
        const write = writes[at];
        if (!write) throw new Error('a batch has more outcomes than writes');
        if (outcome.error) this.#failed(write.object, outcome.error);
        else if (outcome.object) this.#note(write.object, write.next.op, outcome.object);
      });
    } catch (error) {
      for (const object of objects) this.#failed(object, error);
    }
  }

  /** What is written next to an object. */
  #next(object: Owned, random: Random, deletes: boolean): Next {
    const { type, namespace, name, exists } = object;
    // Taken whether or not they are needed, so that an outcome does not change what comes after.
    const [removes, half] = [random.happens(0.05), random.happens(0.5) ? 'a' : 'b'];
    const labels = { serial: `s${++object.serial}`, half };
    if (!exists) {
      const more = type === 'syncsets' ? { clusterRefs: [], allowMissing: true } : {};
      return { op: 'create', object: { namespace, name, labels, ...more } };
    }
    if (deletes && removes) return { op: 'delete', namespace, name };
    return { op: 'patch', namespace, name, patch: { labels } };
  }

  #note(object: Owned, op: 'create' | 'patch' | 'delete', { resourceVersion }: Resource): void {
    const { type, namespace, name, serial } = object;
    object.exists = op !== 'delete';
    const version = Number(resourceVersion);
    this.answered++;
    this.#onAnswered?.({ type, name: `${namespace}/${name}`, version });
    this.#violations.note(`${type}/${namespace}/${name}`, `answered ${version} s${serial}`);
  }

  #failed(object: Owned, error: unknown): void {
    const key = `${object.type}/${object.namespace}/${object.name}`;
    if (error instanceof PlatformError) {
      const { code } = error;
      // Believed only where an answer was lost before: else nobody could have made or removed it.
      if (code === 'AlreadyExists' && object.doubtful) object.exists = true;
      else if (code === 'NotFound' && object.doubtful) object.exists = false;
      else if (error.status === 503 || error.status === 429) object.doubtful = true;
      else this.#violations.report('unexpected answer', `${code}: ${error.message}`, { key });
    } else if (error instanceof ConnectionError) {
      this.unknown++;
      object.doubtful = true;
    } else this.#violations.report('unexpected error', String(error), { key });
    this.#violations.note(key, `failed s${object.serial}: ${String(error)}`);
  }

  /** Waits for the moment of the next write, or of the next so many, at the scale's rate. */
  async #turn(writes = 1): Promise<void> {
    const { rate } = this.#scale;
    if (rate === 0) return;
    const due = this.#began + (this.#sent / rate) * 1_000;
    this.#sent += writes;
    const wait = due - performance.now();
    if (wait > 0) await sleep(wait);
  }
}

/** The write as one of a batch, for which each type has a form of its own. */
function typed(type: Type, write: Next): BatchWrite {
  switch (type) {
    case 'clusters':
      return { type, ...write };
    case 'secrets':
      return { type, ...write };
    case 'syncsets':
      return write.op === 'create'
        ? { type, op: 'create', object: { clusterRefs: [], ...write.object } }
        : { type, ...write };
  }
}
