import type { ClaimReference, EnqueueTarget, KeyResult, MapOutcome } from '../db/index.js';
import { claimToken, type MapReference } from './tokens.js';

/** A result as reported, with its token read. */
export interface Report {
  claim: ClaimReference | MapReference;
  result: KeyResult['result'];
  requeueAfter?: number;
  message?: string;
  targets: EnqueueTarget[];
}

/** Reports by what they are about; `at` is their place among so many. */
export interface SortedReports {
  count: number;
  keys: { at: number; result: KeyResult & { enqueue: EnqueueTarget[] } }[];
  maps: { at: number; claim: MapReference; outcome: MapOutcome }[];
}

/** Sorts what is of the controller. Of two results of a claim the first one ends it. */
export function sortReports(controller: string, reports: Report[]): SortedReports {
  const keys: SortedReports['keys'] = [];
  const maps: SortedReports['maps'] = [];
  const ended = new Set<string>();
  for (const [at, { claim, result, requeueAfter, message, targets }] of reports.entries()) {
    const token = claimToken(claim);
    if (claim.controller !== controller || ended.has(token)) continue;
    ended.add(token);
    if ('map' in claim) {
      const outcome =
        result === 'done' ? { targets } : result === 'released' ? 'released' : { error: message ?? result };
      maps.push({ at, claim, outcome });
      continue;
    }
    const { type, namespace, name, nonce } = claim;
    keys.push({
      at,
      result: {
        type,
        namespace,
        name,
        nonce,
        result,
        ...(requeueAfter === undefined ? {} : { requeueAfter }),
        ...(message === undefined ? {} : { message }),
        enqueue: targets,
      },
    });
  }
  return { count: reports.length, keys, maps };
}
