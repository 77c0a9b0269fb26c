import { reseal, sealedByOthers, type Database, type Key, type Log } from '../db/index.js';
import { types } from '../build/types.js';
import type { Sealed, Secrets } from './secrets.js';

// A batch locks the writers of its type out while it is stored: 1 MB takes about 20 ms.
const batch = { scan: 500, bytes: 1_000_000 };
/** Passes over a type until nothing is left; more than two means that someone goes on writing with another key. */
const passes = 5;

/** What a rotation did, or was asked to do until it was interrupted. */
export interface Rotation {
  /** The id of the key that everything is encrypted with now. */
  keyId: string;
  /** Objects whose secrets were encrypted anew, by type; types without any are missing. */
  objects: Map<string, number>;
  /** Whether it was stopped before its end; run again, it goes on with what is left. */
  interrupted: boolean;
}

/** Processes go on writing secrets with another key than the one that was rotated to. */
export class KeyStillInUse extends Error {
  constructor(type: string, keyId: string) {
    super(
      `Secrets of ${type} are still being written with another key than ${keyId}: restart all API processes with the new key first in ENCRYPTION_KEY, then run this again`,
    );
  }
}

/**
 * Encrypts all stored secrets anew with the writing key, while the platform runs: in small batches, each a compare-and-set
 * that makes no version and no event. Only what another key has encrypted is touched, so it may be interrupted and run again.
 * Throws MissingEncryptionKey when a value's key is not among the given ones, KeyStillInUse.
 */
export async function rotateKey(options: {
  database: Database;
  secrets: Secrets;
  log: Log;
  /** Asked between batches. */
  stopping: () => boolean;
}): Promise<Rotation> {
  const { database, secrets, log, stopping } = options;
  const rotation: Rotation = { keyId: secrets.writingId, objects: new Map(), interrupted: false };
  // Types without secret fields too: they may have values from when they had some.
  for (const { type } of types) {
    for (let pass = 1, left = 1; left > 0; pass++) {
      if (pass > passes) throw new KeyStillInUse(type, secrets.writingId);
      left = 0;
      let after: Key | undefined;
      do {
        if (stopping()) return { ...rotation, interrupted: true };
        const { rows, last } = await sealedByOthers(database, type, secrets.writingId, after, batch);
        after = last;
        if (rows.length === 0) continue;
        if (stopping()) return { ...rotation, interrupted: true };
        // The column is written by Secrets alone.
        const fresh = rows.map(row => ({ ...row, fresh: secrets.reseal(type, row.uid, row.sealed as Sealed) }));
        const stored = await reseal(database, type, fresh);
        left += rows.length;
        const sum = (rotation.objects.get(type) ?? 0) + stored;
        rotation.objects.set(type, sum);
        log('debug', 'secrets encrypted anew', { type, objects: sum });
      } while (after !== undefined);
    }
  }
  return rotation;
}
