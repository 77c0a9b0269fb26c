import { Unstorable, writeAtomically, type Transaction } from './atomic.js';
import { Batch } from './batch.js';
import type { Database } from './database.js';
import { readObjects, type Key, type StoredObject } from './read.js';
import { parcel, writeItems, type Committed, type Parcel, type WriteItem, type WriteResult } from './write.js';

/** Reads and writes of objects of all types: batched per type, so that waiting requests share a statement. */
export class ObjectStore {
  readonly #database: Database;
  readonly #committed: Committed;
  readonly #ruled: ReadonlySet<string>;
  readonly #writers = new Map<string, Batch<Parcel, WriteResult>>();
  readonly #readers = new Map<string, Batch<Key, { found: StoredObject | undefined }>>();

  /** @param options.ruled types whose objects are bound to others by unique or reference rules */
  constructor(database: Database, options: { committed?: Committed; ruled?: ReadonlySet<string> } = {}) {
    this.#database = database;
    const { ruled = new Set<string>(), committed = () => undefined } = options;
    this.#ruled = ruled;
    this.#committed = (type, events, removed) => {
      committed(type, events);
      // What a removal changed by cascade is in any of the types that are bound to others.
      if (removed && ruled.has(type)) for (const other of ruled) committed(other, undefined);
    };
  }

  /** Stores one write together with what else waits for its type. Throws the driver's error when the database is away. */
  write(type: string, item: WriteItem): Promise<WriteResult> {
    let writer = this.#writers.get(type);
    if (!writer) {
      writer = new Batch({
        run: items => writeItems(this.#database, type, items, this.#committed),
        key: ({ item }) => `${item.namespace}/${item.name}`,
        foregone: (one, before, result) => foregone(one.item, before.item, result),
        size: ({ json }) => json.length + 512,
        maxItems: 500,
        maxBytes: 8_000_000,
        // The second statement parses its items while the first one holds the counter row until its commit. Where items depend
        // on each other they must arrive in their order.
        parallel: this.#ruled.has(type) ? 1 : 2,
      });
      this.#writers.set(type, writer);
    }
    return writer.add(parcel(item));
  }

  /** The result that `write` would have now: the same statement runs and is rolled back. */
  async rehearse(type: string, item: WriteItem): Promise<WriteResult> {
    const done = new Error('rolled back');
    let result: WriteResult | undefined;
    const scope = { types: [type], removing: item.op !== 'create' };
    await this.atomically(scope, async transaction => {
      [result] = await transaction.writeObjects(type, [item]);
      throw done;
    }).catch((error: unknown) => {
      if (error instanceof Unstorable) result = { outcome: 'refused', message: error.message };
      else if (error !== done) throw error;
    });
    if (!result) throw new Error('a write answered no result');
    return result;
  }

  /** Writes objects of several types in one transaction, see writeAtomically. */
  atomically<T>(
    scope: { types: string[]; removing: boolean },
    work: (transaction: Transaction) => Promise<T>,
  ): Promise<T> {
    return writeAtomically(this.#database, scope, work, this.#committed);
  }

  /** How long, in ms, the oldest waiting write of a type has waited. */
  writeQueueAge(type: string): number {
    return this.#writers.get(type)?.age ?? 0;
  }

  async read(type: string, key: Key): Promise<StoredObject | undefined> {
    let reader = this.#readers.get(type);
    if (!reader) {
      reader = new Batch({
        run: async keys => (await readObjects(this.#database, type, keys)).map(found => ({ found })),
        maxItems: 200,
        parallel: 2,
      });
      this.#readers.set(type, reader);
    }
    return (await reader.add(key)).found;
  }

  /** The newest version of a type; undefined for a type that the database does not know. */
  async version(type: string): Promise<number | undefined> {
    const rows = await this.#database.query<{ version: number }>({
      name: 'type-version',
      text: 'select version from syncsets.types where type = $1',
      values: [type],
    });
    return rows[0]?.version;
  }
}

/**
 * What a write that was computed from a version must come to, once another write has replaced that version. One with a claim
 * or a kept answer is decided by those first, in the database.
 */
function foregone(item: WriteItem, before: WriteItem, result: WriteResult): WriteResult | undefined {
  if (result.outcome !== 'ok' || before.op !== 'update' || item.claim || item.answer) return undefined;
  return item.expect !== undefined && item.expect < result.version ? { outcome: 'conflict' } : undefined;
}
