import type { ErrorBody } from './errors.js';

/** One write of a batch. */
export interface BatchOperation {
  /** `upsert` creates the object, or replaces it if it exists. */
  op: 'create' | 'replace' | 'patch' | 'delete' | 'upsert';
  /** The type, as in URLs. */
  type: string;
  /** Left out: that of `object`, else `default`. */
  namespace?: string;
  /** Left out: that of `object`. */
  name?: string;
  /** The object, for create, replace and upsert. */
  object?: { [field: string]: unknown };
  /** For patch: a merge patch, or the list of operations of a JSON patch. */
  patch?: unknown;
  /** `merge` (RFC 7396), which is meant when it is left out, or `json` (RFC 6902). */
  patchType?: 'merge' | 'json';
  /** What replace and patch are about; left out: all that clients set of an object. */
  subresource?: 'status' | 'metadata';
  /** The version that the object must still have, else 409. */
  resourceVersion?: string;
  /** The uid that the object must have, else 409. */
  uid?: string;
  /** What becomes of the objects that name a deleted one as their owner, as for a single DELETE. */
  propagationPolicy?: 'Background' | 'Foreground' | 'Orphan';
  /** The token of a claim: the write is refused (409 Fenced) when it is no longer held. */
  claim?: string;
  /**
   * For upsert: the path of a field, such as `status.observedAt`. The stored object is left as it is when its value there is
   * greater: numbers and decimal texts by value, times by time, other texts by letter.
   */
  unlessNewer?: string;
}

/** How a batch is carried out. */
export interface BatchQuery {
  /**
   * `All`: everything is checked and answered as it would be, but nothing is stored and nobody hears of it. An atomic batch is
   * carried out as a whole and undone. Without `atomic` each operation is tried on what is stored, not on what those before it
   * would have made. An `Idempotency-Key` has no meaning then.
   */
  dryRun?: 'All';
}

/** Writes that are sent together. */
export interface BatchInput {
  /**
   * `true`: all or nothing, in one transaction. Left out, each operation has a result of its own, and one that fails leaves the
   * others alone.
   */
  atomic?: boolean;
  /**
   * Carried out in this order as far as it matters: operations on the same object, and on objects that refer to each other.
   * @minItems 1 must hold at least one operation
   * @maxItems 1000 must hold at most 1000 operations; send more as application/x-ndjson
   */
  operations: BatchOperation[];
}

/** What became of an operation: `object`, or `truncated` in its place, or `error` if it was refused. */
export interface BatchResult {
  /**
   * The HTTP status that the operation alone would have had.
   * @isInt
   */
  status: number;
  /** The object as stored; of a deletion, as it was last. */
  object?: { [field: string]: unknown };
  /**
   * The operation is done, and its object was left out, since one answer holds 32 MiB at most. Read it by its key, or send the
   * operations as lines: their answer has no limit.
   */
  truncated?: boolean;
  /** What the caller should know though the write is done. */
  warnings?: string[];
  error?: ErrorBody['error'];
}

/** The answer to a batch: one that was carried out, whatever became of its operations. */
export interface BatchResults {
  /** One for each operation, in their order. */
  results: BatchResult[];
}
