import { pause } from '../backoff.js';

/** What is waited for, and how long. */
export interface UntilOptions {
  /** Completes the sentence "waited 10 s for …". */
  what: string;
  /** Seconds. Default 10. */
  deadline?: number;
}

/**
 * Waits until a condition gives something truthy and returns that. A condition that throws counts as not yet there, so it may
 * read an object that does not exist.
 *
 * @throws Error when the time is up: what was waited for, and what the condition gave or threw last
 * @example
 * const ready = await until(async () => {
 *   const cluster = await client.clusters.read({ name: 'cluster1' });
 *   return cluster.status?.nodeCount === 3 && cluster;
 * }, { what: 'three nodes' });
 */
export async function until<T>(
  condition: () => T | Promise<T>,
  { what, deadline = 10 }: UntilOptions,
): Promise<Exclude<T, false | 0 | 0n | '' | null | undefined>> {
  const end = performance.now() + deadline * 1000;
  for (;;) {
    let last: unknown;
    try {
      const value = await condition();
      // Truthy, so none of what is excluded.
      if (value) return value as Exclude<T, false | 0 | 0n | '' | null | undefined>;
      last = value;
    } catch (error) {
      last = error;
    }
    if (performance.now() > end) {
      const text = last instanceof Error ? `the error "${last.message}"` : JSON.stringify(last);
      throw new Error(`waited ${deadline} s for ${what}; the last look gave ${text}`, { cause: last });
    }
    await pause(20);
  }
}
