import pg from 'pg';
import { Batch } from './batch.js';
import { sqlState, type Database } from './database.js';
import type { LogEvent } from './events.js';
import { makeEventPartitions } from './types.js';

/** Names one object of a type; `namespace` is empty for cluster-wide types. */
export interface Key {
  namespace: string;
  name: string;
}

/** An object as stored. `object` is its JSON text, secrets masked; `sealed` the ciphertexts beside it. */
export interface StoredObject extends Key {
  uid: string;
  version: number;
  object: string;
  sealed: Record<string, unknown> | null;
}

/** The claim that a write carries; it is refused unless a worker of the controller holds exactly this claim. */
export interface ClaimReference extends Key {
  controller: string;
  type: string;
  nonce: string;
}

/** What a change touched; controllers say which of these interest them. */
export type ChangedPart = 'spec' | 'metadata' | 'status' | 'deletion';

/** One write of an object. JSON travels as text: it is parsed once, by Postgres. */
export interface WriteItem extends Key {
  op: 'create' | 'update' | 'delete';
  /** The new object's uid; for create only. */
  uid?: string;
  /** The version the write was computed from; for update and delete. */
  expect?: number;
  /**
   * The object without `resourceVersion` and `updatedAt`, which are set here, as are `createdAt` of a create and `deletedAt`
   * of `deleting`. A delete leaves it out, unless it changes the object once more.
   */
  object?: string;
  labels?: Record<string, string>;
  sealed?: Record<string, unknown> | null;
  /** Leave the sealed fields as they are stored. */
  keepSealed?: boolean;
  /** Sets deletedAt. */
  deleting?: boolean;
  /** The changed top-level fields with their old values, as JSON text. */
  before?: string;
  changed: ChangedPart[];
  actor: string;
  own: boolean;
  claim?: ClaimReference;
  traceparent?: string;
}

export type WriteResult =
  | { outcome: 'ok'; version: number; stamp: string; /** As stored, where the item had an object. */ object?: string }
  | { outcome: 'exists' | 'missing' | 'conflict' | 'fenced' }
  | { outcome: 'refused'; message: string };

/** Hears of each committed batch of writes of a type: its events, or undefined when they are not all known here. */
export type Committed = (type: string, events: LogEvent[] | undefined) => void;

/** Reads and writes of objects of all types: batched per type, so that waiting requests share a statement. */
export class ObjectStore {
  readonly #database: Database;
  readonly #committed: Committed;
  readonly #writers = new Map<string, Batch<WriteItem, WriteResult>>();
  readonly #readers = new Map<string, Batch<Key, { found: StoredObject | undefined }>>();

  constructor(database: Database, committed: Committed = () => undefined) {
    this.#database = database;
    this.#committed = committed;
  }

  /** Stores one write together with what else waits for its type. Throws the driver's error when the database is away. */
  write(type: string, item: WriteItem): Promise<WriteResult> {
    let writer = this.#writers.get(type);
    if (!writer) {
      writer = new Batch({
        run: items => this.#write(type, items),
        key: one => `${one.namespace}/${one.name}`,
        size: one => Buffer.byteLength(one.object ?? '') + Buffer.byteLength(one.before ?? '') + 512,
        maxItems: 500,
        maxBytes: 8_000_000,
        // The second statement parses its items while the first one holds the counter row until its commit.
        parallel: 2,
      });
      this.#writers.set(type, writer);
    }
    return writer.add(item);
  }

  /** The result that `write` would have now: the same statement runs and is rolled back. */
  async rehearse(type: string, item: WriteItem): Promise<WriteResult> {
    const [result] = await this.#write(type, [item], true);
    if (!result) throw new Error('a write answered no result');
    return result;
  }

  /** How long, in ms, the oldest waiting write of a type has waited. */
  writeQueueAge(type: string): number {
    return this.#writers.get(type)?.age ?? 0;
  }

