import { pause } from '../../client/index.js';

/** How often runs may begin. */
export interface RateLimit {
  /** Runs a second, for each process. */
  perSecond: number;
  /** Runs that may begin at once after a quiet time. Default: as many as in a second, at least 1. */
  burst?: number;
}

/** A bucket of permissions to begin a run, which fills evenly. */
export class Bucket {
  readonly #perSecond: number;
  readonly #burst: number;
  #level: number;
  #at = performance.now();

  /** @throws TypeError a limit that lets nothing through */
  constructor({ perSecond, burst = Math.max(1, Math.ceil(perSecond)) }: RateLimit) {
    if (!(perSecond > 0 && perSecond < Infinity)) throw new TypeError('rateLimit.perSecond must be a number above 0');
    if (!(Number.isInteger(burst) && burst >= 1)) throw new TypeError('rateLimit.burst must be a whole number from 1');
    this.#perSecond = perSecond;
    this.#burst = burst;
    this.#level = burst;
  }

  /** Waits for a permission and returns how many there are; 0 when `signal` aborts. Takes none. */
  async available(signal: AbortSignal): Promise<number> {
    while (!signal.aborted) {
      this.#fill();
      if (this.#level >= 1) return Math.floor(this.#level);
      await pause(Math.ceil(((1 - this.#level) / this.#perSecond) * 1000), signal);
    }
    return 0;
  }

  /** Takes permissions that are there; a debt is paid by waiting. */
  take(count: number): void {
    this.#fill();
    this.#level -= count;
  }

  #fill(): void {
    const now = performance.now();
    this.#level = Math.min(this.#burst, this.#level + ((now - this.#at) / 1000) * this.#perSecond);
    this.#at = now;
  }
}
