import { setTimeout } from 'node:timers/promises';

/**
 * Growing pauses between attempts: they double from `low` to `high` milliseconds, each shortened by up to half at random,
 * so that a thousand clients do not come back to a restarted server at the same moment.
 *
 * @example
 * const backoff = new Backoff(100, 5_000);
 * while (!(await attempt())) await backoff.pause();
 */
export class Backoff {
  #attempts = 0;

  constructor(
    private readonly low: number,
    private readonly high: number,
  ) {}

  /** The next pause in milliseconds, `atLeast` so many. */
  next(atLeast = 0): number {
    const longest = Math.min(this.high, this.low * 2 ** Math.min(this.#attempts++, 30));
    return Math.max(atLeast, longest * (1 - Math.random() / 2));
  }

  /** Begins again with short pauses. */
  reset(): void {
    this.#attempts = 0;
  }

  /** Waits for the next pause, or at least `atLeast` milliseconds. Resolves early, without an error, when `signal` aborts. */
  async pause(signal?: AbortSignal, atLeast = 0): Promise<void> {
    await pause(this.next(atLeast), signal);
  }
}

/** Milliseconds that a timer of Node can wait, 25 days: a longer one fires at once. */
export const longestTimer = 2 ** 31 - 1;

/**
 * Waits for some milliseconds, at most 25 days, or until `signal` aborts; never rejects.
 *
 * @example
 * await pause(500, context.signal);
 */
export async function pause(milliseconds: number, signal?: AbortSignal): Promise<void> {
  await setTimeout(Math.min(milliseconds, longestTimer), undefined, { signal }).catch(() => undefined);
}
