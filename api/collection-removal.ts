import { selectedObjects, type Database, type Key, type Selector } from '../db/index.js';
import { ApiError } from './errors.js';
import type { Objects } from './objects.js';
import type { Deletion, Propagation, Writer } from './operation.js';
import type { TypeDefinition } from './type-definition.js';

/** So much is read at once: the objects of two pages are in memory together, those of one while they are deleted. */
export const removalPage = { limit: 1_000, bytes: 8_000_000 };

/** Which objects of a type to delete, and what becomes of those that they own. */
export interface CollectionRemoval {
  type: TypeDefinition;
  namespace?: string;
  selector: Selector;
  ownerUid?: string;
  propagation?: Propagation;
  writer: Writer;
  /** Counts what would be deleted. */
  dryRun: boolean;
}

/**
 * Deletes all objects of a selection, each as a single DELETE would, but hundreds with one statement. Returns how many.
 * Objects that change meanwhile are deleted in their new state, also if the selector matches that no longer; those that others
 * delete meanwhile do not count.
 */
export async function removeCollection(
  { database, objects }: { database: Database; objects: Objects },
  { type, propagation, writer, dryRun, ...selection }: CollectionRemoval,
): Promise<number> {
  let count = 0;
  const pageAfter = (last: Key | undefined) => selectedObjects(database, type.type, selection, last, removalPage);
  for (let coming = pageAfter(undefined); ;) {
    const page = await coming;
    const last = page.at(-1);
    if (last === undefined) return count;
    // Read while these are deleted.
    coming = pageAfter(last);
    coming.catch(() => undefined);
    const removed = await Promise.all(
      page.map(stored => {
        const { uid, namespace, name } = stored;
        const key = { namespace, name };
        const operation: Deletion = { verb: 'delete', type, key, preconditions: { uid }, writer, dryRun };
        if (propagation) operation.propagation = propagation;
        return unlessGone(objects, { type, key, uid }, async () => {
          // What it is computed from was read with the page. No deletion looks at ciphertexts.
          const ready = await objects.prepare(operation, () => Promise.resolve({ ...stored, sealed: null }));
          return objects.carryOut(operation, ready);
        });
      }),
    );
    count += removed.filter(answer => answer?.stored === true).length;
  }
}

/**
 * What a write of an object answers; undefined when the object is gone, or another one has its name. Throws Conflict when it is
 * there and has changed.
 */
export async function unlessGone<T>(objects: Objects, item: Gone, write: () => Promise<T>): Promise<T | undefined> {
  try {
    return await write();
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    if (error.code === 'NotFound') return undefined;
    if (error.code !== 'Conflict') throw error;
    const stored = await objects.find(item.type, item.key);
    if (stored?.uid === item.uid) throw error;
    return undefined;
  }
}

/** An object that may be gone. */
interface Gone {
  type: TypeDefinition;
  key: Key;
  uid: string;
}
