import type { AnswerReference, ClaimReference, Key, StoredObject, WriteItem, WriteResult } from '../db/index.js';
import { ApiError } from './errors.js';
import { without } from './fields.js';
import { stringifyJson, type JsonObject } from './json.js';
import type { admit, Applicant } from './admission.js';
import type { JsonPatch } from './json-patch.js';
import type { Preconditions } from './preconditions.js';
import { sealedBytes, type Sealed, type Secrets } from './secrets.js';
import type { TypeDefinition } from './type-definition.js';

/** Who writes: with a claim the controller, fenced by it; without one a client. */
export interface Writer {
  claim?: ClaimReference;
  traceparent?: string;
  /** Where the answer is kept for repetitions of the request. */
  answer?: AnswerReference;
  /** It carries out what owners say, which is right for every type, also one that a controller alone writes. */
  collector?: boolean;
}

interface Common {
  type: TypeDefinition;
  writer: Writer;
  /** The whole way is gone, but nothing is stored. */
  dryRun?: boolean;
}

/** Stores a new object. `input` has passed `checkInput`, either at the route or by whoever made the operation. */
export interface Creation extends Common {
  verb: 'create';
  input: JsonObject;
}

/**
 * Changes a stored object. `body` is an object, a merge patch (RFC 7396) or a JSON patch (RFC 6902) of the whole object; what of
 * the result counts is said by `subresource`: without one everything that clients set, else the status, or the metadata, alone.
 */
export interface Change extends Common {
  verb: 'replace' | 'patch';
  key: Key;
  body: JsonObject | JsonPatch;
  subresource?: 'metadata' | 'status';
  preconditions: Preconditions;
}

/**
 * What becomes of the objects that a deleted one owns: they go after it (Background), before it (Foreground), or stay without
 * it (Orphan).
 */
export type Propagation = 'Background' | 'Foreground' | 'Orphan';

/** Deletes an object, or marks it as being deleted while it has finalizers. */
export interface Deletion extends Common {
  verb: 'delete';
  key: Key;
  /** What becomes of its dependents. Default: what its finalizers say, else Background. */
  propagation?: Propagation;
  preconditions: Preconditions;
}

/** A write on its way through the pipeline. */
export type Operation = Creation | Change | Deletion;

/** An object as answered: its JSON text and version. */
export interface Answer {
  key: Key;
  json: string;
  version: string;
}

/** An answer with what the rules of the type have to say beside it. */
export interface Outcome extends Answer {
  warnings: string[];
  /** Whether something was stored, or would have been but for a dry run; false: the object was as wanted already. */
  stored: boolean;
}

/** A write made ready: computed from a version that was read, validated and compared with it, but not stored. */
export interface Prepared {
  type: TypeDefinition;
  key: Key;
  /** What is to be stored. Missing: the write changes nothing; then whoever carries it out checks the writer's claim itself. */
  item?: WriteItem;
  /** The answer when `item` was stored with this result (`object`: as stored); without an item the object as it is. */
  answer: (result: { version: number; stamp: string; object?: string }) => Answer;
  /** What the caller should know though the write is done. */
  warnings: string[];
  /** Whether preparing anew may lead to success where the database refused `item` with this outcome. */
  mayRetry: (outcome: WriteResult['outcome']) => boolean;
}

/** What preparing needs: secrets are sealed, stored objects are read. */
export interface Workshop {
  secrets: Secrets;
  /** Throws nothing for an object that is not there. */
  read: (type: string, key: Key) => Promise<StoredObject | undefined>;
  admit: (applicant: Applicant) => ReturnType<typeof admit>;
}

const maxObjectBytes = 1_500_000;

/** The JSON to store of an object, whose secret values count as well. Throws TooLarge. */
export function sized(object: JsonObject, sealed: Sealed | null = null): string {
  const json = stringifyJson(Object.hasOwn(object, 'resourceVersion') ? without(object, ['resourceVersion']) : object);
  const secret = sealedBytes(sealed);
  // A character takes three bytes at most: those of a small object need not be counted.
  if (json.length * 3 + secret <= maxObjectBytes) return json;
  const bytes = Buffer.byteLength(json) + secret;
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
  { claim, traceparent, answer, collector }: Writer,
): Pick<WriteItem, 'actor' | 'own' | 'claim' | 'traceparent' | 'answer'> {
  if (type.writer !== undefined && claim?.controller !== type.writer && collector !== true) {
    throw new ApiError('Forbidden', `${type.type} are written by the controller ${type.writer} alone, with its claim.`);
  }
  const own =
    claim !== undefined && claim.type === type.type && claim.namespace === key.namespace && claim.name === key.name;
  return {
    actor: claim ? `controller:${claim.controller}` : 'client',
    own,
    ...(claim ? { claim } : {}),
    ...(traceparent ? { traceparent } : {}),
    ...(answer ? { answer } : {}),
  };
}
