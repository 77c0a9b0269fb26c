import type { BatchItem } from './batch-operations.js';
import { attempts, makeReady, partsOf, type Attempt, type Part, type Ready } from './batch-parts.js';
import { explained, type ItemResult } from './batch-results.js';
import { ApiError } from './errors.js';
import type { Platform } from './platform.js';
import { Repeated } from './refusals.js';

/** Carries operations out, each for itself; a result for each, in their order. Throws nothing that only one of them is to blame for. */
export async function carryOutEach(platform: Platform, tried: Attempt[]): Promise<ItemResult[]> {
  const results: ItemResult[] = [];
  const items: { index: number; item: BatchItem }[] = [];
  tried.forEach((item, index) => {
    if (item instanceof ApiError) results[index] = { status: item.status, error: item };
    else items.push({ index, item });
  });
  for (const part of partsOf(items, platform.ruled)) {
    const done = part.some(({ item }) => item.operation.dryRun)
      ? await rehearseEach(platform, part)
      : await storeEach(platform, part);
    part.forEach(({ index }, i) => {
      const one = done[i];
      if (one) results[index] = 'error' in one ? failure(one.error) : one.value;
    });
  }
  return results;
}

type Settled<T> = { value: T } | { error: ApiError };

/** Made ready first, then queued in one go: their writes keep their order, and travel together. */
async function storeEach(platform: Platform, part: Part): Promise<Settled<ItemResult>[]> {
  const ready = await Promise.all(part.map(({ item }) => settled(platform, () => makeReady(platform, item))));
  return Promise.all(
    part.map(({ item }, i) => {
      const one = ready[i];
      return one && 'error' in one
        ? Promise.resolve(one)
        : settled(platform, () => carryOut(platform, item, one?.value));
    }),
  );
}

/** One after the other: each is a transaction that holds a connection and its type's counter. */
async function rehearseEach(platform: Platform, part: Part): Promise<Settled<ItemResult>[]> {
  const done: Settled<ItemResult>[] = [];
  for (const { item } of part) done.push(await settled(platform, () => carryOut(platform, item, undefined)));
  return done;
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

async function settled<T>(platform: Platform, work: () => Promise<T>): Promise<Settled<T>> {
  try {
    return { value: await work() };
  } catch (error) {
    return { error: explained(platform, error) };
  }
}

function failure(error: ApiError): ItemResult {
  if (error instanceof Repeated) return { status: error.answer.status, repeated: error.answer };
  return { status: error.status, error };
}
