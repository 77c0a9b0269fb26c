import { until as untilSeconds } from '../client/testing/until.js';

/**
 * Waits as the `until` of the test kit does, with the deadline in milliseconds, as the tests of the platform count.
 *
 * @param options.what completes the sentence "waited 10 s for …"
 * @param options.deadline milliseconds, default 10000
 * @throws Error with what was waited for and what the condition gave last
 */
export function until<T>(
  condition: () => T | Promise<T>,
  { what, deadline = 10_000 }: { what: string; deadline?: number },
): ReturnType<typeof untilSeconds<T>> {
  return untilSeconds(condition, { what, deadline: deadline / 1_000 });
}
