import { dependents, ownerStates, type Database, type Dependent, type Key, type OwnerState } from '../db/index.js';
import { removalPage, unlessGone } from './collection-removal.js';
import { ApiError } from './errors.js';
import { finalizersOf } from './fields.js';
import type { Objects } from './objects.js';
import type { Deletion, Change, Writer } from './operation.js';
import { placeOf, referencesOf, standingOf, type Item, type Reference } from './owner-references.js';
import type { TypeDefinition } from './type-definition.js';

/** An object by its type and key; it may be gone. */
export interface Place {
  type: TypeDefinition;
  key: Key;
}

/** What a collection did. */
export interface Collected {
  /** Objects that were deleted or marked, because no owner of theirs is left. */
  deleted: number;
  /** Objects that stay, without owners that are gone. */
  released: number;
  /** For each place whether it still waits for dependents. */
  waiting: boolean[];
  /** For each place why something of it could not be deleted or released; null if nothing stood in the way. */
  refused: (string | null)[];
}

/** What was done so far, and what stood in the way, by place. */
interface Progress {
  deleted: number;
  released: number;
  refused: Map<string, string>;
}

/** Looks at what others change while it is looked at; after that it is left for the next call. */
const attempts = 5;
/** Levels of owners that are looked at for a cycle, and owners altogether. */
const deepest = 64;
const mostAncestors = 1_000;

/**
 * Brings objects and their dependents to what their owners say, whatever has happened before: the rules are those of
 * Kubernetes' garbage collector. It looks at the present state only, so it may be asked any time, by several at once, and again.
 */
export class Garbage {
  readonly #database: Database;
  readonly #objects: Objects;
  readonly #types: Map<string, TypeDefinition>;

  constructor(options: { database: Database; objects: Objects; types: Map<string, TypeDefinition> }) {
    this.#database = options.database;
    this.#objects = options.objects;
    this.#types = options.types;
  }

  /**
   * Looks after the objects at some places, and after all objects that name one of them as an owner. An object that cannot go,
   * since others refer to it, holds up nothing but its owners.
   */
  async collect(places: Place[], { claim, traceparent }: Writer): Promise<Collected> {
    // Without the request's answer: that is one, and these are many writes.
    const writer = { ...(claim ? { claim } : {}), ...(traceparent ? { traceparent } : {}), collector: true };
    const progress: Progress = { deleted: 0, released: 0, refused: new Map() };
    for (let attempt = 1; ; attempt++) {
      progress.refused.clear();
      const changed = await this.#collect(places, writer, progress);
      if (changed && attempt < attempts) continue;
      const waiting: boolean[] = [];
      for (const { type, key } of places) waiting.push((await this.#finish(type, key, writer)) || changed);
      const { deleted, released } = progress;
      const refused = places.map(({ type, key }) => progress.refused.get(placeOf({ type: type.type, ...key })) ?? null);
      return { deleted, released, waiting: waiting.map((waits, i) => waits || refused[i] !== null), refused };
    }
  }

  /** One look at places and dependents; true: some objects were changed by others meanwhile. */
  async #collect(places: Place[], writer: Writer, progress: Progress): Promise<boolean> {
    const before = await this.#states(places.map(({ type, key }) => ({ type: type.type, ...key })));
    const own = places.flatMap(place => {
      const state = before.get(placeOf({ type: place.type.type, ...place.key }));
      const item = state && { ...state, type: place.type };
      return item && referencesOf(this.#types, item).length > 0 ? [item] : [];
    });
    let changed = await this.#settle(own, writer, progress);
    const wanted = new Set(places.map(({ type, key }) => placeOf({ type: type.type, ...key })));
    const names = [...new Set(places.map(({ key }) => key.name))];
    for await (const page of this.#dependents(names)) {
      const items = page.filter(one =>
        referencesOf(this.#types, one).some(reference => wanted.has(placeOf(reference))),
      );
      if (await this.#settle(items, writer, progress)) changed = true;
    }
    return changed;
  }

  /** Deletes objects that no owner holds, and takes from the others the owners that are gone. */
  async #settle(items: Item[], writer: Writer, progress: Progress): Promise<boolean> {
    if (items.length === 0) return false;
    const references = items.map(item => referencesOf(this.#types, item));
    const states = await this.#states(references.flat());
    const orphaned: { item: Item; owners: unknown[] }[] = [];
    const doomed: { item: Item; foreground: boolean }[] = [];
    for (const [at, item] of items.entries()) {
      const all = references[at] ?? [];
      const standing = all.map(reference => standingOf(reference, states.get(placeOf(reference))));
      const keeps = standing.includes('solid') || standing.includes('leaving');
      if (keeps) {
        const kept = all.filter((_, i) => standing[i] === 'solid');
        if (kept.length < all.length) orphaned.push({ item, owners: kept.map(({ raw }) => raw) });
      } else if (!item.deleting) doomed.push({ item, foreground: standing.includes('waiting') });
    }
    // An owner that waits wants to see the dependents of its dependents gone as well, where there are any.
    const owning = await this.#owning(doomed.filter(({ foreground }) => foreground).map(({ item }) => item));
    const deletions = doomed.map(({ item, foreground }) =>
      this.#carryOut(item, writer, {
        verb: 'delete',
        ...(foreground && owning.has(item.uid) ? { propagation: 'Foreground' } : {}),
      }),
    );
    const releases = orphaned.map(({ item, owners }) =>
      this.#carryOut(item, writer, {
        verb: 'patch',
        subresource: 'metadata',
        body: { owners: owners.length > 0 ? owners : null },
      }),
    );
    const [deleted, released] = await Promise.all([Promise.all(deletions), Promise.all(releases)]);
    progress.deleted += deleted.filter(outcome => outcome === 'stored').length;
    progress.released += released.filter(outcome => outcome === 'stored').length;
    const outcomes = [...deleted, ...released];
    for (const [i, { item }] of [...doomed, ...orphaned].entries()) {
      const outcome = outcomes[i];
      if (!(outcome instanceof ApiError)) continue;
      const concerned = [{ type: item.type.type, ...keyOf(item) }, ...referencesOf(this.#types, item)];
      for (const place of concerned) progress.refused.set(placeOf(place), outcome.message);
    }
    return outcomes.includes('changed');
  }

  /**
   * Writes an object in the version that was looked at: an owner that it has got meanwhile must not be overlooked. Returns the
   * error for what only this object is to blame for.
   */
  async #carryOut(
    { type, uid, version, ...item }: Item,
    writer: Writer,
    operation: Pick<Deletion, 'verb' | 'propagation'> | Pick<Change, 'verb' | 'subresource' | 'body'>,
  ): Promise<'stored' | 'changed' | 'as it was' | ApiError> {
    const key = keyOf(item);
    const preconditions = { uid, resourceVersion: String(version) };
    try {
      const answer = await unlessGone(this.#objects, { type, key, uid }, () =>
        this.#objects.carryOut({ type, key, preconditions, writer, ...operation }),
      );
      return answer?.stored === true ? 'stored' : 'as it was';
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (error.code === 'Conflict') return 'changed';
      if (['Referenced', 'NotUnique', 'Invalid', 'TooLarge'].includes(error.code)) return error;
      throw error;
    }
  }

  /** Takes the collector's finalizer off an object that waits for nothing any more; true: it still waits. */
  async #finish(type: TypeDefinition, key: Key, writer: Writer): Promise<boolean> {
    const [state] = await ownerStates(this.#database, type.type, [key]);
    if (!state?.deleting) return false;
    const finalizers = finalizersOf({ finalizers: state.finalizers });
    const done: string[] = [];
    if (finalizers.includes('orphan') && !(await this.#named(state.uid, () => true))) done.push('orphan');
    if (finalizers.includes('foreground')) {
      let cycle: Set<string> | undefined;
      const blocks = await this.#named(state.uid, async (reference, item) => {
        if (!reference.block) return false;
        cycle ??= await this.#ancestors({ ...state, type });
        return !cycle.has(item.uid);
      });
      if (!blocks) done.push('foreground');
    }
    const waits = finalizers.some(one => (one === 'orphan' || one === 'foreground') && !done.includes(one));
    if (done.length === 0) return waits;
    const left = finalizers.filter(one => !done.includes(one));
    const outcome = await this.#carryOut({ ...state, type }, writer, {
      verb: 'patch',
      subresource: 'metadata',
      body: { finalizers: left },
    });
    return waits || outcome === 'changed' || outcome instanceof ApiError;
  }

