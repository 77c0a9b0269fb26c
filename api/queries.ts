/** Which objects to list or watch. */
export interface ListQuery {
  /** Only objects of this namespace. Left out: of all namespaces. */
  namespace?: string;
  /**
   * Only objects whose labels match: `key=value` (or `==`), `key!=value`, `key in (a,b)`, `key notin (a,b)`, `key`, `!key`; a
   * comma means "and". `!=` and `notin` also match objects without the label.
   */
  labelSelector?: string;
  /**
   * Only objects with these field values: `name`, `namespace`, `uid`, a field of the type or a path in one, or a path in the
   * status, with `=`, `!=`, `in (a,b)`, `notin (a,b)` or `~` (contains); a comma means "and", `\,` is a comma in a value.
   * Secrets cannot be selected by.
   */
  fieldSelector?: string;
  /**
   * At most this many objects in one answer; `continue` in the answer leads to the rest.
   * @isInt
   * @minimum 1 must be at least 1
   * @maximum 10000 must be at most 10000
   */
  limit?: number;
  /** The token of the previous page; with the same selectors as before. */
  continue?: string;
  /**
   * A list: not older than this version. A watch: the changes after this version, without the objects of now.
   * @pattern ^[0-9]+$ must be a version as the server gave it: decimal digits
   */
  resourceVersion?: string;
  /** `true` answers with a stream of changes in place of a list. */
  watch?: boolean;
}

/** Which state of which object to delete. */
export interface DeleteQuery {
  /**
   * Only if this is still the object's version, else 409.
   * @pattern ^[0-9]+$ must be a version as the server gave it: decimal digits
   */
  resourceVersion?: string;
  /** Only if this is the object's uid, else 409. */
  uid?: string;
}

/** No query parameter. */
// eslint-disable-next-line @typescript-eslint/no-empty-object-type -- tsoa reads interfaces only
export interface NoQuery {}
