import type { Database, Log } from '../db/index.js';
import type { Feeder } from './feeder.js';
import type { Offers } from './offers.js';
import { Publication } from './publication.js';
import type { RabbitTransport } from './rabbitmq.js';
import type { Tail } from './tail.js';
import type { Wakeups } from './wakeups.js';
import { WorkRelay } from './work-relay.js';

/** Of which type the relay is, and between what. */
export interface RelayOptions {
  database: Database;
  type: string;
  tail: Tail;
  wakeups: Wakeups;
  offers: Offers;
  /** undefined: there is no broker, and nothing to publish. */
  rabbit: RabbitTransport | undefined;
  /** Feeds its queues. */
  feeder: Feeder | undefined;
  /** Whether this replica leads the type's relay now. */
  leads: () => boolean;
  log: Log;
}

/**
 * Takes the events of one type further, by two cursors that do not wait for each other: one makes work rows for the
 * controllers that are interested, in Postgres alone; the other publishes to the broker.
 */
export class Relay {
  readonly #cursors: (WorkRelay | Publication)[];

  constructor({ rabbit, ...options }: RelayOptions) {
    this.#cursors = [new WorkRelay(options), ...(rabbit ? [new Publication({ ...options, rabbit })] : [])];
  }

  start(): void {
    for (const cursor of this.#cursors) cursor.start();
  }

  async stop(): Promise<void> {
    await Promise.all(this.#cursors.map(cursor => cursor.stop()));
  }

  wake(): void {
    for (const cursor of this.#cursors) cursor.wake();
  }
}
