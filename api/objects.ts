import { randomUUID } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import type {
  ChangedPart,
  ClaimReference,
  Key,
  ObjectStore,
  StoredObject,
  WriteItem,
  WriteResult,
} from '../db/index.js';
import { ApiError, notFound, type ErrorDetail } from './errors.js';
import { checkInput } from './input.js';
import { isObject, parseJson, stringifyJson, type JsonObject } from './json.js';
import { checkEnvelope } from './labels.js';
import { mergePatch } from './merge-patch.js';
import { mask, type Sealed, type Secrets } from './secrets.js';
import type { TypeDefinition } from './type-definition.js';
import { validate, validateStatus, type FieldError } from './validation.js';

/** Who writes: with a claim the controller, fenced by it; without one a client. */
export interface Writer {
  claim?: ClaimReference;
  traceparent?: string;
}

/** What a write demands of the stored object; a stale version is a Conflict. */
export interface Preconditions {
  resourceVersion?: string;
  uid?: string;
}

/** An object as answered: its JSON text and version. */
export interface Answer {
  json: string;
  version: string;
}

const maxObjectBytes = 1_500_000;
const attempts = 8;
/** Above this age of its oldest waiting write, in ms, a type takes no more. */
const maxQueueAge = 1_000;

const metadataFields = ['labels', 'annotations', 'finalizers', 'owners'];
const serverFields = [
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

/**
 * The write pipeline of all types: precondition, validation, defaults, secrets, comparison, one compare-and-set.
 * Every update is computed from a version that was read and stored only if that version is still the one; it is tried
 * again, invisibly, unless the client named a version.
 */
export class Objects {
  readonly #store: ObjectStore;
  readonly #secrets: Secrets;

  constructor(options: { store: ObjectStore; secrets: Secrets }) {
    this.#store = options.store;
    this.#secrets = options.secrets;
  }

  /** The stored object. Throws NotFound. */
  async read(type: TypeDefinition, key: Key): Promise<StoredObject> {
    const stored = await this.#store.read(type.type, key);
    if (!stored) throw notFound(describe(type, key));
    return stored;
  }

  /** Stores a new object. `input` has been validated by its type. Throws AlreadyExists, Invalid, TooLarge. */
  async create(type: TypeDefinition, input: JsonObject, writer: Writer): Promise<Answer & { key: Key }> {
    const name = typeof input['name'] === 'string' ? input['name'] : '';
    const given = typeof input['namespace'] === 'string' ? input['namespace'] : undefined;
    if (!type.namespaced && given !== undefined && given !== '') {
      throw invalid([{ path: 'namespace', message: `must be left out: ${type.type} are cluster-wide` }]);
    }
    const key = { namespace: type.namespaced ? (given ?? 'default') : '', name };
    this.#refuseForeignType(type, input);
    const uid = randomUUID();
    const own = ownFields(type, input);
    const { masked, sealed, violations } = this.#secrets.seal(type, uid, own, null);
    if (violations.length > 0) throw invalid(violations);
    const labels = labelsOf(input);
    const object: JsonObject = {
      type: type.type,
      name,
      ...(type.namespaced ? { namespace: key.namespace } : {}),
      uid,
      generation: 1,
      ...pick(input, metadataFields),
      ...masked,
    };
    const json = sized(object);
    const result = await this.#write(type, {
      op: 'create',
      ...key,
      uid,
      object: json,
      labels,
      sealed,
      changed: ['spec'],
      ...authorship(type, key, writer),
    });
    if (result.outcome === 'exists') {
      throw new ApiError(
        'AlreadyExists',
        `${describe(type, key)} exists already; PUT or PATCH it, or choose another name.`,
      );
    }
    if (result.outcome !== 'ok') throw refused(type, key, result);
    return { json: result.object ?? json, version: String(result.version), key };
  }

  /** The input of a create that did not pass the validated route. Throws UnknownField, Invalid. */
  validated(type: TypeDefinition, input: JsonObject): JsonObject {
    this.#refuse(checkInput(type, input));
    return input;
  }

  /** Replaces what clients set of an object; `status` and server-set fields of the body are ignored. */
  async replace(
    type: TypeDefinition,
    key: Key,
    body: JsonObject,
    preconditions: Preconditions,
    writer: Writer,
  ): Promise<Answer> {
    this.#refuseForeignType(type, body);
    this.#refuseForeignKey(key, body);
    return this.#update(type, key, named(preconditions, body), writer, previous => ({
      ...pick(previous, serverFields),
      ...pick(body, metadataFields),
      ...ownFields(type, body),
      ...unknownFields(type, body),
    }));
  }

  /** Applies a merge patch (RFC 7396) to what clients set of an object; the result is validated. */
  async patch(
    type: TypeDefinition,
    key: Key,
    patch: JsonObject,
    preconditions: Preconditions,
    writer: Writer,
  ): Promise<Answer> {
    this.#refuseForeignType(type, patch);
    this.#refuseForeignKey(key, patch);
    return this.#update(type, key, named(preconditions, patch), writer, previous => {
      const result = mergePatch(previous, patch);
      return {
        ...pick(previous, serverFields),
        ...pick(result, metadataFields),
        ...ownFields(type, result),
        ...unknownFields(type, result),
      };
    });
  }

  /** Replaces or patches the status alone; everything else of the body is ignored but `uid` and `resourceVersion`. */
  async updateStatus(
    type: TypeDefinition,
    key: Key,
    body: JsonObject,
    how: 'replace' | 'patch',
    preconditions: Preconditions,
    writer: Writer,
  ): Promise<Answer> {
    return this.#update(type, key, named(preconditions, body), writer, previous => {
      const status =
        how === 'replace' ? body['status'] : mergePatch(pick(previous, ['status']), pick(body, ['status']))['status'];
      return { ...without(previous, 'status'), ...(status === undefined || status === null ? {} : { status }) };
    });
  }

  /** Deletes an object, or marks it as being deleted while it has finalizers. */
  async remove(type: TypeDefinition, key: Key, preconditions: Preconditions, writer: Writer): Promise<Answer> {
    for (let attempt = 1; ; attempt++) {
      const stored = await this.read(type, key);
      const previous = asObject(stored);
      demand(type, key, previous, preconditions);
      const held = finalizers(previous).length > 0;
      if (held && previous['deletedAt'] !== undefined) return { json: stored.object, version: String(stored.version) };
      const generation = generationOf(previous) + 1;
      const before = {
        resourceVersion: previous['resourceVersion'],
        updatedAt: previous['updatedAt'],
        generation: generation - 1,
        deletedAt: null,
      };
      const result = await this.#write(type, {
        op: held ? 'update' : 'delete',
        ...key,
        expect: stored.version,
        ...(held
          ? {
              object: sized(without({ ...previous, generation }, 'updatedAt')),
              labels: labelsOf(previous),
              keepSealed: true,
              deleting: true,
              before: stringifyJson(before),
            }
          : { before: stringifyJson({ resourceVersion: previous['resourceVersion'] }) }),
        changed: ['deletion'],
        ...authorship(type, key, writer),
      });
      if (result.outcome === 'ok') {
        const version = String(result.version);
        return { json: result.object ?? stringifyJson({ ...previous, resourceVersion: version }), version };
      }
      this.#retry(type, key, result, attempt, preconditions);
    }
  }

  /** The secret fields of an object in clear. */
  reveal(type: TypeDefinition, stored: StoredObject): JsonObject {
    return this.#secrets.reveal(type, stored.uid, sealedOf(stored));
  }

  async #update(
    type: TypeDefinition,
    key: Key,
    preconditions: Preconditions,
    writer: Writer,
    compute: (previous: JsonObject) => JsonObject,
  ): Promise<Answer> {
    for (let attempt = 1; ; attempt++) {
      const stored = await this.read(type, key);
      const previous = asObject(stored);
      demand(type, key, previous, preconditions);
      const wanted = compute(previous);
      const { masked, sealed, kept, violations } = this.#secrets.seal(type, stored.uid, wanted, sealedOf(stored));
      const next = Object.fromEntries(
        Object.entries(masked).filter(([, value]) => value !== undefined && value !== null),
      );
      const differing = differences(previous, next);
      if (!kept) for (const { field } of type.secrets) if (field in next || field in previous) differing.add(field);
      if (differing.size === 0 && violations.length === 0)
        return { json: stored.object, version: String(stored.version) };
      this.#check(type, previous, next, wanted, differing, violations);

      const changed = changedParts(type, differing);
      const generation = generationOf(previous) + (changed.includes('spec') ? 1 : 0);
      next['generation'] = generation;
      const gone = next['deletedAt'] !== undefined && finalizers(next).length === 0;
      const before: JsonObject = { resourceVersion: previous['resourceVersion'] };
      if (!gone) before['updatedAt'] = previous['updatedAt'];
      if (generation !== previous['generation']) before['generation'] = previous['generation'];
      for (const field of differing) before[field] = previous[field] ?? null;
      // The store sets updatedAt, but not in the last state of an object that this write removes.
      const json = sized(gone ? next : without(next, 'updatedAt'));
      const result = await this.#write(type, {
        op: gone ? 'delete' : 'update',
        ...key,
        expect: stored.version,
        object: json,
        labels: labelsOf(next),
        ...(kept ? { keepSealed: true } : { sealed }),
        before: stringifyJson(before),
        changed: gone ? [...changed, 'deletion'] : changed,
        ...authorship(type, key, writer),
      });
      if (result.outcome === 'ok') {
        return { json: result.object ?? json, version: String(result.version) };
      }
      this.#retry(type, key, result, attempt, preconditions);
    }
  }

  // Only what a write changes is checked: a type that became stricter locks nobody out of an object stored before.
  #check(
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
      const old = new Set(finalizers(previous));
      const added = finalizers(next).filter(finalizer => !old.has(finalizer));
      if (added.length > 0)
        problems.push({
          path: 'finalizers',
          message: `no finalizer can be added while the object is being deleted (${added.join(', ')})`,
        });
    }
    this.#refuse([...errors, ...problems]);
  }

  #refuse(errors: FieldError[]): void {
    const unknown = errors.filter(error => error.unknown === true);
    if (unknown.length > 0) throw unknownFieldError(unknown);
    if (errors.length > 0) throw invalid(errors.map(({ path, message }) => ({ path, message })));
  }

  async #write(type: TypeDefinition, item: WriteItem): Promise<WriteResult> {
    if (this.#store.writeQueueAge(type.type) > maxQueueAge) {
      throw new ApiError(
        'TooManyRequests',
        `Writes of ${type.type} wait longer than ${maxQueueAge / 1000} s; try again later.`,
        undefined,
        { 'Retry-After': '1' },
      );
    }
    return this.#store.write(type.type, item);
  }

  #retry(type: TypeDefinition, key: Key, result: WriteResult, attempt: number, preconditions: Preconditions): void {
    if (result.outcome === 'conflict' && preconditions.resourceVersion === undefined && attempt < attempts) return;
    throw refused(type, key, result);
  }

  #refuseForeignType(type: TypeDefinition, body: JsonObject): void {
    if (body['type'] !== undefined && body['type'] !== type.type) {
      throw invalid([{ path: 'type', message: `must be "${type.type}", as in the URL, or be left out` }]);
    }
  }

  #refuseForeignKey(key: Key, body: JsonObject): void {
    const wrong = (['name', 'namespace'] as const).filter(
      field => body[field] !== undefined && body[field] !== key[field],
    );
    if (wrong.length > 0)
      throw invalid(
        wrong.map(path => ({
          path,
          message: `is immutable and must be "${key[path]}", as in the URL, or be left out`,
        })),
      );
  }
}