  /** Whether an object names the owner with this uid in a way that counts. */
  async #named(
    uid: string,
    counts: (reference: Reference, item: Dependent) => boolean | Promise<boolean>,
  ): Promise<boolean> {
    for await (const page of this.#dependents([uid]))
      for (const item of page)
        for (const reference of referencesOf(this.#types, item))
          if (reference.uid === uid && (await counts(reference, item))) return true;
    return false;
  }

  /** Those of some objects, by uid, that are named as an owner. */
  async #owning(items: Item[]): Promise<Set<string>> {
    const owning = new Set<string>();
    if (items.length === 0) return owning;
    const uids = items.map(({ uid }) => uid);
    const wanted = new Set(uids);
    for await (const page of this.#dependents(uids))
      for (const item of page)
        for (const { uid } of referencesOf(this.#types, item)) if (wanted.has(uid)) owning.add(uid);
    return owning;
  }

  /**
   * The uids of the owners of an object, of their owners and so on. A dependent among them would wait for the object as the
   * object waits for it: such a cycle is cut where the deletion began.
   */
  async #ancestors(item: Item): Promise<Set<string>> {
    const found = new Set<string>();
    let level: Item[] = [item];
    for (let depth = 0; level.length > 0 && depth < deepest && found.size < mostAncestors; depth++) {
      const references = level.flatMap(one => referencesOf(this.#types, one));
      const states = await this.#states(references);
      level = [];
      for (const reference of references) {
        const state = states.get(placeOf(reference));
        const type = this.#types.get(reference.type);
        if (!type || state?.uid !== reference.uid || found.has(state.uid)) continue;
        found.add(state.uid);
        level.push({ ...state, type });
      }
    }
    return found;
  }

  /** What may have one of these owners, each named by its uid or its name, of all types; page by page. */
  async *#dependents(owners: string[]): AsyncGenerator<Item[], void, undefined> {
    for (const type of this.#types.values()) {
      let after: Key | undefined;
      do {
        const page = await dependents(this.#database, type.type, owners, after, removalPage);
        after = page.at(-1);
        yield page.map(one => ({ ...one, type }));
      } while (after !== undefined);
    }
  }

  async #states(places: { type: string; namespace: string; name: string }[]): Promise<Map<string, OwnerState>> {
    const states = new Map<string, OwnerState>();
    const byType = new Map<string, Map<string, Key>>();
    for (const { type, namespace, name } of places) {
      const keys = byType.get(type) ?? new Map<string, Key>();
      byType.set(type, keys.set(`${namespace}/${name}`, { namespace, name }));
    }
    for (const [type, keys] of byType) {
      for (const state of await ownerStates(this.#database, type, [...keys.values()]))
        states.set(placeOf({ type, ...keyOf(state) }), state);
    }
    return states;
  }
}

function keyOf({ namespace, name }: Key): Key {
  return { namespace, name };
}
