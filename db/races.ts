import pg from 'pg';
import { isVictim, type Database, type Queries } from './database.js';
import { cutConstraint, makeEventPartitions } from './event-partitions.js';

const repeats = 20;

/**
 * Runs a statement or a transaction again while others are in its way: after a deadlock, after a twin that stored its answer
 * first, and when there is no partition for the events of `types`, which are made then. `work` must be undone as a whole when
 * it throws. Throws what it threw the 20th time, and everything else at once.
 */
export async function insist<T>(database: Database, types: string[], work: () => Promise<T>): Promise<T> {
  for (let repeat = 1; ; repeat++) {
    try {
      return await work();
    } catch (error) {
      if (repeat >= repeats) throw error;
      if (isNoPartition(error)) {
        // The machine slept through the hours that partitions were made ahead for.
        for (const type of types) await database.transaction(queries => makeEventPartitions(queries, type));
      } else if (!isLostRace(error)) throw error;
    }
  }
}

/** One transaction, run again as a whole as `insist` says; `work` does nothing but query, and returns what it found. */
export function insistOn<T>(database: Database, work: (queries: Queries) => Promise<T>): Promise<T> {
  return insist(database, [], () => database.transaction(work));
}

function isLostRace(error: unknown): boolean {
  if (isVictim(error)) return true;
  return error instanceof pg.DatabaseError && error.code === '23505' && error.constraint === 'answers_pkey';
}

/** None that holds this moment, which is the check violation (23514) without a constraint, or one that is about to be cut. */
function isNoPartition(error: unknown): boolean {
  if (!(error instanceof pg.DatabaseError) || error.code !== '23514') return false;
  return error.constraint === undefined || error.constraint === cutConstraint;
}
