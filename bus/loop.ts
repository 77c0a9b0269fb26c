import type { Log } from '../db/index.js';
import { reasonOf } from '../reason.js';

/** What is repeated, and how often. */
export interface LoopOptions {
  /** What it does, for the log. */
  name: string;
  /** One step; true: there is more to do at once. */
  step: () => Promise<boolean>;
  /** Milliseconds between steps that nobody asked for. */
  interval: number;
  log: Log;
}

/**
 * Runs a step whenever it is woken and at an interval, never two at a time. A failing step is logged (once per reason) and
 * tried again with a back-off of 100 ms to 5 s.
 */
export class Loop {
  readonly #options: LoopOptions;
  #timer: NodeJS.Timeout | undefined;
  #running: Promise<void> | undefined;
  #again = false;
  #failures = 0;
  #lastReason = '';
  #state: 'new' | 'started' | 'stopped' = 'new';

  constructor(options: LoopOptions) {
    this.#options = options;
  }

  start(): void {
    if (this.#state !== 'new') return;
    this.#state = 'started';
    this.wake();
  }

  async stop(): Promise<void> {
    this.#state = 'stopped';
    clearTimeout(this.#timer);
    await this.#running;
  }

  /** Asks for a step now, or right after the one under way. A loop that is backing off keeps waiting. */
  wake(): void {
    if (this.#state !== 'started') return;
    if (this.#running) {
      this.#again = true;
      return;
    }
    if (this.#failures > 0 && this.#timer) return;
    this.#run();
  }

  #run(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#again = false;
    this.#running = this.#options
      .step()
      .then(
        more => {
          if (this.#failures > 0) this.#options.log('info', 'recovered', { loop: this.#options.name });
          this.#failures = 0;
          this.#lastReason = '';
          return more;
        },
        (error: unknown) => {
          const reason = reasonOf(error);
          if (reason !== this.#lastReason)
            this.#options.log('warn', 'failed, will try again', { loop: this.#options.name, reason });
          this.#lastReason = reason;
          this.#failures++;
          this.#again = false;
          return false;
        },
      )
      .then(more => {
        this.#running = undefined;
        if (this.#state !== 'started') return;
        if (more || this.#again) {
          this.#run();
          return;
        }
        const delay =
          this.#failures > 0 ? Math.min(5_000, 100 * 2 ** Math.min(this.#failures, 10)) : this.#options.interval;
        this.#timer = setTimeout(() => this.#run(), delay);
      });
  }
}
