import { changedParts, differences, formerValues } from './changes.js';
import { notFound, type ErrorDetail } from './errors.js';
import {
  asObject,
  finalizersOf,
  generationOf,
  labelsOf,
  metadataFields,
  ownFields,
  pick,
  sealedOf,
  serverFields,
  unknownFields,
  without,
} from './fields.js';
import { isObject, stringifyJson, type JsonObject } from './json.js';
import { checkEnvelope } from './labels.js';
import { mergePatch } from './merge-patch.js';
import { authorship, sized, unchanged, type Change, type Prepared, type Workshop } from './operation.js';
import { demand, withBody } from './preconditions.js';
import { describe, refuse, refuseForeignKey, refuseForeignType } from './refusals.js';
import { mask } from './secrets.js';
import type { TypeDefinition } from './type-definition.js';
import { validate, validateStatus, type FieldError } from './validation.js';

/** Makes a change of a stored object ready. Throws NotFound, Conflict, UnknownField, Invalid, TooLarge, Forbidden. */
export async function prepareChange(change: Change, { secrets, read }: Workshop): Promise<Prepared> {
  const { type, key, body, subresource, writer } = change;
  if (subresource === undefined) {
    refuseForeignType(type, body);
    refuseForeignKey(key, body);
  }
  const preconditions = withBody(change.preconditions, body);
  const mayRetry: Prepared['mayRetry'] = outcome =>
    outcome === 'conflict' && preconditions.resourceVersion === undefined;
  const stored = await read(type.type, key);
  if (!stored) throw notFound(describe(type, key));
  const previous = asObject(stored);
  demand(type, key, previous, preconditions);
  const author = authorship(type, key, writer);
  const wanted = apply(change, previous);
  const { masked, sealed, kept, violations } = secrets.seal(type, stored.uid, wanted, sealedOf(stored));
  const next = pick(masked, Object.keys(masked));
  const differing = differences(previous, next);
  if (!kept) for (const { field } of type.secrets) if (field in next || field in previous) differing.add(field);
  if (differing.size === 0 && violations.length === 0) return { type, key, answer: () => unchanged(stored), mayRetry };
  check(type, previous, next, wanted, differing, violations);

  const changed = changedParts(type, differing);
  const generation = generationOf(previous) + (changed.includes('spec') ? 1 : 0);
  next['generation'] = generation;
  const gone = next['deletedAt'] !== undefined && finalizersOf(next).length === 0;
  const former = new Set(differing);
  if (!gone) former.add('updatedAt');
  if (generation !== previous['generation']) former.add('generation');
  return {
    type,
    key,
    item: {
      op: gone ? 'delete' : 'update',
      ...key,
      expect: stored.version,
      // The store sets updatedAt, but not in the last state of an object that this write removes.
      object: sized(gone ? next : without(next, ['updatedAt'])),
      labels: labelsOf(next),
      ...(kept ? { keepSealed: true } : { sealed }),
      before: formerValues(previous, former),
      changed: gone ? [...changed, 'deletion'] : changed,
      ...author,
    },
    answer: ({ version, stamp, object }) => ({
      key,
      json:
        object ?? stringifyJson({ ...next, ...(gone ? {} : { updatedAt: stamp }), resourceVersion: String(version) }),
      version: String(version),
    }),
    mayRetry,
  };
}

/** What the object is to be, before its secrets are sealed. */
function apply({ type, verb, body, subresource }: Change, previous: JsonObject): JsonObject {
  const result = verb === 'replace' ? body : mergePatch(previous, body);
  if (subresource === 'status') {
    const status =
      verb === 'replace' ? body['status'] : mergePatch(pick(previous, ['status']), pick(body, ['status']))['status'];
    return { ...without(previous, ['status']), ...(status === undefined || status === null ? {} : { status }) };
  }
  return {
    ...pick(previous, serverFields),
    ...pick(result, metadataFields),
    ...ownFields(type, result),
    ...unknownFields(type, result),
  };
}

// Only what a write changes is checked: a type that became stricter locks nobody out of an object stored before.
function check(
  type: TypeDefinition,
  previous: JsonObject,
  next: JsonObject,
  wanted: JsonObject,
  differing: Set<string>,
  violations: ErrorDetail[],
): void {
  const errors: FieldError[] = [];
  const own = new Set([...differing].filter(field => !metadataFields.includes(field) && field !== 'status'));
  if (own.size > 0) errors.push(...validate(type, withoutMasks(type, wanted), own));
  if (differing.has('status')) errors.push(...validateStatus(type, next['status']));
  const problems: ErrorDetail[] = [...violations];
  if (metadataFields.some(field => differing.has(field))) problems.push(...checkEnvelope(next));
  for (const field of type.immutable) {
    if (differing.has(field))
      problems.push({ path: field, message: 'is immutable: it can only be set when the object is created' });
  }
  if (previous['deletedAt'] !== undefined) {
    const old = new Set(finalizersOf(previous));
    const added = finalizersOf(next).filter(finalizer => !old.has(finalizer));
    if (added.length > 0)
      problems.push({
        path: 'finalizers',
        message: `no finalizer can be added while the object is being deleted (${added.join(', ')})`,
      });
  }
  refuse([...errors, ...problems]);
}

/** Secrets as they were sent; the mask that stands in for one may break its pattern. */
function withoutMasks(type: TypeDefinition, object: JsonObject): JsonObject {
  const clear = { ...object };
  for (const { field, map } of type.secrets) {
    const value = clear[field];
    if (map && isObject(value))
      clear[field] = Object.fromEntries(Object.entries(value).filter(([, item]) => item !== mask));
    else if (value === mask) clear[field] = '';
  }
  return clear;
}
