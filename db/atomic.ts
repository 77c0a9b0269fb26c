import type { Database, Queries } from './database.js';
import { readObjects, type Key, type StoredObject } from './read.js';
import { makeEventPartitions } from './event-partitions.js';
import {
  findUnstorable,
  isLostRace,
  isNoPartition,
  isUnstorable,
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
  constructor(readonly item: WriteItem) {
    super(`${item.namespace}/${item.name} holds a value that cannot be stored`);
  }
}

const repeats = 20;

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
  let written: WriteItem[] = [];
  for (let repeat = 1; ; repeat++) {
    try {
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
          writeObjects: (type, items) => writeWith(queries, type, (written = items), (...one) => wrote.push(one)),
        });
      });
      for (const one of wrote) committed(...one);
      return result;
    } catch (error) {
      if (isUnstorable(error)) {
        const item = written[await findUnstorable(database, written)];
        if (item) throw new Unstorable(item);
      }
      if (repeat >= repeats) throw error;
      if (isNoPartition(error)) {
        for (const type of types) await database.transaction(queries => makeEventPartitions(queries, type));
      } else if (!isLostRace(error)) throw error;
    }
  }
}
