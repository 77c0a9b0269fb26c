import {
  isHeld,
  keepAnswers,
  Unstorable,
  type StoredAnswer,
  type StoredObject,
  type Transaction,
} from '../db/index.js';
import { isNewer, type BatchItem } from './batch-operations.js';
import { ApiError, toApiError, type ErrorBody } from './errors.js';
import { asObject } from './fields.js';
import type { Operation, Prepared } from './operation.js';
import { unchanged } from './operation.js';
import type { Platform } from './platform.js';
import { lostClaim, refused, Repeated } from './refusals.js';

/** What became of an operation: JSON text of the object, or the error. */
export interface ItemResult {
  status: number;
  object?: string;
  /** What the rules of the type have to say beside it. */
  warnings?: string[];
  error?: ApiError;
  /** The answer of before, as it was kept. */
  repeated?: StoredAnswer;
}

/** Something to do, or why it cannot be done. */
export type Attempt = BatchItem | ApiError;

const attempts = 8;
/** After so many optimistic tries an atomic batch is computed under the locks of its types, where nobody interferes. */
const optimistic = 2;

/**
 * Parts of a batch whose operations do not depend on each other: within one, no object occurs twice. Where rules bind objects
 * to each other everything keeps its order, and another type begins a new part.
 */
export function partsOf(items: { index: number; item: BatchItem }[], ruled: ReadonlySet<string>): (typeof items)[] {
  const inOrder = items.some(({ item }) => ruled.has(item.type.type));
  const parts: (typeof items)[] = [];
  const counts = new Map<string, number>();
  let seen = new Set<string>();
  let type: string | undefined;
  for (const one of items) {
    const name = nameOf(one.item);
    if (inOrder) {
      if (seen.has(name) || one.item.type.type !== type) {
        parts.push([]);
        seen = new Set();
      }
      type = one.item.type.type;
      seen.add(name);
      parts.at(-1)?.push(one);
    } else {
      const turn = counts.get(name) ?? 0;
      counts.set(name, turn + 1);
      (parts[turn] ??= []).push(one);
    }
  }
  return parts;
}

/** Names an operation's object; a name that the server is to make is like no other. */
export function nameOf({ type, key }: BatchItem): string {
  return key.name === '' ? crypto.randomUUID() : `${type.type} ${key.namespace}/${key.name}`;
}

/** Carries operations out, each for itself; a result for each, in their order. Throws nothing that only one of them is to blame for. */
export async function carryOutEach(platform: Platform, tried: Attempt[]): Promise<ItemResult[]> {
  const results: ItemResult[] = [];
  const items: { index: number; item: BatchItem }[] = [];
  tried.forEach((item, index) => {
    if (item instanceof ApiError) results[index] = { status: item.status, error: item };
    else items.push({ index, item });
  });
  for (const part of partsOf(items, platform.ruled)) {
    // Made ready first, then queued in one go: their writes keep their order, and travel together.
    const ready = await Promise.all(part.map(({ item }) => settled(platform, () => makeReady(platform, item))));
    const done = await Promise.all(
      part.map(async ({ item }, i) => {
        const one = ready[i];
        return one && 'error' in one ? one : settled(platform, () => carryOut(platform, item, one?.value));
      }),
    );
    part.forEach(({ index }, i) => {
      const one = done[i];
      if (one) results[index] = 'error' in one ? failure(one.error) : one.value;
    });
  }
  return results;
}

/** An operation that was made ready; without `prepared` there is nothing to do, and `result` is the answer. */
interface Ready {
  operation: Operation;
  prepared?: Prepared;
  result?: ItemResult;
}

async function makeReady(
  platform: Platform,
  item: BatchItem,
  read?: (type: string, key: BatchItem['key']) => Promise<StoredObject | undefined>,
): Promise<Ready> {
  const { operation, upsert, type, key } = item;
  let chosen = operation;
  if (upsert) {
    const stored = await (read ?? ((name, at) => platform.store.read(name, at)))(type.type, key);
    if (stored && upsert.unlessNewer !== undefined && isNewer(asObject(stored), upsert.sent, upsert.unlessNewer)) {
      return { operation, result: { status: 200, object: unchanged(stored).json } };
    }
    if (stored) chosen = upsert.replacement;
  }
  return { operation: chosen, prepared: await platform.objects.prepare(chosen, read) };
}

