import { setTimeout as sleep } from 'node:timers/promises';
import { connect, ConnectionError, PlatformError, type Client, type Resource } from '../../client/index.js';
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

/** Clients that write at the same time, each its own share of the objects, so that each knows what must be there. */
export class Writers {
  readonly answered: Answered[] = [];
  /** Calls that were given up without an answer: carried out or not. */
  unknown = 0;
  readonly #scale: Scale;
  readonly #violations: Violations;
  readonly #client: Client;
  readonly #random: Random;
  readonly #prefix: string;
  readonly #began = performance.now();
  #sent = 0;
  #stopped = false;

  /** @param options.prefix of their objects' names, so that nobody else writes them */
  constructor(options: { scale: Scale; url: string; prefix: string; random: Random; violations: Violations }) {
    const { scale, url, prefix, random, violations } = options;
    this.#prefix = prefix;
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
    while (this.answered.length < writes && !this.#stopped)
      await this.#write(random.pick([first, ...others]), random, true);
  }

  async #write(object: Owned, random: Random, deletes: boolean): Promise<void> {
    await this.#turn();
    const { type, namespace, name } = object;
    // Taken whether or not they are needed, so that an outcome does not change what comes after.
    const [removes, half] = [random.happens(0.05), random.happens(0.5) ? 'a' : 'b'];
    const labels = { serial: `s${++object.serial}`, half };
    const collection = this.#client.collection(type);
    try {
      if (!object.exists) {
        const more = type === 'syncsets' ? { clusterRefs: [], allowMissing: true } : {};
        this.#note(object, await collection.create({ namespace, name, labels, ...more }));
        object.exists = true;
      } else if (deletes && removes) {
        const removed = await collection.remove({ namespace, name });
        this.#note(object, removed);
        object.exists = false;
      } else {
        this.#note(object, await collection.patch({ namespace, name }, { labels }));
        object.exists = true;
      }
    } catch (error) {
      this.#failed(object, error);
    }
  }

  #note({ type, namespace, name, serial }: Owned, { resourceVersion }: Resource): void {
    const version = Number(resourceVersion);
    this.answered.push({ type, name: `${namespace}/${name}`, version });
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

  /** Waits for the moment of the next write at the scale's rate. */
  async #turn(): Promise<void> {
    const { rate } = this.#scale;
    if (rate === 0) return;
    const due = this.#began + (this.#sent++ / rate) * 1_000;
    const wait = due - performance.now();
    if (wait > 0) await sleep(wait);
  }
}
