import type { StoredObject } from '../db/index.js';
import { isObject, parseJson, type JsonObject } from './json.js';
import type { Sealed } from './secrets.js';
import type { TypeDefinition } from './type-definition.js';

/** What clients set around a type's own fields. */
export const metadataFields = ['labels', 'annotations', 'finalizers', 'owners'];

/** What bodies may hold and writes of the object itself leave as it is stored. */
export const serverFields = [
  'type',
  'name',
  'namespace',
  'uid',
  'resourceVersion',
  'generation',
  'createdAt',
  'updatedAt',
  'deletedAt',
  'status',
];

/** What a body of a new object may hold beside these: how to make a name. It is not stored. */
const requestFields = ['generateName'];

/** The type's own fields of a body, with the type's defaults for those left out. */
export function ownFields(type: TypeDefinition, body: JsonObject): JsonObject {
  const present = pick(body, type.fields);
  for (const [field, value] of Object.entries(type.defaults)) if (present[field] === undefined) present[field] = value;
  return present;
}

/** Fields that no object of the type has. They are kept until validation, which names all of them. */
export function unknownFields(type: TypeDefinition, body: JsonObject): JsonObject {
  const known = new Set([...type.fields, ...metadataFields, ...serverFields, ...requestFields]);
  return Object.fromEntries(Object.entries(body).filter(([field]) => !known.has(field)));
}

/** The given fields of an object, without those that are absent or null. Their names are ours, never those that a client chose. */
export function pick(object: JsonObject, fields: string[]): JsonObject {
  const picked: JsonObject = {};
  for (const field of fields) {
    if (Object.hasOwn(object, field) && object[field] != null) picked[field] = object[field];
  }
  return picked;
}

/** The object without fields that are null. */
export function withoutNulls(object: JsonObject): JsonObject {
  return Object.fromEntries(Object.entries(object).filter(([, value]) => value != null));
}

/** The object without these fields: itself, if it has none of them. */
export function without(object: JsonObject, fields: string[]): JsonObject {
  if (!fields.some(field => Object.hasOwn(object, field))) return object;
  return Object.fromEntries(Object.entries(object).filter(([name]) => !fields.includes(name)));
}

/** The JSON of a stored object, parsed. */
export function asObject(stored: StoredObject): JsonObject {
  const object = parseJson(stored.object);
  if (!isObject(object)) throw new Error(`stored object ${stored.namespace}/${stored.name} is not a JSON object`);
  return object;
}

/** The ciphertexts of a stored object; the column is written by Secrets alone. */
export function sealedOf(stored: StoredObject): Sealed | null {
  return stored.sealed as Sealed | null;
}

/** The labels of a stored object; none where it has none. */
export function labelsOf(object: JsonObject): Record<string, string> {
  const labels = object['labels'];
  if (!isObject(labels)) return {};
  if (areTexts(labels)) return labels;
  return Object.fromEntries(Object.entries(labels).map(([key, value]) => [key, String(value)]));
}

function areTexts(map: JsonObject): map is Record<string, string> {
  return Object.values(map).every(value => typeof value === 'string');
}

/** The finalizers of a stored object; none where it has none. */
export function finalizersOf(object: JsonObject): string[] {
  const list = object['finalizers'];
  return Array.isArray(list) ? list.filter(one => typeof one === 'string') : [];
}

/** How often the own fields of a stored object have changed, from 1. */
export function generationOf(object: JsonObject): number {
  return typeof object['generation'] === 'number' ? object['generation'] : 1;
}
