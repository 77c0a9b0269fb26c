import { advancePublished, publishedUpTo, readEvents, type Database, type Log, type LogEvent } from '../db/index.js';
import { Loop } from './loop.js';
import type { RabbitTransport } from './rabbitmq.js';
import type { Tail } from './tail.js';

/** What is sent at once. */
const batch = { events: 500, bytes: 2 * 2 ** 20 };
/** Batches that are on their way to the broker at once: it writes one to its disk while the next one is read and sent. */
const mostInFlight = 4;

/**
 * The cursor is moved so often, in ms, at most, instead of after each batch, of which there are a hundred a second where events come
 * one by one. Whoever takes the lead after a crash repeats what was published since.
 */
const saveEvery = 50;

/** Which events are published, and where to. */
export interface PublicationOptions {
  database: Database;
  type: string;
  tail: Tail;
  rabbit: RabbitTransport;
  /** Whether this replica leads the type's relay now. */
  leads: () => boolean;
  log: Log;
}

interface Sent {
  to: number;
  confirmed: Promise<void>;
}

/**
 * Publishes the events of one type to the broker, in order and confirmed, before its cursor moves over them. What it holds
 * in memory is bounded by the batches in flight, however far behind it is.
 */
export class Publication {
  readonly #options: PublicationOptions;
  readonly #loop: Loop;
  readonly #stopListening: () => void;
  /** What is published and confirmed; undefined: to be read from the database. */
  #cursor: number | undefined;
  /** Where the database has the cursor, and since when. */
  #saved = { version: 0, at: -Infinity };
  #saving: NodeJS.Timeout | undefined;
  #lastAt = 0;
  #stopped = false;

  constructor(options: PublicationOptions) {
    this.#options = options;
    this.#loop = new Loop({
      name: `publishing ${options.type}`,
      step: () => this.#publish(),
      interval: 1_000,
      log: options.log,
    });
    const wake = () => this.wake();
    const lost = () => {
      // A database that went back to an older state has an older cursor too.
      this.#cursor = undefined;
      this.wake();
    };
    this.#stopListening = options.tail.subscribe({ events: wake, lost });
  }

  start(): void {
    this.#loop.start();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#stopListening();
    await this.#loop.stop();
    clearTimeout(this.#saving);
    // Without it the next leader repeats a few events.
    await this.#save().catch(() => undefined);
  }

  wake(): void {
    if (this.#leads()) this.#loop.wake();
  }

  #leads(): boolean {
    return !this.#stopped && this.#options.leads();
  }

  /** Until nothing is left, or another one leads; then all that was sent is confirmed. Throws when the broker refuses. */
  async #publish(): Promise<boolean> {
    const { database, type, rabbit } = this.#options;
    if (!this.#leads()) {
      await this.#save().catch(() => undefined);
      // A stop tries again.
      if (!this.#stopped) this.#cursor = undefined;
      return false;
    }
    if (this.#cursor === undefined) {
      const version = await publishedUpTo(database, type);
      this.#cursor = version;
      this.#saved = { version, at: performance.now() };
      this.#lastAt = 0;
    }
    let from = this.#cursor;
    const inFlight: Sent[] = [];
    const failed = new AbortController();
    try {
      for (;;) {
        const events = this.#leads() && !failed.signal.aborted ? await this.#after(from) : [];
        const last = events.at(-1);
        if (last) {
          const confirmed = rabbit.publish(type, events, failed.signal);
          // Awaited in its turn, and at the end in any case. Meanwhile nothing may overtake it on the next connection: whoever
          // drops what is not newer than the last they saw would lose it.
          confirmed.catch(() => failed.abort(new Error('what came before was not published')));
          inFlight.push({ to: last.version, confirmed });
          from = last.version;
          this.#lastAt = last.at;
        }
        if (inFlight.length === 0) return !(await this.#saveInTime());
        if (last && inFlight.length < mostInFlight) continue;
        const oldest = inFlight.shift();
        // Another leader has moved the cursor: what was sent here are repeats, go on from where that one is.
        if (oldest && !(await this.#settle(oldest))) return true;
      }
    } catch (error) {
      // What the broker confirmed before it failed is not repeated.
      await this.#save().catch(() => (this.#cursor = undefined));
      throw error;
    } finally {
      await Promise.allSettled(inFlight.map(({ confirmed }) => confirmed));
    }
  }

  /** Waits for the broker, and moves the cursor when it is time; false when it is not where this process left it. */
  async #settle({ to, confirmed }: Sent): Promise<boolean> {
    await confirmed;
    // The database went back to an older state meanwhile.
    if (this.#cursor === undefined) return false;
    this.#cursor = to;
    return this.#saveInTime();
  }

  async #saveInTime(): Promise<boolean> {
    if (this.#cursor === this.#saved.version) return true;
    const wait = this.#saved.at + saveEvery - performance.now();
    if (wait <= 0) return this.#save();
    this.#saving ??= setTimeout(() => {
      this.#saving = undefined;
      this.#loop.wake();
    }, wait);
    return true;
  }

  /** Moves the cursor in the database over what is published; false when it is not where this process left it. */
  async #save(): Promise<boolean> {
    const { database, type } = this.#options;
    const to = this.#cursor;
    if (to === undefined || to === this.#saved.version) return true;
    const moved = await advancePublished(database, type, this.#saved.version, to);
    this.#saved = { version: to, at: performance.now() };
    if (!moved) this.#cursor = undefined;
    return moved;
  }

  async #after(version: number): Promise<LogEvent[]> {
    const { database, type, tail } = this.#options;
    const recent = tail.since(version);
    if (recent) return light(recent);
    const since = this.#lastAt === 0 ? undefined : this.#lastAt - 300_000;
    const { events } = await readEvents(database, type, version, { ...batch, since });
    // The clock was set back further than that: look again without the bound.
    if (since === undefined || events[0]?.previous === version) return events;
    return (await readEvents(database, type, version, batch)).events;
  }
}

/** As many of the first events as a batch may hold; one at least. */
function light(events: LogEvent[]): LogEvent[] {
  let bytes = 0;
  let count = 0;
  for (const { object } of events) {
    bytes += object.length;
    if (count > 0 && (count === batch.events || bytes > batch.bytes)) break;
    count++;
  }
  return events.slice(0, count);
}
