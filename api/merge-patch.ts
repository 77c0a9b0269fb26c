import { isObject, type JsonObject } from './json.js';

/** Applies a JSON merge patch (RFC 7396): null removes, objects merge, everything else replaces. Changes no argument. */
export function mergePatch(target: unknown, patch: JsonObject): JsonObject {
  const fields = new Map(Object.entries(isObject(target) ? target : {}));
  for (const [field, value] of Object.entries(patch)) {
    if (value === null) fields.delete(field);
    else fields.set(field, isObject(value) ? mergePatch(fields.get(field), value) : value);
  }
  // fromEntries defines own properties, also one that is called __proto__
  return Object.fromEntries(fields);
}
