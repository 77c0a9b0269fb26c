import type { Registration } from '../db/index.js';
import type { Platform } from './platform.js';
import type { Report } from './reports.js';
import { readClaimToken } from './tokens.js';
import { targetOf, type EnqueueTargetInput } from './work-keys.js';

/** What became of a claim. */
export interface ResultInput {
  token: string;
  /** `error`: again after a back-off. `terminal`: not again until the object changes. `released`: at once, by whoever takes it. */
  result: 'done' | 'error' | 'terminal' | 'released';
  /**
   * After `done`: run again in so many seconds.
   * @minimum 0 must not be negative
   * @maximum 31536000 must be at most a year
   */
  requeueAfterSeconds?: number;
  /**
   * What went wrong, for people; never a secret.
   * @maxLength 4096 must have at most 4096 characters
   */
  message?: string;
  /**
   * Keys of this controller to queue with it.
   * @maxItems 1000 must be at most 1000
   */
  enqueue?: EnqueueTargetInput[];
}

/** What a worker reports. */
export interface DoneInput {
  /**
   * @minItems 1 must not be empty
   * @maxItems 1000 must be at most 1000
   */
  results: ResultInput[];
}

/** What became of the results, in their order. */
export interface DoneList {
  results: ResultState[];
}

/** What became of a result. */
export interface ResultState {
  token: string;
  /** `fenced`: the claim was lost before, and the result did nothing. */
  state: 'ok' | 'fenced';
}

/** Results as reports, and what their answers say as soon as it is known which claims were held. */
export function reportsOf(
  platform: Platform,
  registration: Registration,
  results: ResultInput[],
): { reports: Report[]; states: (held: boolean[]) => ResultState[] } {
  const reports: Report[] = [];
  const known: number[] = [];
  for (const [at, one] of results.entries()) {
    const claim = readClaimToken(one.token);
    const targets = (one.enqueue ?? []).map((target, i) =>
      targetOf(platform, registration, target, `results[${at}].enqueue[${i}]`),
    );
    if (claim?.controller !== registration.name) continue;
    known.push(at);
    reports.push({
      claim,
      result: one.result,
      ...(one.requeueAfterSeconds === undefined ? {} : { requeueAfter: one.requeueAfterSeconds }),
      ...(one.message === undefined ? {} : { message: one.message }),
      targets,
    });
  }
  const states = (held: boolean[]): ResultState[] => {
    const ok = new Set(known.filter((_, i) => held[i]));
    return results.map(({ token }, at) => ({ token, state: ok.has(at) ? 'ok' : 'fenced' }));
  };
  return { reports, states };
}
