import { Bonds } from './batch-bonds.js';
import { isNewer, type BatchItem } from './batch-operations.js';
import type { ItemResult } from './batch-results.js';
import type { ApiError } from './errors.js';
import { asObject } from './fields.js';
import { unchanged, type Operation, type Prepared, type Workshop } from './operation.js';
import type { Platform } from './platform.js';

/** Something to do, or why it cannot be done. */
export type Attempt = BatchItem | ApiError;

/** How often an operation is made ready anew when what it was computed from has changed. */
export const attempts = 8;

/** Operations of a batch with their places in it. */
export type Part = { index: number; item: BatchItem }[];

/**
 * Parts of a batch whose operations do not depend on each other: within one, no object occurs twice. Where operations are bound
 * to each other, everything keeps its order, and the second of two that are bound begins a new part.
 */
export function partsOf(items: Part, ruled: ReadonlySet<string>): Part[] {
  const all = new Bonds(ruled);
  const inOrder = items.some(({ item }) => {
    all.add(item);
    return ruled.has(item.type.type) || all.meet(item);
  });
  const parts: Part[] = [];
  const counts = new Map<string, number>();
  const bonds = new Bonds(ruled);
  let seen = new Set<string>();
  for (const one of items) {
    const name = nameOf(one.item);
    if (inOrder) {
      if (parts.length === 0 || seen.has(name) || bonds.meet(one.item, { sameType: false })) {
        parts.push([]);
        seen = new Set();
        bonds.clear();
      }
      bonds.add(one.item);
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

/** An operation that was made ready; without `prepared` there is nothing to do, and `result` is the answer. */
export interface Ready {
  operation: Operation;
  prepared?: Prepared;
  result?: ItemResult;
}

/**
 * Makes an operation ready to be stored; of an upsert what fits the stored object. Throws the errors of the catalogue.
 *
 * @param read where stored objects are looked up, by the rules of the type as well; default: the database
 */
export async function makeReady(platform: Platform, item: BatchItem, read?: Workshop['read']): Promise<Ready> {
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
