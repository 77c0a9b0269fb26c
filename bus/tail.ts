import { logRange, readEvents, type Database, type Log, type LogEvent } from '../db/index.js';
import { Loop } from './loop.js';
import type { Wakeups } from './wakeups.js';

/** Recent events are kept in memory up to these bounds; who is further behind reads the log itself. */
const kept = { events: 10_000, bytes: 64 * 2 ** 20 };
const batch = 1_000;
/** How long, in ms, an offered batch waits for the one before it, which is about to be offered too. */
const patience = 2;

/**
 * Follows the log of one type for a whole process: one query per batch of events, however many subscribers there are, and
 * none for events that this process wrote itself, which are offered by the writer.
 */
export class Tail {
  readonly #database: Database;
  readonly #type: string;
  readonly #loop: Loop;
  readonly #subscribers = new Set<(events: readonly LogEvent[]) => void>();
  readonly #stopListening: () => void;
  /** Batches written here whose predecessors are not known yet. */
  #offered: LogEvent[][] = [];
  #gap: NodeJS.Timeout | undefined;
  #recent: LogEvent[] = [];
  #bytes = 0;
  #head: number | undefined;
  #lastAt = 0;

  constructor(options: { database: Database; type: string; wakeups: Wakeups; log: Log }) {
    this.#database = options.database;
    this.#type = options.type;
    this.#loop = new Loop({
      name: `tail ${options.type}`,
      step: () => this.#read(),
      interval: 1_000,
      log: options.log,
    });
    this.#stopListening = options.wakeups.on(`events:${options.type}`, () => this.#loop.wake());
  }

  start(): void {
    this.#loop.start();
  }

  async stop(): Promise<void> {
    this.#stopListening();
    clearTimeout(this.#gap);
    await this.#loop.stop();
  }

  /** The newest version that subscribers have been given; undefined until the first look at the log. */
  get head(): number | undefined {
    return this.#head;
  }

  /**
   * Hands on every event after this moment, in order, each once, until the returned function is called. Throwing is not
   * allowed in a subscriber. Use `since` first to catch up: both without a wait between them leave no gap.
   */
  subscribe(subscriber: (events: readonly LogEvent[]) => void): () => void {
    this.#subscribers.add(subscriber);
    return () => this.#subscribers.delete(subscriber);
  }

  /** The events after a version up to `head`, from memory; undefined when memory does not reach back that far. */
  since(version: number): LogEvent[] | undefined {
    if (this.#head === undefined) return undefined;
    if (version >= this.#head) return [];
    const first = this.#recent[0];
    if (!first || first.previous > version) return undefined;
    return this.#recent.slice(firstAfter(this.#recent, version));
  }

  /**
   * Takes the events of a batch that this process has committed, so that nobody has to read them from the database: that
   * costs a query, about as much as a small write itself. They may come before those of an earlier batch.
   */
  offer(events: LogEvent[]): void {
    if (this.#head === undefined) return;
    this.#offered.push(events);
    this.#takeOffered();
    if (this.#offered.length === 0) return;
    // Another replica wrote in between and its notification is under way, or our own earlier batch is.
    this.#gap ??= setTimeout(() => {
      this.#gap = undefined;
      if (this.#offered.length > 0) this.#loop.wake();
    }, patience);
  }

  async #read(): Promise<boolean> {
    if (this.#head === undefined) {
      this.#head = (await logRange(this.#database, this.#type)).head;
      return true;
    }
    const from = this.#head;
    // Five minutes back: the clock of a database that failed over may be behind.
    const since = this.#lastAt === 0 ? undefined : this.#lastAt - 300_000;
    let events = await readEvents(this.#database, this.#type, from, batch, since);
    // The clock was set back further than that: look again without the bound.
    if (since !== undefined && events[0]?.previous !== from) {
      events = await readEvents(this.#database, this.#type, from, batch);
    }
    this.#take(events);
    this.#takeOffered();
    return events.length === batch;
  }

  /** Hands on those of the events that are new; they must follow what is known, or begin before its end. */
  #take(events: LogEvent[]): void {
    const fresh = events.slice(firstAfter(events, this.#head ?? 0));
    const last = fresh.at(-1);
    if (!last) return;
    this.#head = last.version;
    this.#lastAt = last.at;
    this.#keep(fresh);
    for (const subscriber of this.#subscribers) subscriber(fresh);
  }

  #takeOffered(): void {
    for (;;) {
      const head = this.#head ?? 0;
      const next = this.#offered.findIndex(([first]) => first !== undefined && first.previous <= head);
      if (next < 0) return;
      this.#offered.splice(next, 1).forEach(events => this.#take(events));
    }
  }

  #keep(events: LogEvent[]): void {
    for (const event of events) this.#bytes += size(event);
    this.#recent.push(...events);
    let surplus = 0;
    while (this.#recent.length - surplus > kept.events || this.#bytes > kept.bytes) {
      const oldest = this.#recent[surplus];
      if (!oldest) break;
      this.#bytes -= size(oldest);
      surplus++;
    }
    // Shifted in large steps: an array of thousands is moved as a whole each time.
    if (surplus > 0) this.#recent = this.#recent.slice(surplus);
  }
}

/** The index of the first event above a version. */
function firstAfter(events: readonly LogEvent[], version: number): number {
  let low = 0;
  let high = events.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((events[middle]?.version ?? 0) > version) high = middle;
    else low = middle + 1;
  }
  return low;
}

function size(event: LogEvent): number {
  return event.object.length + (event.before?.length ?? 0) + 400;
}
