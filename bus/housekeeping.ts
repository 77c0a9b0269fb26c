import {
  dropAbandonedWork,
  expireAnswers,
  expireNotices,
  maintainEventLog,
  noteWorkers,
  resyncNext,
  wakeDueWork,
  type Database,
  type Log,
} from '../db/index.js';
import { reasonOf } from '../reason.js';
import { Loop } from './loop.js';
import type { Offers } from './offers.js';

/** Which logs are kept short, and by whom. */
export interface HousekeepingOptions {
  database: Database;
  types: string[];
  offers: Offers;
  leads: () => boolean;
  /** Largest event log of a type, in bytes. */
  eventLogMax: number;
  log: Log;
}

/** Milliseconds between two looks at what is kept for minutes and hours. */
const minute = 60_000;

/**
 * What happens by time: due keys, expired leases, the event log's partitions, old notices and answers, what controllers that are gone
 * have left. One replica does it, each by itself: what fails holds nothing else up. Keys of all objects of a type are enqueued by
 * every replica, whoever leads: beside one of a release that knows nothing of them too.
 */
export class Housekeeping {
  readonly #options: HousekeepingOptions;
  readonly #loops: Loop[];

  constructor(options: HousekeepingOptions) {
    this.#options = options;
    const { database, log } = options;
    const loop = (name: string, interval: number, step: () => Promise<boolean>) =>
      new Loop({ name, interval, step: async () => options.leads() && (await step()), log });
    const each = (name: string, interval: number, act: () => Promise<void>) =>
      loop(name, interval, () => act().then(() => false));
    this.#loops = [
      loop('due work', 200, () => this.#wakeDue()),
      new Loop({ name: 'all objects', interval: 200, step: () => this.#resync(), log }),
      each('event log retention', minute, () => this.#trimLogs()),
      each('old notices', minute, () => expireNotices(database)),
      each('live workers', minute, () => noteWorkers(database)),
      each('old answers', minute, () => this.#expireAnswers()),
      each('abandoned work', 60 * minute, () => this.#dropAbandoned()),
    ];
  }

  start(): void {
    for (const loop of this.#loops) loop.start();
  }

  async stop(): Promise<void> {
    await Promise.all(this.#loops.map(loop => loop.stop()));
  }

  async #wakeDue(): Promise<boolean> {
    const { database, offers } = this.#options;
    const woken = await wakeDueWork(database);
    for (const controller of woken) offers.queued(controller);
    // One look takes 5,000 due keys: there may be more.
    return woken.length > 0;
  }

  /** The next keys of a controller that is to be given every object of a type. */
  async #resync(): Promise<boolean> {
    const { database, offers } = this.#options;
    const step = await resyncNext(database);
    if (step?.woken) offers.queued(step.controller);
    return step !== undefined;
  }

  /** All types, whatever is wrong with one of them. @throws Error naming those that could not be looked after */
  async #trimLogs(): Promise<void> {
    const { database, types, eventLogMax, log } = this.#options;
    const failed: string[] = [];
    for (const type of types) {
      try {
        const dropped = await maintainEventLog(database, [type], { maxBytes: eventLogMax });
        if (dropped.length > 0) log('info', 'event log trimmed', { partitions: dropped });
      } catch (error) {
        failed.push(`${type}: ${reasonOf(error)}`);
      }
    }
    if (failed.length > 0) throw new Error(failed.join('; '));
  }

  /** In steps, so that a day of a million answers is not one statement; what a minute does not manage the next one does. */
  async #expireAnswers(): Promise<void> {
    for (let step = 0; step < 50 && (await expireAnswers(this.#options.database, 2_000)) === 2_000; step++);
  }

  async #dropAbandoned(): Promise<void> {
    const { database, log } = this.#options;
    const keys = await dropAbandonedWork(database);
    if (keys > 0) log('info', 'dropped keys of gone objects that nobody has worked on for a week', { keys });
  }
}
