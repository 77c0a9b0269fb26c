import { isPlatformError, pause, type Controllers } from '../../client/index.js';
import type { Log } from './log.js';
import { messageOf } from './message.js';

/** Milliseconds between two looks at how many replicas there are; so long a new key may wait where all have their share. */
const interval = 1000;
/** Keys that nobody has taken for so many seconds are anybody's: the others have no room for them. */
const leftOver = 5;

/** Whose share is looked after, and what it has now. */
export interface ShareOptions {
  controllers: Controllers;
  controller: string;
  /** Keys that this worker holds. */
  active: () => number;
  /** Gives keys back, to others. */
  release: (count: number) => void;
  /** `limit` has changed. */
  changed: () => void;
  log: Log;
}

/**
 * The share of a long-running controller's keys that a replica takes. Its runs do not end by themselves, so a replica that joins
 * would find all of them taken: the others release what exceeds their share then, and only then, lest a key goes to and fro
 * between replicas that have no room.
 */
export class Share {
  readonly #options: ShareOptions;
  readonly #stop = new AbortController();
  #loop: Promise<void> = Promise.resolve();
  #workers = 1;
  #limit = Infinity;

  constructor(options: ShareOptions) {
    this.#options = options;
  }

  /** Most keys that this worker should hold at present. */
  get limit(): number {
    return this.#limit;
  }

  start(): void {
    this.#loop = this.#watch();
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#loop;
  }

  async #watch(): Promise<void> {
    const { signal } = this.#stop;
    for (;;) {
      await pause(interval, signal);
      if (signal.aborted) return;
      // Without the API nothing is claimed either, and the worker says so.
      await this.#look().catch((error: unknown) => {
        if (!isPlatformError(error)) this.#options.log.debug({ error: messageOf(error) }, 'cannot see other replicas');
      });
    }
  }

  async #look(): Promise<void> {
    const { controllers, controller, active, release, changed, log } = this.#options;
    const { queued, claimed, workers, oldestSeconds } = await controllers.read(controller, this.#stop.signal);
    const share = Math.max(1, Math.ceil((queued + claimed) / Math.max(1, workers)));
    const surplus = active() - share;
    if (workers > this.#workers && surplus > 0) {
      log.info({ count: surplus, replicas: workers }, 'giving keys to replicas that joined');
      release(surplus);
    }
    this.#workers = workers;
    this.#limit = workers < 2 || oldestSeconds > leftOver ? Infinity : share;
    changed();
  }
}
