import {
  dropAbandonedWork,
  expireAnswers,
  expireNotices,
  maintainEventLog,
  noteWorkers,
  wakeDueWork,
  type Database,
  type Log,
} from '../db/index.js';
import { Loop } from './loop.js';
import type { Wakeups } from './wakeups.js';

export interface HousekeepingOptions {
  database: Database;
  types: string[];
  wakeups: Wakeups;
  leads: () => boolean;
  /** Largest event log of a type, in bytes. */
  eventLogMax: number;
  log: Log;
}

/**
 * What happens by time: due keys, expired leases, the event log's partitions, old notices and answers, what controllers that
 * are gone have left. One replica does it.
 */
export class Housekeeping {
  readonly #options: HousekeepingOptions;
  readonly #timers: Loop;
  readonly #retention: Loop;
  readonly #abandoned: Loop;

  constructor(options: HousekeepingOptions) {
    this.#options = options;
    this.#timers = new Loop({ name: 'due work', step: () => this.#wakeDue(), interval: 200, log: options.log });
    this.#retention = new Loop({
      name: 'event log retention',
      step: () => this.#retain(),
      interval: 60_000,
      log: options.log,
    });
    this.#abandoned = new Loop({
      name: 'abandoned work',
      step: () => this.#dropAbandoned(),
      interval: 3_600_000,
      log: options.log,
    });
  }

  start(): void {
    this.#timers.start();
    this.#retention.start();
    this.#abandoned.start();
  }

  async stop(): Promise<void> {
    await Promise.all([this.#timers.stop(), this.#retention.stop(), this.#abandoned.stop()]);
  }

  async #wakeDue(): Promise<boolean> {
    const { database, wakeups, leads } = this.#options;
    if (!leads()) return false;
    const woken = await wakeDueWork(database);
    for (const controller of woken) wakeups.wake(`work:${controller}`);
    // One look takes 5,000 due keys: there may be more.
    return woken.length > 0;
  }

  async #dropAbandoned(): Promise<boolean> {
    const { database, leads, log } = this.#options;
    if (!leads()) return false;
    const keys = await dropAbandonedWork(database);
    if (keys > 0) log('info', 'dropped keys of gone objects that nobody has worked on for a week', { keys });
    return false;
  }

  async #retain(): Promise<boolean> {
    const { database, types, eventLogMax, leads, log } = this.#options;
    if (!leads()) return false;
    const dropped = await maintainEventLog(database, types, { maxBytes: eventLogMax });
    if (dropped.length > 0) log('info', 'event log trimmed', { partitions: dropped });
    await expireNotices(database);
    await noteWorkers(database);
    // In steps, so that a day of a million answers is not one statement; what a minute does not manage the next one does.
    for (let step = 0; step < 50 && (await expireAnswers(database, 2_000)) === 2_000; step++);
    return false;
  }
}