async function carryOut(platform: Platform, item: BatchItem, ready: Ready | undefined): Promise<ItemResult> {
  for (let attempt = 1; ; attempt++) {
    const { operation, prepared, result } = ready ?? (await makeReady(platform, item));
    if (result) return result;
    try {
      const { json, warnings } = await platform.objects.carryOut(operation, prepared, true);
      return { status: operation.verb === 'create' ? 201 : 200, object: json, warnings };
    } catch (error) {
      // It came or went since it was looked for.
      const raced = error instanceof ApiError && ['AlreadyExists', 'NotFound', 'Conflict'].includes(error.code);
      if (!item.upsert || !raced || error instanceof Repeated || attempt >= attempts) throw error;
      ready = undefined;
    }
  }
}

async function settled<T>(platform: Platform, work: () => Promise<T>): Promise<{ value: T } | { error: ApiError }> {
  try {
    return { value: await work() };
  } catch (error) {
    return { error: explained(platform, error) };
  }
}

/** The error of the catalogue for what an operation threw; a bug is logged. */
export function explained(platform: Platform, error: unknown): ApiError {
  const known = toApiError(error);
  if (!known) platform.log('error', 'operation of a batch failed', { error });
  return known ?? new ApiError('Internal', 'This is a defect of the server. Its log says more under the request id.');
}

function failure(error: ApiError): ItemResult {
  if (error instanceof Repeated) return { status: error.answer.status, repeated: error.answer };
  return { status: error.status, error };
}

/**
 * Carries operations out in one transaction: all, or none and the error of the first that fails, whose `details` say which one
 * it is. Operations on the same object compose: each sees what those before it made. With `reference` the results are kept under
 * an Idempotency-Key in the same transaction.
 */
export async function carryOutAll(
  platform: Platform,
  tried: Attempt[],
  finish: (results: ItemResult[]) => {
    status: number;
    body: string;
    reference?: { key: string; line: number; request: string };
  },
): Promise<string> {
  const items = tried.map((item, index) => {
    if (item instanceof ApiError) throw blamed(item, index);
    return { item, index };
  });
  const parts = partsOf(items, platform.ruled);
  const types = [...new Set(items.map(({ item }) => item.type.type))];
  const removing = items.some(({ item }) => item.operation.verb !== 'create');
  for (let attempt = 1; ; attempt++) {
    const [first = []] = parts;
    const ahead = attempt <= optimistic ? await readyAll(platform, first) : undefined;
    try {
      const { body } = await platform.store.atomically({ types, removing }, async transaction => {
        const results: ItemResult[] = [];
        for (const part of parts) {
          const ready =
            part === first && ahead ? ahead : await readyAll(platform, part, await readPart(transaction, part));
          await store(transaction, part, ready, results);
        }
        const finished = finish(results);
        if (finished.reference) {
          await keepAnswers(transaction, [{ ...finished.reference, status: finished.status, body: finished.body }]);
        }
        return finished;
      });
      return body;
    } catch (error) {
      if (error instanceof Unstorable) throw unstorable(items, error);
      if (!(error instanceof Outdated) || attempt >= attempts) throw error instanceof Outdated ? error.error : error;
    }
  }
}

/** What a batch was computed from has changed: computed anew, it may succeed. */
class Outdated extends Error {
  constructor(readonly error: ApiError) {
    super(error.message);
  }
}

type Part = { index: number; item: BatchItem }[];

async function readyAll(
  platform: Platform,
  part: Part,
  read?: (type: string, key: BatchItem['key']) => Promise<StoredObject | undefined>,
): Promise<Ready[]> {
  return Promise.all(
    part.map(({ item, index }) =>
      makeReady(platform, item, read).catch((error: unknown) => {
        throw error instanceof ApiError ? blamed(error, index) : error;
      }),
    ),
  );
}

