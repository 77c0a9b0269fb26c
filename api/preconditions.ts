import type { Key } from '../db/index.js';
import { ApiError } from './errors.js';
import type { JsonObject } from './json.js';
import { describe, invalid } from './refusals.js';
import type { TypeDefinition } from './type-definition.js';

/** What a write demands of the stored object; a stale version is a Conflict. */
export interface Preconditions {
  resourceVersion?: string;
  uid?: string;
}

/** The preconditions of a request together with those that its body names. Throws Invalid for what is no version or uid. */
export function withBody(preconditions: Preconditions, body: JsonObject): Preconditions {
  return {
    resourceVersion: preconditions.resourceVersion ?? text(body, 'resourceVersion'),
    uid: preconditions.uid ?? text(body, 'uid'),
  };
}

/** Throws Conflict when the stored object is another one, or in another version, than demanded. */
export function demand(type: TypeDefinition, key: Key, stored: JsonObject, demanded: Preconditions): void {
  const { resourceVersion, uid } = demanded;
  if (uid !== undefined && uid !== stored['uid']) {
    throw new ApiError(
      'Conflict',
      `${describe(type, key)} has the uid ${String(stored['uid'])}, not ${uid}: it was deleted and created again.`,
    );
  }
  if (resourceVersion !== undefined && resourceVersion !== stored['resourceVersion']) {
    throw new ApiError(
      'Conflict',
      `${describe(type, key)} is at version ${String(stored['resourceVersion'])}, not ${resourceVersion}; read it, apply your change to it and write again.`,
    );
  }
}

function text(body: JsonObject, field: 'resourceVersion' | 'uid'): string | undefined {
  const value = body[field];
  if (value === undefined || value === null) return undefined;
  if (typeof value === 'string' && (field === 'uid' || /^\d{1,19}$/.test(value))) return value;
  const message =
    field === 'uid' ? 'must be a string' : 'must be a version as answered by the server: a decimal number in a string';
  throw invalid([{ path: field, message }]);
}
