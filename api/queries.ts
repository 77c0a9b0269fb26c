/** Which objects to list or watch. */
export interface ListQuery {
  /** Only objects of this namespace. Left out: of all namespaces. */
  namespace?: string;
  /**
   * Only objects whose labels match: `key=value` (or `==`), `key!=value`, `key in (a,b)`, `key notin (a,b)`, `key`, `!key`; a
   * comma means "and". `!=` and `notin` also match objects without the label. At most 64 conditions with 512 values together.
   * Fast at any number of objects: labels that few have, by `=` or `in`, and labels that many have. A key that few objects have is
   * looked for in all of them.
   * @maxLength 8192 must have at most 8192 characters
   */
  labelSelector?: string;
  /**
   * Only objects with these field values: `name`, `namespace`, `uid`, a field of the type or a path in one, or a path in the
   * status, with `=`, `!=`, `in (a,b)`, `notin (a,b)` or `~` (contains); a comma means "and", `\,` is a comma in a value. Values are
   * compared as text. Secrets cannot be selected by (422). At most 64 conditions with 512 values together. Fields that the type
   * indexes are found without looking at all objects.
   * @maxLength 8192 must have at most 8192 characters
   */
  fieldSelector?: string;
  /**
   * The order: an indexed field, with ` desc` behind it for the other way round; objects of one value are ordered by namespace and
   * name. Objects without the field come first; texts are ordered by the bytes of their first 200 characters. Left out: by
   * namespace and name.
   * @maxLength 256 must have at most 256 characters
   */
  orderBy?: string;
  /**
   * Only these parts of each object: paths such as `labels,status.conditions`, at most 64. `name`, `namespace` and
   * `resourceVersion` are always there; what is below a list is kept whole.
   * @maxLength 4096 must have at most 4096 characters
   */
  fields?: string;
  /**
   * At most this many objects in one answer; `continue` in the answer leads to the rest.
   * @isInt
   * @minimum 1 must be at least 1
   * @maximum 10000 must be at most 10000
   */
  limit?: number;
  /**
   * The token of the previous page; with the same namespace, selectors and `orderBy` as before. All pages show the state of the
   * first; when the event log no longer has it, the answer is 410, with a token in `error.continue` that goes on in the state of
   * now.
   */
  continue?: string;
  /**
   * A list: not older than this version. A watch: the changes after this version, without the objects of now.
   * @pattern ^[0-9]+$ must be a version as the server gave it: decimal digits
   */
  resourceVersion?: string;
  /** `true` answers with a stream of changes in place of a list. */
  watch?: boolean;
}

/** How a write is carried out. */
export interface WriteQuery {
  /**
   * `All`: everything is checked and answered as it would be, but nothing is stored and nobody hears of it. The answer has the
   * `resourceVersion` that is stored now, `0` for a new object.
   */
  dryRun?: 'All';
}

/** Which state of which object to delete. */
export interface DeleteQuery extends WriteQuery {
  /**
   * Only if this is still the object's version, else 409.
   * @pattern ^[0-9]+$ must be a version as the server gave it: decimal digits
   */
  resourceVersion?: string;
  /** Only if this is the object's uid, else 409. */
  uid?: string;
  /**
   * What becomes of the objects that name this one as their owner. `Background`: they are deleted after it. `Foreground`: it
   * stays, with the finalizer `foreground`, until those with `blockOwnerDeletion` are gone. `Orphan`: they stay and lose this
   * owner; it stays, with the finalizer `orphan`, until they have. Left out: as such a finalizer on the object says, else
   * `Background`. An object that another owner needs stays in any case, without this owner.
   */
  propagationPolicy?: 'Background' | 'Foreground' | 'Orphan';
}

/** Which objects of a type to delete: those that match all that is given, of which something must be. */
export interface DeleteCollectionQuery extends WriteQuery {
  /** Only objects of this namespace. Left out: of all namespaces. */
  namespace?: string;
  /** Only objects whose labels match, as for lists. */
  labelSelector?: string;
  /** Only objects with these field values, as for lists. */
  fieldSelector?: string;
  /** Only objects that name an owner with this uid. */
  ownerUid?: string;
  /** `true` deletes all objects, of the namespace if one is given; then there is no selector. */
  all?: boolean;
  /** What becomes of the objects that they own, as for a single DELETE. */
  propagationPolicy?: 'Background' | 'Foreground' | 'Orphan';
}

/** How many objects were deleted. */
export interface DeletionCount {
  /**
   * Objects that are gone, or marked with `deletedAt` because of their finalizers. Those marked before do not count, nor do
   * those that came while the request was under way.
   * @isInt
   */
  count: number;
}

/** No query parameter. */
// eslint-disable-next-line @typescript-eslint/no-empty-object-type -- tsoa reads interfaces only
export interface NoQuery {}