/** `clusters foo/cluster1`, for messages. */
export function describe(type: TypeDefinition, key: Key): string {
  return `${type.type} ${key.namespace === '' ? '' : `${key.namespace}/`}${key.name}`;
}

export function invalid(details: ErrorDetail[]): ApiError {
  const first = details[0];
  return new ApiError(
    'Invalid',
    details.length === 1 && first ? `${first.path}: ${first.message}` : `${details.length} fields are not valid.`,
    details,
  );
}

export function unknownFieldError(fields: FieldError[]): ApiError {
  const details = fields.map(({ path, message }) => ({ path, message }));
  return new ApiError(
    'UnknownField',
    `Unknown field${details.length > 1 ? 's' : ''}: ${details.map(one => one.path).join(', ')}.`,
    details,
  );
}

function refused(type: TypeDefinition, key: Key, result: WriteResult): ApiError {
  switch (result.outcome) {
    case 'fenced':
      return new ApiError(
        'Fenced',
        'The claim of this write is lost: another worker may have the key. Drop the work; it is done elsewhere.',
      );
    case 'missing':
      return notFound(describe(type, key));
    case 'refused':
      return new ApiError(
        'Invalid',
        `${describe(type, key)} holds a value that cannot be stored, such as a number out of range.`,
      );
    default:
      return new ApiError(
        'Conflict',
        `${describe(type, key)} was changed by someone else; read it, apply your change to it and write again.`,
      );
  }
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

function authorship(
  type: TypeDefinition,
  key: Key,
  writer: Writer,
): Pick<WriteItem, 'actor' | 'own' | 'claim' | 'traceparent'> {
  const { claim, traceparent } = writer;
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

function named(preconditions: Preconditions, body: JsonObject): Preconditions {
  const text = (field: 'resourceVersion' | 'uid') => {
    const value = body[field];
    if (value === undefined || value === null) return undefined;
    if (typeof value !== 'string' || (field === 'resourceVersion' && !/^\d{1,19}$/.test(value))) {
      throw invalid([
        {
          path: field,
          message:
            field === 'uid'
              ? 'must be a string'
              : 'must be a version as answered by the server: a decimal number in a string',
        },
      ]);
    }
    return value;
  };
  return {
    resourceVersion: preconditions.resourceVersion ?? text('resourceVersion'),
    uid: preconditions.uid ?? text('uid'),
  };
}

function demand(type: TypeDefinition, key: Key, stored: JsonObject, { resourceVersion, uid }: Preconditions): void {
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

function differences(previous: JsonObject, next: JsonObject): Set<string> {
  const fields = new Set([...Object.keys(previous), ...Object.keys(next)]);
  return new Set([...fields].filter(field => !isDeepStrictEqual(previous[field], next[field])));
}

function changedParts(type: TypeDefinition, differing: Set<string>): ChangedPart[] {
  const parts: ChangedPart[] = [];
  if (
    [...differing].some(
      field => type.fields.includes(field) || !(metadataFields.includes(field) || serverFields.includes(field)),
    )
  )
    parts.push('spec');
  if (metadataFields.some(field => differing.has(field))) parts.push('metadata');
  if (differing.has('status')) parts.push('status');
  return parts;
}

function ownFields(type: TypeDefinition, body: JsonObject): JsonObject {
  const present = pick(body, type.fields);
  for (const [field, value] of Object.entries(type.defaults)) if (present[field] === undefined) present[field] = value;
  return present;
}

// Kept until validation, which names all of them.
function unknownFields(type: TypeDefinition, body: JsonObject): JsonObject {
  const known = new Set([...type.fields, ...metadataFields, ...serverFields]);
  return Object.fromEntries(Object.entries(body).filter(([field]) => !known.has(field)));
}

/** The given fields of an object, without those that are absent or null. */
function pick(object: JsonObject, fields: string[]): JsonObject {
  return Object.fromEntries(
    fields.flatMap(field => (Object.hasOwn(object, field) && object[field] != null ? [[field, object[field]]] : [])),
  );
}

function without(object: JsonObject, field: string): JsonObject {
  return Object.fromEntries(Object.entries(object).filter(([name]) => name !== field));
}

function sized(object: JsonObject): string {
  const json = stringifyJson(without(object, 'resourceVersion'));
  const bytes = Buffer.byteLength(json);
  if (bytes > maxObjectBytes)
    throw new ApiError('TooLarge', `The object has ${bytes} bytes, the limit is ${maxObjectBytes}.`);
  return json;
}

function asObject(stored: StoredObject): JsonObject {
  const object = parseJson(stored.object);
  if (!isObject(object)) throw new Error(`stored object ${stored.namespace}/${stored.name} is not a JSON object`);
  return object;
}

// The column is written by Secrets alone.
function sealedOf(stored: StoredObject): Sealed | null {
  return stored.sealed as Sealed | null;
}

function labelsOf(object: JsonObject): Record<string, string> {
  const labels = object['labels'];
  return isObject(labels) ? Object.fromEntries(Object.entries(labels).map(([key, value]) => [key, String(value)])) : {};
}

function finalizers(object: JsonObject): string[] {
  const list = object['finalizers'];
  return Array.isArray(list) ? list.filter(one => typeof one === 'string') : [];
}

function generationOf(object: JsonObject): number {
  return typeof object['generation'] === 'number' ? object['generation'] : 1;
}
