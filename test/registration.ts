import type { Registration } from '../db/index.js';

/** The registration of a controller that hears of every spec of a type. */
export function registrationOf(name: string, type: string, claimSeconds: number): Registration {
  return { name, type, interests: ['spec'], watches: [], claimSeconds, revision: 0, reveal: [], longRunning: false };
}
