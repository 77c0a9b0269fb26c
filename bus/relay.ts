import { advancePublished, publishedUpTo, readEvents, relayWork, type Database, type Log } from '../db/index.js';
import { Loop } from './loop.js';
import type { RabbitTransport } from './rabbitmq.js';
import type { Wakeups } from './wakeups.js';

const batch = 500;

export interface RelayOptions {
  database: Database;
  type: string;
  wakeups: Wakeups;
  /** undefined: there is no broker, and nothing to publish. */
  rabbit: RabbitTransport | undefined;
  /** Whether this replica leads the type's relay now. */
  leads: () => boolean;
  log: Log;
}

/**
 * Takes the events of one type further, by two cursors that do not wait for each other: one makes work rows for the
 * controllers that are interested, in Postgres alone; the other publishes to the broker.
 */
export class Relay {
  readonly #options: RelayOptions;
  readonly #work: Loop;
  readonly #publishing: Loop | undefined;
  readonly #stopListening: () => void;
  #cursor: number | undefined;
  #lastAt = 0;

  constructor(options: RelayOptions) {
    const { type, wakeups, rabbit, log } = options;
    this.#options = options;
    this.#work = new Loop({ name: `work relay ${type}`, step: () => this.#relayWork(), interval: 1_000, log });
    this.#publishing =
      rabbit && new Loop({ name: `publishing ${type}`, step: () => this.#publish(rabbit), interval: 1_000, log });
    this.#stopListening = wakeups.on(`events:${type}`, () => this.wake());
  }

  start(): void {
    this.#work.start();
    this.#publishing?.start();
  }

  async stop(): Promise<void> {
    this.#stopListening();
    await Promise.all([this.#work.stop(), this.#publishing?.stop()]);
  }

  wake(): void {
    if (!this.#options.leads()) return;
    this.#work.wake();
    this.#publishing?.wake();
  }

  async #relayWork(): Promise<boolean> {
    const { database, type, wakeups, leads } = this.#options;
    if (!leads()) return false;
    const step = await relayWork(database, type, batch);
    for (const controller of step?.woken ?? []) wakeups.wake(`work:${controller}`);
    return step?.events === batch;
  }

  async #publish(rabbit: RabbitTransport): Promise<boolean> {
    const { database, type, leads } = this.#options;
    if (!leads()) {
      this.#cursor = undefined;
      return false;
    }
    if (this.#cursor === undefined) {
      this.#cursor = await publishedUpTo(database, type);
      this.#lastAt = 0;
    }
    const from = this.#cursor;
    const since = this.#lastAt === 0 ? undefined : this.#lastAt - 300_000;
    let events = await readEvents(database, type, from, batch, since);
    // The clock was set back further than that: look again without the bound.
    if (since !== undefined && events[0]?.previous !== from) events = await readEvents(database, type, from, batch);
    const last = events.at(-1);
    if (!last) return false;
    await rabbit.publish(type, events);
    // Another leader has moved it: what was sent here are repeats, go on from where that one is.
    this.#cursor = (await advancePublished(database, type, from, last.version)) ? last.version : undefined;
    this.#lastAt = last.at;
    return events.length === batch || this.#cursor === undefined;
  }
}