  async read(type: string, key: Key): Promise<StoredObject | undefined> {
    let reader = this.#readers.get(type);
    if (!reader) {
      reader = new Batch({ run: keys => this.#read(type, keys), maxItems: 200, parallel: 2 });
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

  async #read(type: string, keys: Key[]): Promise<{ found: StoredObject | undefined }[]> {
    const rows = await this.#database.query<StoredObject>({
      name: 'read-objects',
      // `offset 0` makes it one look-up by key for each: a plan made while the table was empty stays right.
      text: `select o.* from unnest($2::text[], $3::text[]) as k(namespace, name) cross join lateral (
          select o.namespace, o.name, o.uid, o.version, o.object::text as object, o.sealed from syncsets.objects o
          where o.type = $1 and o.namespace = k.namespace and o.name = k.name offset 0
        ) o`,
      values: [type, keys.map(key => key.namespace), keys.map(key => key.name)],
    });
    const found = new Map(rows.map(row => [`${row.namespace}/${row.name}`, row]));
    return keys.map(key => ({ found: found.get(`${key.namespace}/${key.name}`) }));
  }

  async #write(type: string, items: WriteItem[], rehearsal = false, repeated = false): Promise<WriteResult[]> {
    let rows: WrittenRow[];
    try {
      const statement = {
        name: 'write',
        text: 'select i, outcome, version, stamp, uid from syncsets.write($1, $2) order by i',
        values: [type, `[${items.map(itemJson).join(',')}]`],
      };
      rows = await (rehearsal ? this.#rolledBack(statement) : this.#database.query<WrittenRow>(statement));
    } catch (error) {
      if (isNoPartition(error) && !repeated) {
        // The machine slept through the hours that partitions were made ahead for.
        await this.#database.transaction(queries => makeEventPartitions(queries, type));
        return this.#write(type, items, rehearsal, true);
      }
      // Class 22: a value that jsonb cannot hold. Only the item that has it may fail.
      if (!sqlState(error)?.startsWith('22')) throw error;
      if (items.length === 1)
        return [{ outcome: 'refused', message: error instanceof Error ? error.message : String(error) }];
      const results: WriteResult[] = [];
      for (const item of items) results.push(...(await this.#write(type, [item], rehearsal)));
      return results;
    }
    const results: WriteResult[] = [];
    let events: LogEvent[] | undefined = [];
    for (const { i, outcome, version, stamp, uid } of rows) {
      const item = items[i];
      if (outcome !== 'ok' || version === null || !item) {
        results[i] = { outcome: outcome === 'ok' ? 'conflict' : outcome };
        continue;
      }
      const object = item.object === undefined ? undefined : stamped(item, item.object, version, stamp);
      results[i] = { outcome: 'ok', version, stamp, ...(object === undefined ? {} : { object }) };
      if (object === undefined || uid === null) events = undefined;
      else events?.push(eventOf(item, { version, stamp, uid, object }));
    }
    if (!rehearsal && (events === undefined || events.length > 0)) this.#committed(type, events);
    return results;
  }

  /** Runs a statement for its answer alone. */
  async #rolledBack(statement: Parameters<Database['query']>[0]): Promise<WrittenRow[]> {
    let rows: WrittenRow[] = [];
    const done = new Error('rolled back');
    await this.#database
      .transaction(async queries => {
        rows = await queries.query(statement);
        throw done;
      })
      .catch((error: unknown) => {
        if (error !== done) throw error;
      });
    return rows;
  }
}

/** What the function `syncsets.write` says of an item. */
interface WrittenRow {
  i: number;
  outcome: 'ok' | 'exists' | 'missing' | 'conflict' | 'fenced';
  version: number | null;
  stamp: string;
  uid: string | null;
}

// 23514 is also a check's violation; only a missing partition says so without a constraint.
function isNoPartition(error: unknown): boolean {
  return error instanceof pg.DatabaseError && error.code === '23514' && error.constraint === undefined;
}

/** The JSON of a stored object: what the item holds and what the write has set. */
function stamped(item: WriteItem, object: string, version: number, stamp: string): string {
  let stamps = `"resourceVersion":"${version}"`;
  if (item.op === 'create') stamps += `,"createdAt":"${stamp}"`;
  if (item.op !== 'delete') stamps += `,"updatedAt":"${stamp}"`;
  if (item.deleting) stamps += `,"deletedAt":"${stamp}"`;
  return `${object.slice(0, -1)}${object.length > 2 ? ',' : ''}${stamps}}`;
}

function eventOf(
  item: WriteItem,
  { version, stamp, uid, object }: { version: number; stamp: string; uid: string; object: string },
): LogEvent {
  const ops = { create: 'ADDED', update: 'MODIFIED', delete: 'DELETED' } as const;
  return {
    version,
    previous: version - 1,
    op: ops[item.op],
    namespace: item.namespace,
    name: item.name,
    uid,
    object,
    before: item.before ?? null,
    changed: item.changed,
    actor: item.actor,
    own: item.own,
    traceparent: item.traceparent ?? null,
    at: Date.parse(stamp),
  };
}

function itemJson(item: WriteItem, i: number): string {
  const { object, before, ...rest } = item;
  let json = JSON.stringify({ i, ...rest }).slice(0, -1);
  if (object !== undefined) json += `,"object":${object}`;
  if (before !== undefined) json += `,"before":${before}`;
  return `${json}}`;
}
