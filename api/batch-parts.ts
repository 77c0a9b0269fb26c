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
 * Parts of a batch whose operations do not depend on each other: within one, no object occurs twice. Where rules bind objects
 * to each other, or rules of admission may look at objects of another type, everything keeps its order, and another type
 * begins a new part.
 */
export function partsOf(items: Part, ruled: ReadonlySet<string>): Part[] {
  const mixed = items.some(({ item }) => item.type !== items[0]?.item.type);
  const inOrder = items.some(({ item }) => ruled.has(item.type.type) || (mixed && asksRules(item)));
  const parts: Part[] = [];
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

/** Whether rules of admission, which may look at other objects, have a say in an operation. */
export function asksRules({ type, operation }: BatchItem): boolean {
  return operation.verb !== 'delete' && (type.rules ?? []).length > 0;
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
