import type { JsonObject } from './json.js';
import type { WorkKey } from './work-keys.js';
import type { ResultInput, ResultState } from './work-results.js';

/** What a worker asks for. */
export interface ClaimInput {
  /**
   * Names this worker among those of the controller; its lease holds all its claims.
   * @pattern ^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$ must be 1 to 128 letters, digits, dots, dashes, colons
   */
  worker: string;
  /**
   * At most this many keys. Fewer come where their objects are large: those of one answer have 32 MiB together, or are one. The others
   * stay queued and come with the next claim.
   * @isInt
   * @minimum 1 must be at least 1
   * @maximum 1000 must be at most 1000
   */
  max: number;
  /**
   * Wait up to so many seconds for the first key. A worker that hears of keys by messages, too, says so with `messages`, which may be
   * empty: what other replicas queue is left to these for a moment, while what this one queues comes without a message to those who wait.
   * @minimum 0 must not be negative
   * @maximum 30 must be at most 30
   * @default 0
   */
  waitSeconds?: number;
  /**
   * Claim exactly these, as far as they are queued.
   * @maxItems 1000 must be at most 1000
   */
  keys?: WorkKey[];
  /**
   * Keys that messages from RabbitMQ named, which the worker takes off the queue with this call. It gets the most urgent keys
   * instead: they may have been queued after those messages were sent. What is named and still queued afterwards is sent again.
   * Not together with `keys`.
   * @maxItems 1000 must be at most 1000
   */
  messages?: WorkKey[];
  /**
   * Results of earlier claims, as `claims/done` takes them. They are taken first, at once, even where the call then waits for keys:
   * a busy worker needs half as many calls.
   * @maxItems 1000 must be at most 1000
   */
  results?: ResultInput[];
}

/** A claimed key with its object as it is now, or a stretch of another type's events to map. */
export interface Claim {
  /** Send it with the result, and in the header `Claim` of writes that it shall fence. */
  token: string;
  kind: 'key' | 'map';
  type: string;
  namespace?: string;
  name?: string;
  /** Of the object; when it is gone, as the change said that queued the key, or null. */
  uid?: string | null;
  /** The object, or null when it is gone. */
  object?: JsonObject | null;
  /**
   * Failed runs before this one.
   * @isInt
   */
  attempts?: number;
  /** Why the key was queued. */
  reason?: string;
  /** The trace of the change that it was queued for (W3C trace context), where that is traced and not long ago. */
  traceparent?: string;
  /** For `map`: each event with the states before and after it, null where there is none. */
  events?: MapEvent[];
  /**
   * For `map`: at which priority the keys are queued that its result enqueues, 10 when a client made one of the changes, else 0. Send
   * it along where more keys are enqueued for these events than one result takes.
   * @isInt
   */
  priority?: number;
  /** The worker's lease from now, unless it is renewed. */
  expiresInSeconds: number;
}

/** A change with the whole states around it, null where there is none. */
export interface MapEvent {
  op: 'ADDED' | 'MODIFIED' | 'DELETED';
  before: JsonObject | null;
  object: JsonObject | null;
}

/** What a worker got. */
export interface ClaimList {
  claims: Claim[];
  /** Which of `messages` name no key of this controller; others have put them on its queue. Left out when all do. */
  refused?: RefusedMessage[];
  /** What became of the `results` that were sent, in their order. Left out without them. */
  results?: ResultState[];
}

/** A message on the queue of a controller that names no key of it. */
export interface RefusedMessage {
  /**
   * Its place in `messages`.
   * @isInt
   */
  index: number;
  /** What is wrong with it. */
  reason: string;
}
