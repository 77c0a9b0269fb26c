import { sqlState, type Database, type Queries } from './database.js';
import type { LogEvent } from './events.js';
import { insist } from './races.js';
import type { Key } from './read.js';

/** The claim that a write carries; it is refused unless a worker of the controller holds exactly this claim. */
export interface ClaimReference extends Key {
  controller: string;
  type: string;
  nonce: string;
}

/** Where the answer to a write is kept, so that the same request again gets it instead of a second write. */
export interface AnswerReference {
  /** The Idempotency-Key. */
  key: string;
  /** The operation of a batch; -1 for a request as a whole. */
  line: number;
  /** A keyed hash of what was sent. */
  request: string;
}

/** What a change touched; controllers say which of these interest them. */
export type ChangedPart = 'spec' | 'metadata' | 'status' | 'deletion' | 'owners';

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
  /** What a delete without `object` removes, without `resourceVersion`: for those who hear of it, not for the database. */
  last?: string;
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
  answer?: AnswerReference;
}

/** An item with its JSON, which is made once: its length is looked at before it is sent, and some are sent again. */
export interface Parcel {
  item: WriteItem;
  json: string;
}

/** A rule of a type, and the object at its other end: the one that has the value, the one that refers, the one that is missing. */
export interface RuleMatch extends Key {
  rule: string;
  fields: string[];
  /** For references. */
  type?: string;
}

/** An answer that was given before. `body` is JSON text, secrets masked. */
export interface StoredAnswer {
  request: string;
  status: number;
  body: string;
}

/** What became of an item of a write. */
export type WriteResult =
  | {
      outcome: 'ok';
      version: number;
      stamp: string;
      /** As stored, or as it was last, where the item says so. */ object?: string;
    }
  | { outcome: 'exists' | 'missing' | 'conflict' | 'fenced' }
  /** Another object has the value, or the object that is referred to is not there. */
  | { outcome: 'unique' | 'target'; match: RuleMatch }
  /** The object cannot go: `by` are up to ten of the `count` that refer to it. */
  | { outcome: 'referenced'; count: number; by: RuleMatch[] }
  | { outcome: 'repeated'; answer: StoredAnswer }
  | { outcome: 'refused'; message: string };

/**
 * Hears of each committed batch of writes of a type: its events, or undefined when they are not all known here; `removed`:
 * whether an object is gone, which may have changed others.
 */
export type Committed = (type: string, events: LogEvent[] | undefined, removed?: boolean) => void;

interface Row {
  i: number;
  outcome: Exclude<WriteResult['outcome'], 'refused'> | 'again';
  version: number | null;
  stamp: string;
  uid: string | null;
  detail: string | null;
}

/**
 * Writes items of one type, which have different keys, each for itself; one result each. One statement does it, unless items
 * need others of the batch to be stored before them: those follow with the next, and a statement that has to be repeated is
 * repeated alone, since the ones before it are committed. Throws the driver's error when the database is away.
 */
export async function writeItems(
  database: Database,
  type: string,
  items: Parcel[],
  committed: Committed,
): Promise<WriteResult[]> {
  const patient: Queries = { query: statement => insist(database, [type], () => database.query(statement)) };
  try {
    return await writeWith(patient, type, items, committed);
  } catch (error) {
    if (!isUnstorable(error)) throw error;
    if (items.length === 1) return [{ outcome: 'refused', message: error instanceof Error ? error.message : '' }];
    const results: WriteResult[] = [];
    for (const item of items) results.push(...(await writeItems(database, type, [item], committed)));
    return results;
  }
}

