import { now, percentiles } from './clock.js';
import type { Throughput } from './load.js';

/** How long loops run: by time after a warm-up, or for a number of acts. */
export interface Extent {
  clients: number;
  warmupSeconds: number;
  seconds: number;
  /** Ends after so many, all of them measured, instead of by time. */
  requests?: number;
}

/** Runs `act` again and again in so many loops at once; measures what ends between warm-up and end. */
export async function inParallel(extent: Extent, act: () => Promise<unknown>): Promise<Throughput> {
  const { clients, warmupSeconds, seconds, requests = Infinity } = extent;
  const counted = requests < Infinity;
  const from = now() + (counted ? 0 : warmupSeconds * 1000);
  const to = counted ? Infinity : from + seconds * 1000;
  const waits: number[] = [];
  let begins = 0;
  let end = from;
  const loop = async () => {
    for (let begun = now(); begun < to && begins++ < requests;) {
      await act();
      end = now();
      if (end >= from && end < to) waits.push(end - begun);
      begun = end;
    }
  };
  await Promise.all(Array.from({ length: clients }, loop));
  const until = counted ? end : to;
  return { rate: (waits.length * 1000) / (until - from), waits: percentiles(waits), from, to: until };
}

/** Calls `act` at an even pace until `seconds` have passed; never waits for what it begins. A late turn is caught up. */
export async function pace(rate: number, seconds: number, act: () => void): Promise<void> {
  const begun = now();
  for (let turn = 0; turn < rate * seconds; turn++) {
    const wait = begun + (turn * 1000) / rate - now();
    if (wait > 0) await new Promise(resolve => setTimeout(resolve, wait));
    act();
  }
}
