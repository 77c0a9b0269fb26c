import type { Figure } from './program.js';

/** Milliseconds on a clock that all processes of this machine share and that never goes back. */
export function now(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}

/** The median and the 99th percentile of some waits. @throws Error there are none */
export function percentiles(waits: number[]): Required<Figure> {
  const sorted = Float64Array.from(waits).sort();
  const at = (part: number) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))];
  const [value, p99] = [at(0.5), at(0.99)];
  if (value === undefined || p99 === undefined) throw new Error('nothing was measured');
  return { value, p99 };
}
