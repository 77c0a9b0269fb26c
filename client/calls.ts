import type { Resource } from './resource.js';

/** For one call. */
export interface CallOptions {
  /** Token of a held claim: the write is refused (409 Fenced) once the claim is lost. */
  claim?: string;
  /** Ends the call; it rejects with the signal's reason. */
  signal?: AbortSignal;
  /** A write is checked and answered as it would be, with the version that is stored now (0: none), but nothing is stored. */
  dryRun?: boolean;
  /**
   * Names a POST or PATCH: sent again within 24 hours under the same key, by whichever process, it gets the first answer and is
   * not done twice. Default for creations, notices and JSON patches: a new one for each call, which its repetitions share.
   */
  idempotencyKey?: string;
  /** The trace that a write belongs to (W3C trace context): handed on to its event and to the runs that follow from it. */
  traceparent?: string;
}

/** Which objects to list. */
export interface ListOptions {
  /** Only objects of this namespace. Default: of all. */
  namespace?: string;
  /** `env=prod,tier in (web,db),!legacy`. At most 64 conditions with 512 values together. */
  labelSelector?: string;
  /** `name=cluster1,status.serverVersion~v1.34`; `\,` is a comma in a value. Secrets cannot be selected by. */
  fieldSelector?: string;
  /** An indexed field, with ` desc` behind it for the other way round. Default: by namespace and name. */
  orderBy?: string;
  /** Most objects in one answer: 1 to 10,000. Default: all there are. */
  limit?: number;
  /** `continue` of the page before. */
  continue?: string;
  /** Not older than this version. */
  resourceVersion?: string;
}

/** Asks for parts of objects in place of whole ones. */
export interface FieldsOption {
  /** Paths such as `labels,status.conditions`. `name`, `namespace` and `resourceVersion` always come. */
  fields: string;
}

/** An object of which only parts were asked for. */
export type Part<T> = Pick<T, keyof T & ('name' | 'namespace' | 'resourceVersion')> & DeepPartial<T>;

type DeepPartial<T> = T extends unknown[] ? T : T extends object ? { [K in keyof T]?: DeepPartial<T[K]> } : T;

/**
 * One page of a list; all its pages show the same moment. `Collection.all` goes through them.
 *
 * @example
 * let page = await client.clusters.list({ limit: 100 });
 * while (page.continue !== undefined) page = await client.clusters.list({ limit: 100, continue: page.continue });
 */
export interface Page<T> {
  items: T[];
  /** The version that all pages of this list show; watch from here to miss nothing. */
  resourceVersion: string;
  /** Gets the next page; missing on the last. */
  continue?: string;
  /** How many objects follow; missing where counting them would be costly. */
  remainingItemCount?: number;
}

/**
 * What becomes of the objects that a deleted one owns: they are deleted after it (`Background`), or before it as far as they
 * say `blockOwnerDeletion` (`Foreground`), or stay without it (`Orphan`).
 */
export type PropagationPolicy = 'Background' | 'Foreground' | 'Orphan';

/** Which state of which object a write is meant for; otherwise it throws `Conflict`. */
export interface Preconditions {
  /** Only this very object, not one that has taken its name. */
  uid?: string;
  /** Only in this version. */
  resourceVersion?: string;
}

/** Which state of which object to delete, and how. */
export interface RemoveOptions extends Preconditions {
  /** Default: what its finalizers say, else `Background`. */
  propagationPolicy?: PropagationPolicy;
}

/** Which objects to delete: those that match all that is given. */
export interface RemoveAllOptions {
  /** Only objects of this namespace. Default: of all. */
  namespace?: string;
  /** `env=prod,tier in (web,db),!legacy`. */
  labelSelector?: string;
  /** `name=cluster1`. */
  fieldSelector?: string;
  /** Objects that name an owner with this uid. */
  ownerUid?: string;
  /** In place of selectors: all there are. */
  all?: boolean;
  /** What becomes of the objects that they own. Default: what their finalizers say, else `Background`. */
  propagationPolicy?: PropagationPolicy;
}

/** What clients set around the own fields of an object. */
export type Metadata = Pick<Resource, 'annotations' | 'finalizers' | 'labels' | 'owners'>;

/** One operation of a JSON patch (RFC 6902); `path` and `from` are JSON pointers, such as `/labels/env` or `/finalizers/-`. */
export type JsonPatchOperation =
  | { op: 'add' | 'replace' | 'test'; path: string; value: unknown }
  | { op: 'copy' | 'move'; from: string; path: string }
  | { op: 'remove'; path: string };

/**
 * A merge patch (RFC 7386): what is named is replaced, `null` removes, arrays are replaced whole. With `resourceVersion` in
 * it, it is refused (409 Conflict) if the object has changed since.
 */
export type MergePatch<T> = {
  [K in keyof T]?:
    (NonNullable<T[K]> extends unknown[] | string | number | boolean ? T[K] : MergePatch<NonNullable<T[K]>>) | null;
};

/** @internal For one call, with headers that only this client's own methods know. */
export interface ServiceOptions extends CallOptions {
  headers?: Record<string, string>;
}
