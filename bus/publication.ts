import { advancePublished, publishedUpTo, readEvents, type Database, type Log, type LogEvent } from '../db/index.js';
import { Loop } from './loop.js';
import type { RabbitTransport } from './rabbitmq.js';
import type { Tail } from './tail.js';

/** What is sent at once. */
const batch = { events: 500, bytes: 2 * 2 ** 20 };
/** Batches that are on their way to the broker at once: it writes one to its disk while the next one is read and sent. */
const mostInFlight = 4;

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
  from: number;
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
  #cursor: number | undefined;
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
      this.#cursor = undefined;
      return false;
    }
    if (this.#cursor === undefined) {
      this.#cursor = await publishedUpTo(database, type);
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
          inFlight.push({ from, to: last.version, confirmed });
          from = last.version;
          this.#lastAt = last.at;
        }
        if (inFlight.length === 0) return false;
        if (last && inFlight.length < mostInFlight) continue;
        const oldest = inFlight.shift();
        // Another leader has moved the cursor: what was sent here are repeats, go on from where that one is.
        if (oldest && !(await this.#settle(oldest))) return true;
      }
    } catch (error) {
      this.#cursor = undefined;
      throw error;
    } finally {
      await Promise.allSettled(inFlight.map(({ confirmed }) => confirmed));
    }
  }

  /** Waits for the broker and moves the cursor; false when it is not where this process left it. */
  async #settle({ from, to, confirmed }: Sent): Promise<boolean> {
    await confirmed;
    const moved = await advancePublished(this.#options.database, this.#options.type, from, to);
    this.#cursor = moved ? to : undefined;
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