/** The same on a connection of the caller's, who repeats the whole transaction when it throws; `wrote` hears what that commits. */
export async function writeWith(
  queries: Queries,
  type: string,
  items: Parcel[],
  wrote: Committed,
): Promise<WriteResult[]> {
  const results: WriteResult[] = [];
  let left = items.map(({ item, json }, i) => ({ item, json, i }));
  while (left.length > 0) {
    const rows = await queries.query<Row>({
      name: 'write',
      text: 'select i, outcome, version, stamp, uid, detail::text as detail from syncsets.write($1, $2)',
      values: [type, `[${left.map(({ json }, i) => numbered(json, i)).join(',')}]`],
    });
    const again: typeof left = [];
    let events: LogEvent[] | undefined = [];
    let removed = false;
    for (const row of rows.sort((a, b) => a.i - b.i)) {
      const one = left[row.i];
      if (!one) throw new Error(`the database answered an item ${row.i} of ${left.length}`);
      if (row.outcome === 'again') again.push(one);
      else {
        const result = (results[one.i] = resultOf(row, one.item));
        if (result.outcome !== 'ok') continue;
        removed ||= one.item.op === 'delete';
        const { object } = result;
        if (object === undefined || row.uid === null) events = undefined;
        else events?.push(eventOf(one.item, { ...result, uid: row.uid, object }));
      }
    }
    if (events === undefined || events.length > 0) wrote(type, events, removed);
    // The first of them never has to wait for another one.
    if (again.length === left.length) throw new Error(`no item of ${left.length} could be decided`);
    left = again;
  }
  return results;
}

function resultOf({ outcome, version, stamp, detail }: Row, item: WriteItem): WriteResult {
  switch (outcome) {
    case 'ok':
      if (version === null) throw new Error('a write came without its version');
      return { outcome, version, stamp, ...lasting(item, version, stamp) };
    case 'unique':
    case 'target':
      return { outcome, match: parsed(detail) as RuleMatch };
    case 'referenced':
      return { outcome, ...(parsed(detail) as { count: number; by: RuleMatch[] }) };
    case 'repeated': {
      const { request, status } = parsed(detail) as StoredAnswer;
      return { outcome, answer: { request, status, body: bodyOf(detail ?? '') } };
    }
    case 'again':
      throw new Error('an item that waits has no result');
    default:
      return { outcome };
  }
}

// Its form is what syncsets.write puts there, and nobody else.
function parsed(detail: string | null): unknown {
  if (detail === null) throw new Error('an outcome came without its detail');
  return JSON.parse(detail);
}

// The body is taken as text: parsed and written again, its long numbers would change. Postgres writes keys by length, then
// by letter: body, status, request.
function bodyOf(detail: string): string {
  const end = detail.lastIndexOf(', "status": ');
  return detail.slice('{"body": '.length, end);
}

/** Class 22: a value that jsonb cannot hold. Only the item that has it may fail. */
export function isUnstorable(error: unknown): boolean {
  return sqlState(error)?.startsWith('22') === true;
}

function lasting(item: WriteItem, version: number, stamp: string): { object?: string } {
  const object = item.object ?? item.last;
  return object === undefined ? {} : { object: stamped(item, object, version, stamp) };
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

/** The first of these items that holds what jsonb cannot, if one does. */
export async function findUnstorable(database: Database, items: WriteItem[]): Promise<WriteItem | undefined> {
  for (const [i, item] of items.entries()) {
    try {
      await database.query({ text: 'select $1::jsonb is null', values: [numbered(parcel(item).json, i)] });
    } catch (error) {
      if (isUnstorable(error)) return item;
      throw error;
    }
  }
  return undefined;
}

/** An item as syncsets.write takes it, all but its number. */
export function parcel(item: WriteItem): Parcel {
  const { op, namespace, name, uid, expect, labels, sealed, keepSealed, deleting, changed, actor, own } = item;
  const { claim, traceparent, answer, object, before } = item;
  // A literal, which is half as dear as a copy of the item without the two that are JSON already.
  const rest = { op, namespace, name, uid, expect, labels, sealed, keepSealed, deleting, changed, actor, own };
  let json = JSON.stringify(claim || traceparent || answer ? { ...rest, claim, traceparent, answer } : rest).slice(
    0,
    -1,
  );
  if (object !== undefined) json += `,"object":${object}`;
  if (before !== undefined) json += `,"before":${before}`;
  return { item, json: `${json}}` };
}

function numbered(json: string, i: number): string {
  return `{"i":${i},${json.slice(1)}`;
}
