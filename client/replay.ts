import { compareVersions, type ObjectReference, type Resource } from './resource.js';

/** A change of an object. Applied in order, the changes give the state of the type at `resourceVersion`. */
export type WatchEvent<T> =
  | { type: 'ADDED' | 'MODIFIED'; resourceVersion: string; previousResourceVersion?: string; object: T }
  | {
      type: 'DELETED';
      resourceVersion: string;
      previousResourceVersion?: string;
      /** Its last state. Only key, uid and version when it vanished while the watch could not see it. */
      object: Partial<T> & ObjectReference;
    };

/** All changes up to this version have been told. `initialEventsEnd`: the objects of now are complete. */
export interface Bookmark {
  type: 'BOOKMARK';
  /** The version to go on from (`since`). */
  resourceVersion: string;
  initialEventsEnd?: boolean;
}

/**
 * What a consumer of changes has been told, and so what it must still be told. Changes may come twice or again from the
 * beginning (a new list after the server forgot the version); the consumer gets each once, and after a new list only what
 * differs from what it knows. Keeps key, uid and version of each object, not the objects.
 */
export class Replay<T extends Resource> {
  /** Everything up to this version was told; undefined: a list has to come first. */
  seen: string | undefined;
  readonly #known = new Map<string, ObjectReference>();
  readonly #tracks: boolean;
  #listed: Set<string> | undefined;

  /** @param since the version that the consumer already has; what it knows of that time is unknown here */
  constructor(since?: string) {
    this.seen = since;
    this.#tracks = since === undefined;
  }

  /** Whether a new list can be turned into changes; not so for a consumer that came with a state of its own. */
  get canList(): boolean {
    return this.#tracks;
  }

  /** Says that the objects of now follow as ADDED, up to a bookmark with `initialEventsEnd`. */
  beginList(): void {
    this.seen = undefined;
    this.#listed = new Set();
  }

  /** Takes the next change or bookmark and returns what the consumer must be told because of it. */
  accept(event: WatchEvent<T> | Bookmark): WatchEvent<T>[] {
    if (event.type === 'BOOKMARK') return this.#acceptBookmark(event);
    if (this.#listed && event.type !== 'DELETED') return this.#acceptListed(event.object, this.#listed);
    if (this.seen !== undefined && compareVersions(event.resourceVersion, this.seen) <= 0) return [];
    this.seen = event.resourceVersion;
    if (event.type === 'DELETED') this.#known.delete(keyOf(event.object));
    else this.#learn(event.object);
    return [event];
  }

  #acceptListed(object: T, listed: Set<string>): WatchEvent<T>[] {
    const key = keyOf(object);
    listed.add(key);
    const known = this.#known.get(key);
    this.#learn(object);
    const { resourceVersion } = object;
    if (known === undefined) return [{ type: 'ADDED', resourceVersion, object }];
    if (known.uid !== object.uid)
      return [vanished<T>(known, resourceVersion), { type: 'ADDED', resourceVersion, object }];
    return known.resourceVersion === resourceVersion ? [] : [{ type: 'MODIFIED', resourceVersion, object }];
  }

  #acceptBookmark({ resourceVersion, initialEventsEnd }: Bookmark): WatchEvent<T>[] {
    const listed = this.#listed;
    if (!listed) {
      if (this.seen === undefined || compareVersions(resourceVersion, this.seen) > 0) this.seen = resourceVersion;
      return [];
    }
    if (initialEventsEnd !== true) return [];
    this.#listed = undefined;
    this.seen = resourceVersion;
    const gone = [...this.#known].filter(([key]) => !listed.has(key));
    for (const [key] of gone) this.#known.delete(key);
    return gone.map(([, known]) => vanished<T>(known, resourceVersion));
  }

  #learn({ type, namespace, name, uid, resourceVersion }: T): void {
    if (!this.#tracks) return;
    const reference = { type, ...(namespace !== undefined && { namespace }), name, uid, resourceVersion };
    this.#known.set(keyOf(reference), reference);
  }
}

function vanished<T>(known: ObjectReference, resourceVersion: string): WatchEvent<T> {
  // Nothing but the reference is known of it; every other field of T is optional in this event.
  const object = known as Partial<T> & ObjectReference;
  return { type: 'DELETED', resourceVersion, object };
}

function keyOf({ namespace = '', name }: { namespace?: string; name: string }): string {
  return `${namespace}/${name}`;
}
