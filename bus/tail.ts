import { logRange, readEvents, type Database, type Log, type LogEvent } from '../db/index.js';
import { Loop } from './loop.js';
import type { Wakeups } from './wakeups.js';

/** Recent events are kept in memory up to these bounds; who is further behind reads the log itself. */
const kept = { events: 10_000, bytes: 32 * 2 ** 20 };
const batch = { events: 1_000, bytes: 8 * 2 ** 20 };
/** How long, in ms, an offered batch waits for the one before it, which is about to be offered too. */
const patience = 2;
/** The clock of a database that failed over may be behind by this, in ms, without a second look at the log. */
const clockSkew = 300_000;

/** Who hears of the events of a type. It must not throw. */
export interface Subscriber {
  /** The next events, in order and each once. */
  events: (events: readonly LogEvent[]) => void;
  /**
   * What follows does not continue what came before: the log no longer held it (a process that was frozen for longer than
   * events are kept), or the database went back to an older state.
   */
  lost?: () => void;
}

/**
 * Follows the log of one type for a whole process: one query per batch of events, however many subscribers there are, and
 * none for events that this process wrote itself, which are offered by the writer, or that came with a notification.
 */
export class Tail {
  readonly #database: Database;
  readonly #type: string;
  readonly #loop: Loop;
  readonly #subscribers = new Set<Subscriber>();
  readonly #stopListening: () => void;
  /** Batches whose predecessors are not known yet. */
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
    this.#stopListening = options.wakeups.on(`events:${options.type}`, stretches => {
      if (stretches) for (const events of stretches) this.offer(events);
      else this.#loop.wake();
    });
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
   * Hands on every event after this moment until the returned function is called. Use `since` first to catch up: both
   * without a wait between them leave no gap.
   */
  subscribe(subscriber: Subscriber): () => void {
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
   * Takes the events of a batch that was committed, by this process or by another that has sent them along, so that nobody has
   * to read them from the database: that costs a query, about as much as a small write itself. They may come before those of an
   * earlier batch.
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
    const from = this.#head;
    if (from === undefined) return this.#begin();
    const offered = new Set(this.#offered);
    const since = this.#lastAt === 0 ? undefined : this.#lastAt - clockSkew;
    let { events, more } = await readEvents(this.#database, this.#type, from, { ...batch, since });
    if (events[0]?.previous !== from) {
      // Nothing new as a rule. Else the clock was set back by more than the bound, or the log does not continue.
      const { start, head } = await logRange(this.#database, this.#type);
      if (head < from) this.#lose(head);
      else if (head > from) {
        ({ events, more } = await readEvents(this.#database, this.#type, from, batch));
        if (events.length === 0 && start > from) this.#lose(start);
      }
    }
    this.#take(events);
    this.#takeOffered();
    // What was offered before this look and does not follow even now is of a state that the database went back from.
    if (!more) this.#offered = this.#offered.filter(one => !offered.has(one));
    return more;
  }

  /** Knows the last events from the start: the watchers of a process that went away come here and go on by version. */
  async #begin(): Promise<boolean> {
    const { start, head } = await logRange(this.#database, this.#type);
    const after = Math.max(start, head - batch.events);
    const { events } = await readEvents(this.#database, this.#type, after, batch);
    const last = events.findIndex(({ version }) => version === head);
    this.#head = head;
    if (last >= 0) this.#keep(events.slice(0, last + 1));
    return true;
  }

  /** Hands on those of the events that are new; they must follow what is known, or begin before its end. */
  #take(events: LogEvent[]): void {
    const head = this.#head ?? 0;
    const fresh = events.slice(firstAfter(events, head));
    const [first, last] = [fresh[0], fresh.at(-1)];
    if (!first || !last) return;
    if (first.previous > head) this.#lose(first.previous);
    this.#head = last.version;
    this.#lastAt = last.at;
    this.#keep(fresh);
    for (const subscriber of this.#subscribers) subscriber.events(fresh);
  }

  /** Goes on after a version that does not follow what subscribers know. */
  #lose(version: number): void {
    this.#head = version;
    this.#recent = [];
    this.#bytes = 0;
    this.#lastAt = 0;
    for (const subscriber of this.#subscribers) subscriber.lost?.();
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
    // In large steps: the array is moved as a whole each time.
    if (this.#recent.length < kept.events * 1.1 && this.#bytes < kept.bytes * 1.1) return;
    let surplus = 0;
    while (this.#recent.length - surplus > kept.events || this.#bytes > kept.bytes) {
      const oldest = this.#recent[surplus];
      if (!oldest) break;
      this.#bytes -= size(oldest);
      surplus++;
    }
    this.#recent = this.#recent.slice(surplus);
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
