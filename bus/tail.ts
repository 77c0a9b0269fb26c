import { logRange, readEvents, type Database, type Log, type LogEvent } from '../db/index.js';
import { Loop } from './loop.js';
import type { Wakeups } from './wakeups.js';

/** Recent events are kept in memory up to these bounds; who is further behind reads the log itself. */
const kept = { events: 10_000, bytes: 64 * 2 ** 20 };
const batch = 1_000;

/**
 * Follows the log of one type for a whole process: one query per batch of events, however many subscribers there are.
 */
export class Tail {
  readonly #database: Database;
  readonly #type: string;
  readonly #loop: Loop;
  readonly #subscribers = new Set<(events: readonly LogEvent[]) => void>();
  readonly #stopListening: () => void;
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
    let low = 0;
    let high = this.#recent.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#recent[middle]?.version ?? 0) > version) high = middle;
      else low = middle + 1;
    }
    return this.#recent.slice(low);
  }

  async #read(): Promise<boolean> {
    if (this.#head === undefined) {
      this.#head = (await logRange(this.#database, this.#type)).head;
      return true;
    }
    // Five minutes back: the clock of a database that failed over may be behind.
    const since = this.#lastAt === 0 ? undefined : this.#lastAt - 300_000;
    let events = await readEvents(this.#database, this.#type, this.#head, batch, since);
    // The clock was set back further than that: look again without the bound.
    if (since !== undefined && events[0]?.previous !== this.#head) {
      events = await readEvents(this.#database, this.#type, this.#head, batch);
    }
    const last = events.at(-1);
    if (!last) return false;
    this.#head = last.version;
    this.#lastAt = last.at;
    this.#keep(events);
    for (const subscriber of this.#subscribers) subscriber(events);
    return events.length === batch;
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

function size(event: LogEvent): number {
  return event.object.length + (event.before?.length ?? 0) + 400;
}
