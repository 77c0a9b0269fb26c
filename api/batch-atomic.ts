import {
  isHeld,
  keepAnswers,
  Unstorable,
  type AnswerReference,
  type StoredObject,
  type Transaction,
} from '../db/index.js';
import { attempts, makeReady, partsOf, type Attempt, type Part, type Ready } from './batch-parts.js';
import { Results } from './batch-results.js';
import { ApiError } from './errors.js';
import type { Operation, Prepared, Workshop } from './operation.js';
import type { Platform } from './platform.js';
import { lostClaim, refused, Repeated } from './refusals.js';

/** After so many optimistic tries an atomic batch is computed under the locks of its types, where nobody interferes. */
const optimistic = 2;

/**
 * Carries operations out in one transaction: all, or none and the error of the first that fails, whose `details` say which one
 * it is. Operations on the same object compose: each sees what those before it made. With `reference` the results are kept under
 * an Idempotency-Key in the same transaction. With `dryRun` it is all undone.
 */
export async function carryOutAll(
  platform: Platform,
  tried: Attempt[],
  { requestId, reference, dryRun }: { requestId: string; reference: AnswerReference | undefined; dryRun: boolean },
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
        const results = new Results(requestId);
        const shown = dryRun ? new Map<string, number>() : undefined;
        for (const part of parts) {
          const ready =
            part === first && ahead ? ahead : await readyAll(platform, part, await readPart(transaction, part));
          await store(transaction, part, ready, { results, shown });
        }
        const body = results.json(tried.length);
        if (reference) await keepAnswers(transaction, [{ ...reference, status: 200, body }]);
        if (dryRun) throw new Rehearsed(body);
        return { body };
      });
      return body;
    } catch (error) {
      if (error instanceof Rehearsed) return error.body;
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

/** A dry run has come to its end: it is undone as a failure is. */
class Rehearsed extends Error {
  constructor(readonly body: string) {
    super('undone');
  }
}

async function readyAll(platform: Platform, part: Part, read?: Workshop['read']): Promise<Ready[]> {
  // To the end of each, also if one fails: nothing may read on a connection that has been given back.
  const tried = await Promise.allSettled(part.map(({ item }) => makeReady(platform, item, read)));
  return tried.map((one, i) => {
    if (one.status === 'fulfilled') return one.value;
    const error: unknown = one.reason;
    throw error instanceof ApiError ? blamed(error, part[i]?.index ?? 0) : error;
  });
}

function unstorable(items: Part, { type: name, item: written }: Unstorable): ApiError {
  const found = items.find(
    ({ item }) => item.type.type === name && item.key.name === written.name && item.key.namespace === written.namespace,
  );
  if (!found) return new ApiError('Invalid', 'An operation holds a value that cannot be stored.');
  const { type, key } = found.item;
  return blamed(refused(type, key, { outcome: 'refused', message: '' }), found.index);
}

/** Reads the objects of a part, a query for each type; returns what looks them up, and others that rules ask for. */
async function readPart(transaction: Transaction, part: Part): Promise<Workshop['read']> {
  const known = new Map<string, StoredObject | undefined>();
  for (const type of new Set(part.map(({ item }) => item.type.type))) {
    const keys = part.flatMap(({ item }) => (item.type.type === type ? [item.key] : []));
    const found = await transaction.readObjects(type, keys);
    keys.forEach(({ namespace, name }, i) => known.set(`${type} ${namespace}/${name}`, found[i]));
  }
  return async (type, key) => {
    const name = `${type} ${key.namespace}/${key.name}`;
    if (!known.has(name)) known.set(name, (await transaction.readObjects(type, [key]))[0]);
    return known.get(name);
  };
}

/**
 * Writes a part type by type, in the order of their names as far as rules leave a choice. `shown`: of a dry run, the versions
 * that its answers have shown of objects; none shows one that a later write will have.
 */
async function store(
  transaction: Transaction,
  part: Part,
  ready: Ready[],
  { results, shown }: { results: Results; shown: Map<string, number> | undefined },
): Promise<void> {
  const byType = new Map<string, { index: number; prepared: Prepared; operation: Operation; upsert: boolean }[]>();
  for (const [at, { item, index }] of part.entries()) {
    const one = ready[at];
    if (!one) throw new Error('an operation was not made ready');
    const { prepared, operation } = one;
    if (one.result) results.set(index, one.result);
    else if (prepared?.item) {
      const list = byType.get(item.type.type) ?? [];
      list.push({ index, prepared, operation, upsert: item.upsert !== undefined });
      byType.set(item.type.type, list);
    } else if (prepared) {
      const { claim } = operation.writer;
      if (claim && !(await isHeld(transaction, claim))) throw blamed(lostClaim(), index);
      results.set(index, {
        status: 200,
        object: prepared.answer({ version: 0, stamp: '' }).json,
        warnings: prepared.warnings,
      });
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
      results.set(index, {
        status: operation.verb === 'create' ? 201 : 200,
        object: prepared.answer(shown ? { version: former(shown, type, prepared), stamp: result.stamp } : result).json,
        warnings: prepared.warnings,
      });
    });
  }
}

function former(shown: Map<string, number>, type: string, { key, item }: Prepared): number {
  const name = `${type} ${key.namespace}/${key.name}`;
  const version = item?.expect === undefined ? 0 : (shown.get(name) ?? item.expect);
  shown.set(name, version);
  return version;
}

/** The error of one operation as that of its batch. */
function blamed(error: ApiError, index: number): ApiError {
  if (error instanceof Repeated) return error;
  const path = `operations[${index}]`;
  const details = [
    { path, message: error.message },
    ...(error.details ?? []).map(detail => ({ ...detail, path: `${path}.${detail.path}` })),
  ];
  return new ApiError(error.code, `${path}: ${error.message} Nothing of the batch was stored.`, {
    details,
    headers: error.headers,
  });
}
