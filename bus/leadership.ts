import { randomUUID } from 'node:crypto';
import { attend, dropLeases, takeLeases, type Database, type Lease, type Log } from '../db/index.js';
import { Loop } from './loop.js';
import type { Wakeups } from './wakeups.js';

/**
 * A lease lives this long, in ms, and is renewed four times in it. Others ask for it in the moment when it runs out, so the
 * parts of a killed replica are taken over within 0.8 s.
 */
const lease = 750;
/** The lease that every replica holds for itself, by which the others know that it is there. */
const presence = 'replica:';

/**
 * Which parts of the bus this replica leads: its share of them, in turn by name. Leadership only saves work: a leader that was
 * frozen and goes on meets compare-and-set on cursors and rows, so two leaders do no harm.
 */
export class Leadership {
  readonly #database: Database;
  readonly #wakeups: Wakeups;
  readonly #holder: string;
  readonly #names: string[];
  readonly #loop: Loop;
  readonly #onGain: (name: string) => void;
  readonly #stopListening: () => void;
  #held = new Set<string>();
  #validUntil = 0;
  #expiry: NodeJS.Timeout | undefined;
  #stopped = false;

  /** @param options.names all parts, the same ones in every replica */
  constructor(options: {
    database: Database;
    wakeups: Wakeups;
    names: string[];
    onGain: (name: string) => void;
    log: Log;
  }) {
    this.#database = options.database;
    this.#wakeups = options.wakeups;
    this.#names = [...options.names].sort();
    this.#onGain = options.onGain;
    this.#holder = randomUUID();
    this.#loop = new Loop({ name: 'leadership', step: () => this.#renew(), interval: lease / 4, log: options.log });
    this.#stopListening = options.wakeups.on('leases', () => this.#loop.wake());
  }

  start(): void {
    this.#loop.start();
  }

  /** Gives everything back, and says so: the others take it at once. */
  async stop(): Promise<void> {
    if (this.#stopped) return;
    this.#stopped = true;
    this.#stopListening();
    await this.#loop.stop();
    clearTimeout(this.#expiry);
    this.#held = new Set();
    // A database that is away makes the others wait anyway; then the lease runs out.
    await dropLeases(this.#database, this.#holder).catch(() => undefined);
    this.#wakeups.tell('leases');
  }

  /** Whether this replica leads a part now, by its own monotonic clock from before the renewal was sent. */
  leads(name: string): boolean {
    return this.#held.has(name) && performance.now() < this.#validUntil;
  }

  async #renew(): Promise<boolean> {
    const sent = performance.now();
    const others = (await attend(this.#database, this.#holder, presence + this.#holder, lease)).filter(
      ({ holder }) => holder !== this.#holder,
    );
    const mine = shareOf(this.#holder, this.#names, others);
    const surplus = [...this.#held].filter(name => !mine.includes(name));
    if (surplus.length > 0) {
      // Whose turn they are has come: they stop here before they begin there.
      for (const name of surplus) this.#held.delete(name);
      await dropLeases(this.#database, this.#holder, surplus);
      this.#wakeups.tell('leases');
    }
    const held = new Set(await takeLeases(this.#database, this.#holder, mine, lease));
    this.#validUntil = sent + lease;
    const gained = [...held].filter(name => !this.#held.has(name));
    this.#held = held;
    for (const name of gained) this.#onGain(name);
    this.#awaitExpiry(others);
    return false;
  }

  /** Looks again when the next lease of another replica would run out; it is renewed long before, or that one is gone. */
  #awaitExpiry(others: Lease[]): void {
    clearTimeout(this.#expiry);
    const next = Math.min(...others.filter(({ left }) => left > 0).map(({ left }) => left));
    if (next < lease / 4) this.#expiry = setTimeout(() => this.#loop.wake(), next + 5);
  }
}

/** The parts that are a replica's turn: the replicas by their ids, the parts by their names, one after the other. */
function shareOf(holder: string, names: string[], others: Lease[]): string[] {
  const present = others.filter(({ name, left }) => name.startsWith(presence) && left > 0).map(one => one.holder);
  const replicas = [holder, ...present].sort();
  const turn = replicas.indexOf(holder);
  return names.filter((_, i) => i % replicas.length === turn);
}
