import type { Database, Queries } from './database.js';
import { insist } from './races.js';
import { readObjects, type Key, type StoredObject } from './read.js';
import {
  findUnstorable,
  isUnstorable,
  parcel,
  writeWith,
  type Committed,
  type WriteItem,
  type WriteResult,
} from './write.js';

/** Reads and writes of one transaction, which sees what it wrote itself. */
export interface Transaction extends Queries {
  readObjects(type: string, keys: Key[]): Promise<(StoredObject | undefined)[]>;
  /** Items of one call have different keys. */
  writeObjects(type: string, items: WriteItem[]): Promise<WriteResult[]>;
}

/** An item holds what jsonb cannot; the transaction was rolled back. */
export class Unstorable extends Error {
  constructor(
    readonly type: string,
    readonly item: WriteItem,
  ) {
    super(`${item.namespace}/${item.name} holds a value that cannot be stored`);
  }
}

/**
 * Runs `work` in one transaction over objects of several types: all of it is stored when it returns, nothing when it throws.
 * It holds the counter rows of the types from the beginning, in the order of their names, and with `removing` those of
 * types whose objects may change with a removal: nobody else changes their objects meanwhile. `work` runs again from its
 * start when another transaction was in the way, so it must leave no traces.
 */
export async function writeAtomically<T>(
  database: Database,
  { types, removing }: { types: string[]; removing: boolean },
  work: (transaction: Transaction) => Promise<T>,
  committed: Committed,
): Promise<T> {
  let written: { type: string; items: WriteItem[] } = { type: '', items: [] };
  const attempt = async () => {
    const wrote: Parameters<Committed>[] = [];
    const result = await database.transaction(async queries => {
      await queries.query({
        name: 'lock-types',
        text: `select from syncsets.types t where t.type in (
            with recursive touched(type) as (
              select unnest($1::text[]) collate "C" union
              select r.type from touched c join syncsets.rules r on $2 and r.target = c.type and r.on_delete in ('cascade', 'null')
            ) select c.type from touched c)
          order by t.type for update`,
        values: [types, removing],
      });
      return work({
        query: statement => queries.query(statement),
        readObjects: (type, keys) => readObjects(queries, type, keys),
        writeObjects: (type, items) => {
          written = { type, items };
          return writeWith(queries, type, items.map(parcel), (...one) => wrote.push(one));
        },
      });
    });
    return { result, wrote };
  };
  try {
    const { result, wrote } = await insist(database, types, attempt);
    for (const one of wrote) committed(...one);
    return result;
  } catch (error) {
    const item = isUnstorable(error) ? await findUnstorable(database, written.items) : undefined;
    throw item ? new Unstorable(written.type, item) : error;
  }
}
