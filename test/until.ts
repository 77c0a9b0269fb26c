import { setTimeout as sleep } from 'node:timers/promises';

type Truthy<T> = Exclude<T, false | 0 | 0n | '' | null | undefined>;

/**
 * Waits until a condition gives something truthy and returns that. Asked again every 15 ms, so a test that waits for a
 * fact costs little more than the fact itself.
 *
 * @param condition what to look at; an error it throws counts as "not yet" and is told when the time is up
 * @param options.what completes the sentence "waited 10000 ms for …"
 * @param options.deadline milliseconds, default 10000
 * @throws Error with what was waited for and what the condition gave last
 */
export async function until<T>(
  condition: () => T | Promise<T>,
  options: { what: string; deadline?: number },
): Promise<Truthy<T>> {
  const milliseconds = options.deadline ?? 10_000;
  const end = performance.now() + milliseconds;
  let last: unknown;
  do {
    try {
      const value = await condition();
      if (value) return value as Truthy<T>;
      last = value;
    } catch (error) {
      last = error;
    }
    await sleep(15);
  } while (performance.now() < end);
  throw new Error(`waited ${milliseconds} ms for ${options.what}; the last look gave ${describe(last)}`, {
    cause: last,
  });
}

function describe(value: unknown): string {
  if (value instanceof Error) return `the error "${value.message}"`;
  return value === undefined ? 'undefined' : JSON.stringify(value);
}