function unstorable(items: Part, { item }: Unstorable): ApiError {
  const found = items.find(one => one.item.key.name === item.name && one.item.key.namespace === item.namespace);
  if (!found) return new ApiError('Invalid', 'An operation holds a value that cannot be stored.');
  const { type, key } = found.item;
  return blamed(refused(type, key, { outcome: 'refused', message: '' }), found.index);
}

/** Reads the objects of a part, a query for each type; returns what looks them up. */
async function readPart(transaction: Transaction, part: Part) {
  const found = new Map<string, StoredObject>();
  for (const type of new Set(part.map(({ item }) => item.type.type))) {
    const keys = part.flatMap(({ item }) => (item.type.type === type ? [item.key] : []));
    for (const stored of await transaction.readObjects(type, keys)) {
      if (stored) found.set(`${type} ${stored.namespace}/${stored.name}`, stored);
    }
  }
  return (type: string, { namespace, name }: BatchItem['key']) =>
    Promise.resolve(found.get(`${type} ${namespace}/${name}`));
}

/** Writes a part type by type, in the order of their names as far as rules leave a choice. */
async function store(transaction: Transaction, part: Part, ready: Ready[], results: ItemResult[]): Promise<void> {
  const byType = new Map<string, { index: number; prepared: Prepared; operation: Operation; upsert: boolean }[]>();
  for (const [at, { item, index }] of part.entries()) {
    const one = ready[at];
    if (!one) throw new Error('an operation was not made ready');
    const { prepared, operation } = one;
    if (one.result) results[index] = one.result;
    else if (prepared?.item) {
      const list = byType.get(item.type.type) ?? [];
      list.push({ index, prepared, operation, upsert: item.upsert !== undefined });
      byType.set(item.type.type, list);
    } else if (prepared) {
      const { claim } = operation.writer;
      if (claim && !(await isHeld(transaction, claim))) throw blamed(lostClaim(), index);
      results[index] = {
        status: 200,
        object: prepared.answer({ version: 0, stamp: '' }).json,
        warnings: prepared.warnings,
      };
    }
  }
  for (const [type, list] of [...byType].sort(([a], [b]) => (a < b ? -1 : 1))) {
    const written = await transaction.writeObjects(
      type,
      list.flatMap(({ prepared }) => prepared.item ?? []),
    );
    list.forEach(({ index, prepared, operation, upsert }, i) => {
      const result = written[i];
      if (!result) throw new Error('an operation has no result');
      if (result.outcome !== 'ok') {
        const error = blamed(refused(prepared.type, prepared.key, result), index);
        const raced = upsert && ['exists', 'missing', 'conflict'].includes(result.outcome);
        throw raced || prepared.mayRetry(result.outcome) ? new Outdated(error) : error;
      }
      results[index] = {
        status: operation.verb === 'create' ? 201 : 200,
        object: prepared.answer(result).json,
        warnings: prepared.warnings,
      };
    });
  }
}

/** The error of one operation as that of its batch. */
function blamed(error: ApiError, index: number): ApiError {
  if (error instanceof Repeated) return error;
  const path = `operations[${index}]`;
  const details = [
    { path, message: error.message },
    ...(error.details ?? []).map(detail => ({ ...detail, path: `${path}.${detail.path}` })),
  ];
  return new ApiError(error.code, `${path}: ${error.message} Nothing of the batch was stored.`, details, error.headers);
}

/** A result as a line or element of the answer, without the braces. */
export function resultJson({ status, object, warnings = [], error, repeated }: ItemResult, requestId: string): string {
  if (repeated) {
    const failed = repeated.status >= 400;
    return `"status":${repeated.status},${failed ? `"error":${repeated.body}` : `"object":${repeated.body}`}`;
  }
  if (error) return `"status":${status},"error":${JSON.stringify(errorJson(error, requestId))}`;
  const more = warnings.length > 0 ? `,"warnings":${JSON.stringify(warnings)}` : '';
  return `"status":${status},"object":${object ?? 'null'}${more}`;
}

/** An error as it is shown. */
export function errorJson(error: ApiError, requestId: string): ErrorBody['error'] {
  const { code, status, message, details } = error;
  return { code, status, message, ...(details ? { details } : {}), requestId };
}
