import type { JsonObject } from './json.js';
import type { Timestamp } from './resource.js';

/** What a controller reconciles and what else it watches. */
export interface ControllerInput {
  /**
   * The type whose objects are its keys; `*` for all types. `-` for a task: it has no objects and one key, named as the
   * controller, which is queued at the first registration and again as `requeueAfterSeconds` says.
   */
  type: string;
  /**
   * Which parts of a change make a key: `spec`, `metadata`, `status`, `deletion`, `owners` (the object came with owners, they
   * changed, it is being deleted, or it is gone and others name it as their owner). Left out: `spec`, `metadata` and `deletion`.
   * @uniqueItems
   */
  on?: ('spec' | 'metadata' | 'status' | 'deletion' | 'owners')[];
  /**
   * Other types whose changes it maps to keys of its own.
   * @uniqueItems
   */
  watches?: string[];
  /**
   * Seconds that a worker may be silent before its claims are given to others.
   * @isInt
   * @minimum 2 must be at least 2
   * @maximum 3600 must be at most 3600
   * @default 15
   */
  claimSeconds?: number;
  /**
   * Of two registrations that differ the higher revision wins; raise it with each change.
   * @isInt
   * @minimum 0 must not be negative
   * @default 0
   */
  revision?: number;
  /**
   * Types whose secret fields it may read.
   * @uniqueItems
   */
  reveal?: string[];
  /**
   * It works on a key for as long as it holds it; changes are told by `renew`.
   * @default false
   */
  longRunning?: boolean;
}

/** A registered controller and its work in numbers. Each state is counted up to 100,000. */
export interface ControllerView extends ControllerInput {
  name: string;
  /** Keys that wait for a worker. */
  queued: number;
  /** Keys that workers hold. */
  claimed: number;
  /** Keys that wait for their time: after `requeueAfter`, in back-off, or parked. */
  waiting: number;
  /** Waiting keys whose last run failed and that are tried again. */
  failing: number;
  /** Waiting keys whose last run ended in a terminal error: they wait for their object to change. */
  parked: number;
  /** Seconds that the oldest queued key has waited. */
  oldestSeconds: number;
  /** Workers with a live lease. */
  workers: number;
  /** When a worker was last seen alive, to the minute; before the first one, when the controller was registered. */
  lastSeenAt: Timestamp;
  /** How far it has come with each type that it watches. */
  maps: MapView[];
}

/** How a controller turns the changes of a type that it watches into keys. */
export interface MapView {
  type: string;
  /**
   * Versions of the type that it has not turned into keys yet.
   * @isInt
   */
  behind: number;
  /**
   * Failed attempts at the changes that come next.
   * @isInt
   */
  attempts: number;
  /** Why the last attempt failed, if it did. */
  lastError: string | null;
  /** When it is tried again. */
  notBefore: string | null;
}

export interface ControllerList {
  items: ControllerView[];
}

/** Names one object. */
export interface WorkKey {
  /** Left out: the controller's own type. */
  type?: string;
  /**
   * Left out: `default`, or none for a cluster-wide type.
   * @maxLength 63 must have at most 63 characters
   */
  namespace?: string;
  /** @maxLength 253 must have at most 253 characters */
  name: string;
}

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
   * Wait up to so many seconds for the first key.
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

export interface MapEvent {
  op: 'ADDED' | 'MODIFIED' | 'DELETED';
  before: JsonObject | null;
  object: JsonObject | null;
}

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

export interface RenewInput {
  /** @pattern ^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$ must be 1 to 128 letters, digits, dots, dashes, colons */
  worker: string;
  /**
   * Claims that the worker believes to hold: those that it does not are answered as lost.
   * @maxItems 1000 must be at most 1000
   */
  tokens?: string[];
}

export interface RenewQuery {
  /** `true` keeps the connection open and sends a line every 0.7 s; the lease is renewed by calls without it. */
  stream?: boolean;
}

export interface Renewal {
  /** The lease from now; 0: it had run out, and everything that the worker held is lost. */
  expiresInSeconds: number;
  /** All claims that the worker holds. */
  held: string[];
  /** Claims that the worker no longer holds. */
  lost: string[];
  /** Held claims whose object has changed since. */
  changed: string[];
}

/** Names a key, all objects of a type that a selector matches, or all objects of a type. */
export interface EnqueueTargetInput {
  type?: string;
  /** @maxLength 63 must have at most 63 characters */
  namespace?: string;
  /** @maxLength 253 must have at most 253 characters */
  name?: string;
  labelSelector?: string;
  all?: boolean;
}

export interface ResultInput {
  token: string;
  /** `error`: again after a back-off. `terminal`: not again until the object changes. `released`: at once, by whoever takes it. */
  result: 'done' | 'error' | 'terminal' | 'released';
  /**
   * After `done`: run again in so many seconds.
   * @minimum 0 must not be negative
   * @maximum 31536000 must be at most a year
   */
  requeueAfterSeconds?: number;
  /**
   * What went wrong, for people; never a secret.
   * @maxLength 4096 must have at most 4096 characters
   */
  message?: string;
  /**
   * Keys of this controller to queue with it.
   * @maxItems 1000 must be at most 1000
   */
  enqueue?: EnqueueTargetInput[];
}

export interface DoneInput {
  /**
   * @minItems 1 must not be empty
   * @maxItems 1000 must be at most 1000
   */
  results: ResultInput[];
}

export interface DoneList {
  results: ResultState[];
}

/** What became of a result. */
export interface ResultState {
  token: string;
  /** `fenced`: the claim was lost before, and the result did nothing. */
  state: 'ok' | 'fenced';
}

/** `keys`, or what selects them. */
export interface EnqueueInput {
  /** @maxItems 1000 must be at most 1000 */
  keys?: WorkKey[];
  type?: string;
  namespace?: string;
  labelSelector?: string;
  /** All objects of the type. */
  all?: boolean;
  /**
   * Higher goes first. Changes by clients have 10, by controllers 0, resyncs -10.
   * @isInt
   * @minimum -100 must be at least -100
   * @maximum 100 must be at most 100
   * @default 0
   */
  priority?: number;
  /**
   * Run them in so many seconds at the latest: a key that waits for a later time is due then, one that is queued already runs before,
   * and one that a worker holds is queued again at that time, or when its result says if that is sooner.
   * @minimum 0 must not be negative
   * @maximum 31536000 must be at most a year
   */
  afterSeconds?: number;
}

export interface EnqueueCount {
  /**
   * How many keys were named or matched.
   * @isInt
   */
  count: number;
}

export interface WorkQuery {
  /** Only keys in this state; failing and parked ones are among those that wait. */
  state?: 'queued' | 'claimed' | 'waiting' | 'failing' | 'parked';
  /**
   * @isInt
   * @minimum 1 must be at least 1
   * @maximum 1000 must be at most 1000
   * @default 100
   */
  limit?: number;
  /** The token of the previous page. */
  continue?: string;
}

/** A key of a controller and how it stands. */
export interface WorkItem {
  type: string;
  namespace: string;
  name: string;
  state: 'queued' | 'claimed' | 'waiting';
  reason: string;
  priority: number;
  attempts: number;
  worker: string | null;
  lastError: string | null;
  queuedAt: string;
  /** When it is due; of a claimed key, when it is to run again, if it was enqueued for later meanwhile. */
  notBefore: string | null;
  /** A terminal error: it waits for its object to change. */
  parked: boolean;
}

export interface WorkList {
  items: WorkItem[];
  continue?: string;
}
