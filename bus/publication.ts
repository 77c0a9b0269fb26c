import { advancePublished, publishedUpTo, readEvents, type Database, type Log, type LogEvent } from '../db/index.js';
import { Loop } from './loop.js';
import type { RabbitTransport } from './rabbitmq.js';
import type { Tail } from './tail.js';

const batch = 500;

export interface PublicationOptions {
  database: Database;
  type: string;
  tail: Tail;
  rabbit: RabbitTransport;
  /** Whether this replica leads the type's relay now. */
  leads: () => boolean;
  log: Log;
}

/** Publishes the events of one type to the broker, in order and confirmed, before its cursor moves over them. */
export class Publication {
  readonly #options: PublicationOptions;
  readonly #loop: Loop;
  readonly #stopListening: () => void;
  #cursor: number | undefined;
  #lastAt = 0;

  constructor(options: PublicationOptions) {
    this.#options = options;
    this.#loop = new Loop({
      name: `publishing ${options.type}`,
      step: () => this.#publish(),
      interval: 1_000,
      log: options.log,
    });
    this.#stopListening = options.tail.subscribe(() => this.wake());
  }

  start(): void {
    this.#loop.start();
  }

  async stop(): Promise<void> {
    this.#stopListening();
    await this.#loop.stop();
  }

  wake(): void {
    if (this.#options.leads()) this.#loop.wake();
  }

  async #publish(): Promise<boolean> {
    const { database, type, rabbit, leads } = this.#options;
    if (!leads()) {
      this.#cursor = undefined;
      return false;
    }
    if (this.#cursor === undefined) {
      this.#cursor = await publishedUpTo(database, type);
      this.#lastAt = 0;
    }
    const from = this.#cursor;
    const events = await this.#after(from);
    const last = events.at(-1);
    if (!last) return false;
    await rabbit.publish(type, events);
    // Another leader has moved it: what was sent here are repeats, go on from where that one is.
    this.#cursor = (await advancePublished(database, type, from, last.version)) ? last.version : undefined;
    this.#lastAt = last.at;
    return events.length === batch || this.#cursor === undefined;
  }

  async #after(version: number): Promise<LogEvent[]> {
    const { database, type, tail } = this.#options;
    const recent = tail.since(version);
    if (recent) return recent.slice(0, batch);
    const since = this.#lastAt === 0 ? undefined : this.#lastAt - 300_000;
    const events = await readEvents(database, type, version, batch, since);
    // The clock was set back further than that: look again without the bound.
    if (since !== undefined && events[0]?.previous !== version) return readEvents(database, type, version, batch);
    return events;
  }
}
