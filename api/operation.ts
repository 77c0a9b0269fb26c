import type { ClaimReference, Key, StoredObject, WriteItem, WriteResult } from '../db/index.js';
import { ApiError } from './errors.js';
import { without } from './fields.js';
import { stringifyJson, type JsonObject } from './json.js';
import type { Preconditions } from './preconditions.js';
import type { Secrets } from './secrets.js';
import type { TypeDefinition } from './type-definition.js';

/** Who writes: with a claim the controller, fenced by it; without one a client. */
export interface Writer {
  claim?: ClaimReference;
  traceparent?: string;
}

/** Stores a new object. `input` has passed `checkInput`, either at the route or by whoever made the operation. */
export interface Creation {
  verb: 'create';
  type: TypeDefinition;
  input: JsonObject;
  writer: Writer;
}

/**
 * Changes a stored object. `body` is an object, or a merge patch (RFC 7396); what of it counts is said by `subresource`: without
 * one everything that clients set, with `status` the status alone.
 */
export interface Change {
  verb: 'replace' | 'patch';
  type: TypeDefinition;
  key: Key;
  body: JsonObject;
  subresource?: 'status';
  preconditions: Preconditions;
  writer: Writer;
}

/** Deletes an object, or marks it as being deleted while it has finalizers. */
export interface Deletion {
  verb: 'delete';
  type: TypeDefinition;
  key: Key;
  preconditions: Preconditions;
  writer: Writer;
}

export type Operation = Creation | Change | Deletion;

/** An object as answered: its JSON text and version. */
export interface Answer {
  key: Key;
  json: string;
  version: string;
}

/** A write made ready: computed from a version that was read, validated and compared with it, but not stored. */
export interface Prepared {
  type: TypeDefinition;
  key: Key;
  /** What is to be stored. Missing: the write changes nothing; then whoever carries it out checks the writer's claim itself. */
  item?: WriteItem;
  /** The answer when `item` was stored with this result (`object`: as stored); without an item the object as it is. */
  answer: (result: { version: number; stamp: string; object?: string }) => Answer;
  /** Whether preparing anew may lead to success where the database refused `item` with this outcome. */
  mayRetry: (outcome: WriteResult['outcome']) => boolean;
}

/** What preparing needs: secrets are sealed, stored objects are read. */
export interface Workshop {
  secrets: Secrets;
  /** Throws nothing for an object that is not there. */
  read: (type: string, key: Key) => Promise<StoredObject | undefined>;
}

const maxObjectBytes = 1_500_000;

/** The JSON to store of an object. Throws TooLarge. */
export function sized(object: JsonObject): string {
  const json = stringifyJson(without(object, ['resourceVersion']));
  const bytes = Buffer.byteLength(json);
  if (bytes > maxObjectBytes)
    throw new ApiError('TooLarge', `The object has ${bytes} bytes, the limit is ${maxObjectBytes}.`);
  return json;
}

/** A stored object as the answer to a write that changes nothing. */
export function unchanged(stored: StoredObject): Answer {
  const { namespace, name, object, version } = stored;
  return { key: { namespace, name }, json: object, version: String(version) };
}

/** What the event log and the claim check must know of the writer. Throws Forbidden for a type that is another's to write. */
export function authorship(
  type: TypeDefinition,
  key: Key,
  { claim, traceparent }: Writer,
): Pick<WriteItem, 'actor' | 'own' | 'claim' | 'traceparent'> {
  if (type.writer !== undefined && claim?.controller !== type.writer) {
    throw new ApiError('Forbidden', `${type.type} are written by the controller ${type.writer} alone, with its claim.`);
  }
  const own =
    claim !== undefined && claim.type === type.type && claim.namespace === key.namespace && claim.name === key.name;
  return {
    actor: claim ? `controller:${claim.controller}` : 'client',
    own,
    ...(claim ? { claim } : {}),
    ...(traceparent ? { traceparent } : {}),
  };
}
