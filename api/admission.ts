import { Snapshot, type Database, type Key, type StoredObject } from '../db/index.js';
import type { ErrorDetail } from './errors.js';
import { asObject } from './fields.js';
import { copyJson, isObject, type JsonObject } from './json.js';
import type { Resource } from './resource.js';
import { mask } from './secrets.js';
import type { TypeDefinition } from './type-definition.js';

/** An object that is about to be stored: what the server sets when it stores it is not there yet. */
export type Incoming<T extends Resource> = Omit<T, 'createdAt' | 'resourceVersion' | 'updatedAt'>;

/** What a rule says of a write. All of it may be left out: the write goes on as it is. */
export interface Verdict<T extends Resource> {
  /** What is to be stored instead. Of it count the parts that the write is about: own fields and metadata, or the status. */
  object?: Incoming<T>;
  /** Why the write is refused (422), with the path of each field. */
  violations?: ErrorDetail[];
  /** What the caller should know though the write is done; each goes into a header `Warning`. */
  warnings?: string[];
}

/** Something that must hold for objects of a type, beyond what its interface can say. */
export interface Rule<T extends Resource> {
  /** Asked when one of these top-level fields is new or has changed. Only a rule that names `status` is asked for a status. */
  fields: readonly (keyof T & string)[];
  /** The types whose objects it looks at: of a batch, its writes and theirs keep their order. It can look at no others. */
  reads?: readonly string[];
  /**
   * Judges a write before it is stored, on the very version that it will be stored over: it is asked again when another write
   * came in between, so it must not do anything. Secret values are masked, except those that the write itself brings.
   *
   * @param object what is to be stored; the fields that the write changes fit their model
   * @param previous what is stored, secrets masked; undefined for a new object
   */
  admit(
    object: Incoming<T>,
    previous: T | undefined,
    context: AdmissionContext,
  ): Promise<Verdict<T> | undefined> | Verdict<T> | undefined;
}

/** The same for any type, as the pipeline calls it. */
export interface AnyRule {
  fields: readonly string[];
  reads?: readonly string[];
  admit(
    object: Incoming<Resource>,
    previous: Resource | undefined,
    context: AdmissionContext,
  ): Promise<Verdict<Resource> | undefined> | Verdict<Resource> | undefined;
}

/** What a rule may know beside the object. */
export interface AdmissionContext {
  verb: 'create' | 'patch' | 'replace';
  /** The name of the controller whose claim the write carries; undefined for everyone else. */
  controller: string | undefined;
  dryRun: boolean;
  /**
   * Another object, of a type that the rule `reads`, as it is stored, secrets masked. All reads for one write see the same
   * moment; of a batch each write sees what those before it will have made.
   */
  read: (type: string, key: Key) => Promise<Resource | undefined>;
  /** Those of the keys that no object of the type has. */
  missing: (type: string, keys: Key[]) => Promise<Key[]>;
}

/** A write that rules are asked about. */
export interface Applicant {
  type: TypeDefinition;
  /** As it came, secret values in clear. */
  object: JsonObject;
  /** As it is stored. */
  previous: JsonObject | undefined;
  /** The fields that are new or changed; undefined: all. */
  differing: Set<string> | undefined;
  /** The fields that a rule may change. */
  mutable: string[];
  context: Pick<AdmissionContext, 'controller' | 'dryRun' | 'verb'>;
}

/**
 * Asks the rules of a type, each about what those before it made of the object. Returns the object as it came if none changes it.
 *
 * @param read where rules find other objects; default: a snapshot of the database, taken at the first look
 */
export async function admit(
  database: Database,
  { type, object, previous, differing, mutable, context }: Applicant,
  read?: (type: string, key: Key) => Promise<StoredObject | undefined>,
): Promise<{ object: JsonObject; violations: ErrorDetail[]; warnings: string[] }> {
  if (type.rules === undefined) return { object, violations: [], warnings: [] };
  const rules = type.rules.filter(({ fields }) =>
    differing ? fields.some(field => differing.has(field)) : fields.some(field => field !== 'status'),
  );
  if (rules.length === 0) return { object, violations: [], warnings: [] };
  let snapshot: Snapshot | undefined;
  const moment = () => (snapshot ??= new Snapshot(database));
  const contextOf = (rule: AnyRule): AdmissionContext => ({
    ...context,
    read: async (type, key) => {
      insistOnReads(rule, type);
      const stored = await (read ? read(type, key) : moment().read(type, key));
      return stored && asResource(asObject(stored));
    },
    missing: async (type, keys) => {
      insistOnReads(rule, type);
      if (!read) return moment().missing(type, keys);
      const found = await Promise.all(keys.map(key => read(type, key)));
      return keys.filter((_, i) => found[i] === undefined);
    },
  });
  let hide: ReturnType<typeof redaction> | undefined;
  const redact = (text: string) => (hide ??= redaction(type, object))(text);
  const violations: ErrorDetail[] = [];
  const warnings: string[] = [];
  let current = object;
  // Copies: a rule that changes its arguments must not change what is compared and stored.
  const before = previous && asResource(copyJson(previous));
  let shown = asResource(copyJson(current));
  try {
    for (const rule of rules) {
      const verdict = await rule.admit(shown, before, contextOf(rule));
      // One by one: what a rule says of each element of a long list is more than a call takes arguments.
      for (const { path, message } of verdict?.violations ?? []) violations.push({ path, message: redact(message) });
      for (const warning of verdict?.warnings ?? []) warnings.push(redact(warning));
      if (!verdict?.object) continue;
      current = changed(current, verdict.object, mutable);
      shown = asResource(copyJson(current));
    }
  } catch (error) {
    // The log shows both, and a library that a rule calls may quote what it was given.
    if (error instanceof Error) {
      error.message = redact(error.message);
      error.stack = redact(error.stack ?? '');
    }
    throw error;
  } finally {
    await snapshot?.close();
  }
  return { object: current, violations, warnings };
}

/** What a rule looks at without saying so, other operations of its batch would change before it or after it by chance. */
function insistOnReads({ fields, reads = [] }: AnyRule, type: string): void {
  if (!reads.includes(type))
    throw new Error(`A rule about ${fields.join(', ')} looks at ${type}; name them in its "reads".`);
}

function changed(object: JsonObject, wanted: object, mutable: string[]): JsonObject {
  const kept = Object.entries(object).filter(([field]) => !mutable.includes(field));
  const taken = Object.entries(wanted).filter(([field]) => mutable.includes(field));
  return Object.fromEntries([...kept, ...taken]);
}

function asResource(object: JsonObject): Resource {
  if (!isResource(object)) throw new Error('rules were asked about an object without a name');
  return object;
}

/** The rest of its shape is that of the type's model, which the pipeline has checked, as it was when the object was stored. */
function isResource(object: JsonObject): object is JsonObject & Resource {
  return typeof object['name'] === 'string';
}

/** Puts the mask in place of the secret values that an object brings. Shorter ones than 4 characters would garble any text. */
function redaction(type: TypeDefinition, object: JsonObject): (text: string) => string {
  let texts: unknown[] | undefined;
  return text => {
    texts ??= type.secrets
      .flatMap(({ field }) => {
        const value = object[field];
        return isObject(value) ? Object.values(value) : [value];
      })
      .filter(value => typeof value === 'string' && value.length >= 4);
    return texts.reduce<string>((shown, secret) => shown.replaceAll(String(secret), mask), text);
  };
}
