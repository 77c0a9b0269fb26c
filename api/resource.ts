/** What clients set around a type's own fields, and get back as they set it. */
export interface Envelope {
  /**
   * Key and value pairs to select objects by (`labelSelector`). A key is `name` or `prefix/name`: the name at most 63
   * letters, digits, `-`, `_` and `.`, the prefix a DNS name of at most 253 characters. A value has at most 63 of the same
   * characters and may be empty. At most 64 labels.
   */
  labels?: { [key: string]: string };
  /** Notes for people and tools; they cannot be selected by. Keys as in labels; keys and values together at most 256 KiB. */
  annotations?: { [key: string]: string };
  /**
   * Whoever must clean up before this object goes puts a name here, for example `example.com/volumes`. A DELETE then only sets
   * `deletedAt`; the object goes when the last name has been taken out. None can be added once `deletedAt` is set. At most 64.
   */
  finalizers?: string[];
  /** The objects that this one belongs to, at most 1,000. When the last of them is gone, this object is deleted as well. */
  owners?: Owner[];
}

/** What every type has beside its own fields, as clients receive it. */
export interface Resource extends Envelope {
  /** The type's plural name, as in the URL. */
  type: string;
  /** Unique within the type, and within the namespace if the type has one. Never changes. */
  name: string;
  /** The namespace that the object lies in. Never changes. */
  namespace?: string;
  /**
   * Set by the server at creation: tells this object from earlier and later ones of the same name.
   * @format uuid
   */
  uid: string;
  /**
   * Set by the server at each change: a decimal number that grows with every change of any object of the type. Sent back with
   * a write, the write is refused (409) if the object has changed since.
   * @pattern ^[0-9]+$
   */
  resourceVersion: string;
  /**
   * Set by the server: 1 at creation, one more when the type's own fields change or deletion begins. Changes of labels,
   * annotations, finalizers, owners and status do not count.
   * @isInt
   */
  generation: number;
  /**
   * Set by the server: when the object was created.
   * @format date-time
   */
  createdAt: string;
  /**
   * Set by the server: when the object was last changed.
   * @format date-time
   */
  updatedAt: string;
  /**
   * Set by the server: when deletion was asked for. The object is still there because of its finalizers.
   * @format date-time
   */
  deletedAt?: string;
}

/**
 * What every type has beside its own fields, as clients send it. What the server sets may be sent back as it was received and
 * is ignored, but for `resourceVersion` and `uid`: these say which state of which object the write is meant for. The generator
 * adds `type` and, for namespaced types, `namespace`.
 */
export interface ResourceInput extends Envelope {
  /** Unique within the type, and within the namespace if the type has one: a DNS-1123 subdomain. Never changes. */
  name?: ResourceName;
  /** Of a new object without `name`: the server makes one of this and five letters and digits that are not taken. */
  generateName?: NamePrefix;
  /**
   * The version that this write is based on: if the object has changed since, the write is refused (409). Left out, the write
   * goes to whatever is stored.
   * @pattern ^[0-9]+$ must be a version as the server gave it: decimal digits
   */
  resourceVersion?: string;
  /** The object that this write is meant for: if another one has taken its name, the write is refused (409). */
  uid?: string;
  /** Set by the server; ignored. */
  generation?: unknown;
  /** Set by the server; ignored. */
  createdAt?: unknown;
  /** Set by the server; ignored. */
  updatedAt?: unknown;
  /** Set by the server; ignored. */
  deletedAt?: unknown;
  /** Written through the status subresource only; ignored here. */
  status?: unknown;
}

/**
 * A DNS-1123 subdomain.
 * @maxLength 253 must have at most 253 characters
 * @pattern ^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$ must be a DNS-1123 subdomain: lower-case letters, digits, "-" and ".", each part beginning and ending with a letter or digit
 */
export type ResourceName = string;

/**
 * The beginning of a DNS-1123 subdomain.
 * @maxLength 248 must have at most 248 characters
 * @pattern ^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*(-*|\.)$ must begin as a DNS-1123 subdomain does: lower-case letters, digits, "-" and ".", for example "web-"
 */
export type NamePrefix = string;

/**
 * A DNS-1123 label.
 * @maxLength 63 must have at most 63 characters
 * @pattern ^[a-z0-9]([-a-z0-9]*[a-z0-9])?$ must be a DNS-1123 label: lower-case letters, digits and "-", beginning and ending with a letter or digit
 */
export type NamespaceName = string;

/**
 * A moment, in RFC 3339 with time zone.
 * @format date-time
 * @pattern ^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,9})?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$ must be a time in RFC 3339, for example 2027-01-31T12:00:00Z
 */
export type Timestamp = string;

/** An object that another one belongs to. It is matched by its uid; type and name are there to find it. */
export interface Owner {
  /** The owner's type, in plural, for example `clusters`. */
  type: string;
  /** The owner's namespace, which must be that of the object; left out for owners of cluster-wide types. */
  namespace?: NamespaceName;
  name: ResourceName;
  uid: string;
  /** Whether this owner manages the object. At most one owner may. */
  controller?: boolean;
  /** Whether the owner is to stay until this object is gone. */
  blockOwnerDeletion?: boolean;
}

/** What a part of an object's state is, as a controller last saw it. */
export interface Condition {
  /**
   * What the condition is about, for example `Reachable`. One condition per type.
   * @minLength 1 must not be empty
   */
  type: string;
  /** `Unknown` means that it could not be found out. */
  status: 'True' | 'False' | 'Unknown';
  /**
   * The cause in one word for programs.
   * @pattern ^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$ must be one word in CamelCase
   */
  reason: string;
  /** The cause in words for people. */
  message: string;
  /** When `status` last changed. */
  lastTransitionTime: Timestamp;
  /**
   * The object's `generation` that this was found out for.
   * @isInt
   */
  observedGeneration?: number;
}

/** Why nothing is done for the time being, and how long. */
export interface Pause {
  /**
   * For whoever wonders why nothing happens.
   * @minLength 1 must say why
   * @maxLength 1024 must have at most 1024 characters
   */
  reason: string;
  /** Work goes on by itself at this time. Left out: when the pause is taken away. */
  until?: Timestamp;
}

/** One page of a list. */
export interface Page<T> {
  items: T[];
  /** The version of the type that all pages of this list show; a watch from here misses nothing. */
  resourceVersion: string;
  /** Sent as `continue` with the same selectors and order, it gives the next page. Missing on the last page. */
  continue?: string;
  /**
   * How many objects follow after this page. There when it is cheap to know: a list with `limit` and without selectors that shows
   * at most 10,000 objects, or a selection by labels or indexed fields that few objects match.
   * @isInt
   */
  remainingItemCount?: number;
}

/** The secret fields of an object, as stored. */
export interface Revealed {
  /** The version of the object that the values belong to. */
  resourceVersion: string;
  /** Field name to its value: a text, or a map of texts. Fields that are not set are missing. */
  fields: { [field: string]: unknown };
}
