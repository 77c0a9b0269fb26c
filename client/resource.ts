/** What every object has, whatever its type. */
export interface Resource {
  /** The plural of its type, as in the URL: `clusters`. */
  type: string;
  name: string;
  /** Absent for cluster-wide types. */
  namespace?: string;
  labels?: Record<string, string>;
  annotations?: Record<string, string>;
  finalizers?: string[];
  owners?: Owner[];
  uid: string;
  /** A decimal that grows with every change of any object of the type; compare with `compareVersions`. */
  resourceVersion: string;
  generation: number;
  /** RFC 3339. */
  createdAt: string;
  updatedAt: string;
  /** Set once deletion was asked for; the object goes when its last finalizer is removed. */
  deletedAt?: string;
}

/** The object that another one belongs to, and with which it is deleted. */
export interface Owner {
  type: string;
  namespace?: string;
  name: string;
  uid: string;
  controller?: boolean;
  blockOwnerDeletion?: boolean;
}

/** Where an object is: `namespace` is left out for cluster-wide types. */
export interface Key {
  namespace?: string;
  name: string;
}

/** An object of which no more is known than which one it is. */
export interface ObjectReference extends Key {
  type: string;
  uid: string;
  resourceVersion: string;
}

/**
 * Compares two resource versions of one type: negative when `a` is older, 0 when equal. They may exceed 2^53, so they are
 * compared as decimals, not as numbers.
 *
 * @example
 * const newest = objects.map(object => object.resourceVersion).sort(compareVersions).at(-1);
 */
export function compareVersions(a: string, b: string): number {
  if (a.length !== b.length) return a.length - b.length;
  return a < b ? -1 : a > b ? 1 : 0;
}
