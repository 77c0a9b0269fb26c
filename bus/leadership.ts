import { randomUUID } from 'node:crypto';
import { dropLeases, takeLeases, type Database, type Log } from '../db/index.js';
import { Loop } from './loop.js';

/** A lease lives this long, in ms, and is renewed four times in it: the next replica takes over within a second. */
const lease = 900;

/**
 * Which parts of the bus this replica leads. Leadership only saves work: a leader that was frozen and goes on meets
 * compare-and-set on cursors and rows, so two leaders do no harm.
 */
export class Leadership {
  readonly #database: Database;
  readonly #holder = randomUUID();
  readonly #names: string[];
  readonly #loop: Loop;
  readonly #onGain: (name: string) => void;
  #held = new Set<string>();
  #validUntil = 0;

  constructor(options: { database: Database; names: string[]; onGain: (name: string) => void; log: Log }) {
    this.#database = options.database;
    this.#names = options.names;
    this.#onGain = options.onGain;
    this.#loop = new Loop({ name: 'leadership', step: () => this.#renew(), interval: lease / 4, log: options.log });
  }

  start(): void {
    this.#loop.start();
  }

  async stop(): Promise<void> {
    await this.#loop.stop();
    this.#held = new Set();
    // Without this the others wait for the lease to run out; a database that is away makes them wait anyway.
    await dropLeases(this.#database, this.#holder).catch(() => undefined);
  }

  /** Whether this replica leads a part now, by its own monotonic clock from before the renewal was sent. */
  leads(name: string): boolean {
    return this.#held.has(name) && performance.now() < this.#validUntil;
  }

  async #renew(): Promise<boolean> {
    const sent = performance.now();
    const held = new Set(await takeLeases(this.#database, this.#holder, this.#names, lease));
    this.#validUntil = sent + lease;
    const gained = [...held].filter(name => !this.#held.has(name));
    this.#held = held;
    for (const name of gained) this.#onGain(name);
    return false;
  }
}
