import type { Key, WriteItem } from '../db/index.js';
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
  withoutNulls,
} from './fields.js';
import { isObject, stringifyJson, type JsonObject } from './json.js';
import { JsonPatch } from './json-patch.js';
import { checkEnvelope } from './labels.js';
import { mergePatch } from './merge-patch.js';
import { authorship, sized, unchanged, type Change, type Prepared, type Workshop } from './operation.js';
import { demand, withBody } from './preconditions.js';
import { describe, invalid, refuse, refuseForeignKey, refuseForeignType } from './refusals.js';
import { mask } from './secrets.js';
import type { Sealed } from './secrets.js';
import type { TypeDefinition } from './type-definition.js';
import { validate, validateStatus, type FieldError } from './validation.js';

/** Makes a change of a stored object ready. Throws NotFound, Conflict, UnknownField, Invalid, TooLarge, Forbidden. */
export async function prepareChange(change: Change, { secrets, read, admit }: Workshop): Promise<Prepared> {
  const { type, key, verb, body, subresource, writer, dryRun = false } = change;
  const named = body instanceof JsonPatch ? change.preconditions : withBody(change.preconditions, body);
  if (!(body instanceof JsonPatch) && subresource === undefined) refuseForeign(type, key, body);
  const mayRetry: Prepared['mayRetry'] = outcome => outcome === 'conflict' && named.resourceVersion === undefined;
  const stored = await read(type.type, key);
  if (!stored) throw notFound(describe(type, key));
  const previous = asObject(stored);
  demand(type, key, previous, named);
  const author = authorship(type, key, writer);

  const compare = (wanted: JsonObject): Comparison => {
    const { masked, sealed, kept, violations } = secrets.seal(type, stored.uid, wanted, sealedOf(stored));
    const next = withoutNulls(masked);
    const differing = differences(previous, next);
    if (!kept) for (const { field } of type.secrets) if (field in next || field in previous) differing.add(field);
    if (differing.size > 0 || violations.length > 0) check(type, previous, next, wanted, differing, violations);
    const held = kept ? sealedOf(stored) : sealed;
    return { next, differing, secretParts: kept ? { keepSealed: true } : { sealed }, held };
  };
  const wanted = apply(change, previous);
  let { next, differing, secretParts, held } = compare(wanted);
  const unchangedAnswer = { type, key, answer: () => unchanged(stored), warnings: [], mayRetry };
  if (differing.size === 0) return unchangedAnswer;
  const mutable = subresource === undefined ? [...type.fields, ...metadataFields] : countingFields[subresource];
  const context = { verb, controller: writer.claim?.controller, dryRun };
  const admitted = await admit({ type, object: wanted, previous, differing, mutable, context });
  if (admitted.violations.length > 0) throw invalid(admitted.violations);
  if (admitted.object !== wanted) {
    ({ next, differing, secretParts, held } = compare(admitted.object));
    if (differing.size === 0) return { ...unchangedAnswer, warnings: admitted.warnings };
  }

  const changed = changedParts(type, differing);
  const generation = generationOf(previous) + (changed.includes('spec') ? 1 : 0);
  const final: JsonObject = { ...next, generation };
  const gone = final['deletedAt'] !== undefined && finalizersOf(final).length === 0;
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
      object: sized(gone ? final : without(final, ['updatedAt']), held),
      labels: labelsOf(final),
      ...secretParts,
      before: formerValues(previous, former),
      changed: gone ? [...changed, 'deletion', 'owners'] : changed,
      ...author,
    },
    answer: ({ version, stamp, object }) => ({
      key,
      json:
        object ?? stringifyJson({ ...final, ...(gone ? {} : { updatedAt: stamp }), resourceVersion: String(version) }),
      version: String(version),
    }),
    warnings: admitted.warnings,
    mayRetry,
  };
}

/** A state that was asked for beside the stored one. */
interface Comparison {
  next: JsonObject;
  differing: Set<string>;
  secretParts: Pick<WriteItem, 'keepSealed' | 'sealed'>;
  /** The secret values that the object has after the write. */
  held: Sealed | null;
}

/** What a write of a subresource changes; everything else of its body is ignored. */
const countingFields = { metadata: metadataFields, status: ['status'] };

/** Whether a change may give a top-level field another value, as far as can be told without the stored object. */
export function mayChange({ verb, body, subresource }: Change, field: string): boolean {
  if (subresource !== undefined) return countingFields[subresource].includes(field);
  if (field === 'status') return false;
  if (body instanceof JsonPatch) return body.touches(field);
  return verb === 'replace' || Object.hasOwn(body, field);
}

/** What the object is to be, before its secrets are sealed. */
function apply({ type, key, verb, body, subresource }: Change, previous: JsonObject): JsonObject {
  if (body instanceof JsonPatch) {
    const secretFields = type.secrets.map(({ field }) => field);
    const result = body.apply(previous, secretFields);
    demand(type, key, previous, withBody({}, result));
    if (subresource === undefined) refuseForeign(type, key, result);
    return merged(type, previous, result, subresource);
  }
  return merged(type, previous, verb === 'replace' ? body : mergePatch(previous, body), subresource);
}

/** The stored object with those fields of another one that count. */
function merged(
  type: TypeDefinition,
  previous: JsonObject,
  result: JsonObject,
  subresource: Change['subresource'],
): JsonObject {
  if (subresource !== undefined) {
    const counting = countingFields[subresource];
    return { ...without(previous, counting), ...pick(result, counting) };
  }
  return {
    ...pick(previous, serverFields),
    ...pick(result, metadataFields),
    ...ownFields(type, result),
    ...unknownFields(type, result),
  };
}

function refuseForeign(type: TypeDefinition, key: Key, object: JsonObject): void {
  refuseForeignType(type, object);
  refuseForeignKey(key, object);
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
  problems.push(...checkEnvelope(next, differing));
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
