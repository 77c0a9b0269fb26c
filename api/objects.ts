import { isHeld, type Database, type Key, type ObjectStore, type StoredObject, type WriteResult } from '../db/index.js';
import { admit } from './admission.js';
import { prepareCreation } from './creation.js';
import { prepareDeletion } from './deletion.js';
import { ApiError, notFound } from './errors.js';
import { sealedOf } from './fields.js';
import type { JsonObject } from './json.js';
import type { Operation, Outcome, Prepared, Workshop } from './operation.js';
import { describe, lostClaim, refused } from './refusals.js';
import type { Secrets } from './secrets.js';
import type { TypeDefinition } from './type-definition.js';
import { prepareChange } from './update.js';

const attempts = 8;
/** Above this age of its oldest waiting write, in ms, a type takes no more. */
const maxQueueAge = 1_000;

/**
 * The write pipeline of all types: precondition, validation, defaults, secrets, rules, comparison, one compare-and-set.
 * Every update is computed from a version that was read and stored only if that version is still the one; it is tried
 * again, invisibly, unless the client named a version.
 */
export class Objects {
  readonly #database: Database;
  readonly #store: ObjectStore;
  readonly #secrets: Secrets;

  constructor(options: { database: Database; store: ObjectStore; secrets: Secrets }) {
    this.#database = options.database;
    this.#store = options.store;
    this.#secrets = options.secrets;
  }

  /** The stored object, if there is one. */
  find(type: TypeDefinition, key: Key): Promise<StoredObject | undefined> {
    return this.#store.read(type.type, key);
  }

  /** The stored object. Throws NotFound. */
  async read(type: TypeDefinition, key: Key): Promise<StoredObject> {
    const stored = await this.find(type, key);
    if (!stored) throw notFound(describe(type, key));
    return stored;
  }

  /** The secret fields of an object in clear. */
  reveal(type: TypeDefinition, stored: StoredObject): JsonObject {
    return this.#secrets.reveal(type, stored.uid, sealedOf(stored));
  }

  /**
   * Carries an operation out. Throws whatever error of the catalogue refuses it.
   *
   * @param ready what `prepare` made of it a moment ago; then its write is queued before this returns, so that those of
   * several calls keep their order
   * @param patient wait, however many writes of the type wait already
   */
  async carryOut(operation: Operation, ready?: Prepared, patient = false): Promise<Outcome> {
    for (let attempt = 1; ; attempt++) {
      const prepared = attempt === 1 && ready ? ready : await this.prepare(operation);
      const { type, key, item, warnings } = prepared;
      if (!item) {
        const { claim } = operation.writer;
        if (claim && !(await isHeld(this.#database, claim))) throw lostClaim();
        return { ...prepared.answer({ version: 0, stamp: '' }), warnings, stored: false };
      }
      const result = operation.dryRun
        ? await this.#store.rehearse(type.type, item)
        : await this.#write(type, item, patient);
      if (result.outcome === 'ok') {
        // No version that a later write will have: a client that keeps it would take that write's state for this one.
        const shown = operation.dryRun ? { version: item.expect ?? 0, stamp: result.stamp } : result;
        return { ...prepared.answer(shown), warnings, stored: true };
      }
      if (attempt >= attempts || !prepared.mayRetry(result.outcome)) throw refused(type, key, result);
    }
  }

  /**
   * Makes an operation ready to be stored, alone or with others at once: everything is done but the write. Nothing is kept in
   * between: whoever stores `item` does it at once, and prepares anew if the outcome says so and `mayRetry` allows.
   *
   * @param read where stored objects are looked up, by the rules of the type as well; default: the database. Whoever stores
   * several operations at once shows each what those before it will have made.
   */
  prepare(operation: Operation, read?: Workshop['read']): Promise<Prepared> {
    const workshop: Workshop = {
      secrets: this.#secrets,
      read: read ?? ((type, key) => this.#store.read(type, key)),
      admit: applicant => admit(this.#database, applicant, read),
    };
    switch (operation.verb) {
      case 'create':
        return prepareCreation(operation, workshop);
      case 'delete':
        return prepareDeletion(operation, workshop);
      default:
        return prepareChange(operation, workshop);
    }
  }

  #write(type: TypeDefinition, item: NonNullable<Prepared['item']>, patient: boolean): Promise<WriteResult> {
    if (!patient && this.#store.writeQueueAge(type.type) > maxQueueAge) {
      throw new ApiError(
        'TooManyRequests',
        `Writes of ${type.type} wait longer than ${maxQueueAge / 1000} s; try again later.`,
        { headers: { 'Retry-After': '1' } },
      );
    }
    return this.#store.write(type.type, item);
  }
}
