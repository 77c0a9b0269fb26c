import type { AnswerReference, Key } from '../db/index.js';
import type { BatchOperation } from './batch.js';
import { ApiError } from './errors.js';
import { checkInput } from './input.js';
import { isObject, stringifyJson, type JsonObject } from './json.js';
import { JsonPatch } from './json-patch.js';
import type { Change, Operation, Writer } from './operation.js';
import { typeOf, type Platform } from './platform.js';
import { invalid, namespaceFor, refuse } from './refusals.js';
import { readClaimToken } from './tokens.js';
import type { TypeDefinition } from './type-definition.js';

/** An operation of a batch that has been read. */
export interface BatchItem {
  type: TypeDefinition;
  key: Key;
  /** What is to be done; an upsert is a creation first, or a replacement, as it turns out. */
  operation: Operation;
  upsert?: { replacement: Operation; sent: JsonObject; unlessNewer: string | undefined };
}

/** What all operations of a batch share. */
export interface BatchContext {
  platform: Platform;
  writer: Writer;
  /** Nothing is to be stored. */
  dryRun: boolean;
}

/**
 * Reads an operation whose form was checked. Throws the errors of the catalogue that the operation alone would get, and Invalid
 * for fields that do not go together.
 */
export function readOperation(
  { platform, writer, dryRun }: BatchContext,
  given: BatchOperation,
  answer: AnswerReference | undefined,
): BatchItem {
  const type = typeOf(platform, given.type);
  checkFields(given);
  const object = given.object ?? {};
  const key = keyOf(type, given, object);
  const by: Writer = {
    ...writer,
    ...(given.claim === undefined ? {} : { claim: claimOf(given.claim) }),
    ...(answer ? { answer } : {}),
  };
  const { resourceVersion, uid, subresource } = given;
  const preconditions = { resourceVersion, uid };
  const creation = (): Operation => {
    const input = withKey(type, key, object);
    refuse(checkInput(type, input));
    return { verb: 'create', type, input, writer: by, dryRun };
  };
  const shared = { type, key, preconditions, writer: by, dryRun };
  const replacement: Change = {
    verb: 'replace',
    body: object,
    ...shared,
    ...(subresource === undefined ? {} : { subresource }),
  };
  switch (given.op) {
    case 'create':
      return { type, key, operation: creation() };
    case 'upsert':
      return {
        type,
        key,
        operation: creation(),
        upsert: { replacement, sent: object, unlessNewer: given.unlessNewer },
      };
    case 'replace':
      return { type, key, operation: replacement };
    case 'patch':
      return { type, key, operation: { ...replacement, verb: 'patch', body: patchOf(given) } };
    case 'delete': {
      const { propagationPolicy: propagation } = given;
      return { type, key, operation: { verb: 'delete', ...shared, ...(propagation ? { propagation } : {}) } };
    }
  }
}

const always = ['op', 'type', 'namespace', 'name', 'claim'];
const fieldsOf: Record<BatchOperation['op'], Set<string>> = {
  create: new Set([...always, 'object']),
  replace: new Set([...always, 'object', 'subresource', 'resourceVersion', 'uid']),
  patch: new Set([...always, 'patch', 'patchType', 'subresource', 'resourceVersion', 'uid']),
  delete: new Set([...always, 'propagationPolicy', 'resourceVersion', 'uid']),
  upsert: new Set([...always, 'object', 'unlessNewer']),
};

// A field that would be ignored is refused: who sent it believes that it does something.
function checkFields(given: BatchOperation): void {
  const problems = Object.keys(given)
    .filter(field => !fieldsOf[given.op].has(field))
    .map(path => ({ path, message: `has no meaning for ${given.op}; leave it out` }));
  const needed = given.op === 'patch' ? 'patch' : given.op === 'delete' ? undefined : 'object';
  if (needed && given[needed] === undefined) problems.push({ path: needed, message: `is required for ${given.op}` });
  if (given.resourceVersion !== undefined && !/^\d{1,19}$/.test(given.resourceVersion)) {
    problems.push({ path: 'resourceVersion', message: 'must be a version as answered by the server' });
  }
  if (problems.length > 0) throw invalid(problems);
}

function keyOf(type: TypeDefinition, given: BatchOperation, object: JsonObject): Key {
  for (const field of ['name', 'namespace'] as const) {
    if (given[field] !== undefined && object[field] !== undefined && given[field] !== object[field]) {
      throw invalid([{ path: `object.${field}`, message: `must be "${given[field]}", as in the operation` }]);
    }
  }
  const text = (value: unknown) => (typeof value === 'string' ? value : undefined);
  const name = given.name ?? text(object['name']);
  const namespace = given.namespace ?? text(object['namespace']);
  if (name === undefined && given.op !== 'create') throw invalid([{ path: 'name', message: 'is required' }]);
  if (name?.includes('\0')) throw invalid([{ path: 'name', message: 'holds a NUL character' }]);
  if (namespace?.includes('\0')) throw invalid([{ path: 'namespace', message: 'holds a NUL character' }]);
  return { namespace: namespaceFor(type, namespace), name: name ?? '' };
}

/** The object with the name and namespace that the operation gives it. */
function withKey(type: TypeDefinition, key: Key, object: JsonObject): JsonObject {
  const unnamed = key.name !== '' && object['name'] !== key.name;
  const unplaced = type.namespaced && object['namespace'] === undefined;
  if (!unnamed && !unplaced) return object;
  return { ...object, ...(unnamed && { name: key.name }), ...(unplaced && { namespace: key.namespace }) };
}

function patchOf({ patch, patchType = 'merge' }: BatchOperation): JsonObject | JsonPatch {
  if (patchType === 'json' && Array.isArray(patch)) return new JsonPatch(patch);
  if (patchType === 'merge' && isObject(patch)) return patch;
  throw invalid([{ path: 'patch', message: patchType === 'merge' ? 'must be an object' : 'must be a list' }]);
}

function claimOf(token: string): NonNullable<Writer['claim']> {
  const claim = readClaimToken(token);
  if (!claim || 'map' in claim) {
    throw new ApiError('Fenced', 'claim: is no token of a claimed key; send the token as the claim answered it.');
  }
  return claim;
}

/** Whether the value at a path of the stored object is greater than that of the object sent. */
export function isNewer(stored: JsonObject, sent: JsonObject, path: string): boolean {
  const at = (object: JsonObject) =>
    path
      .split('.')
      .reduce<unknown>(
        (value, part) => (isObject(value) && Object.hasOwn(value, part) ? value[part] : undefined),
        object,
      );
  const a = at(stored);
  const b = at(sent);
  if (a === undefined || b === undefined) return false;
  const text = (value: unknown) => (typeof value === 'string' ? value : stringifyJson(value));
  const [x, y] = [text(a), text(b)];
  if (/^\d+$/.test(x) && /^\d+$/.test(y)) return BigInt(x) > BigInt(y);
  if (typeof a !== 'string' && typeof b !== 'string') return Number(x) > Number(y);
  const time = /^\d{4}-\d\d-\d\dT\d\d:\d\d/;
  if (time.test(x) && time.test(y) && Date.parse(x) !== Date.parse(y)) return Date.parse(x) > Date.parse(y);
  return x > y;
}
