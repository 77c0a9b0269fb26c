import type { Resource } from './resource.js';

/** Which parts of a change make work. */
export type Interest = 'spec' | 'metadata' | 'status' | 'deletion' | 'owners';

/** What a controller reconciles and what else it watches; the answer of the server says more. */
export interface Registration {
  /** A type, `*` for all, or `-` for none: a task, with one key that is named as the controller. */
  type: string;
  /** Default spec, metadata and deletion. */
  on?: Interest[];
  /** Types whose events are handed out as maps, to be turned into keys. */
  watches?: string[];
  /** How long, in seconds, a worker that falls silent keeps its claims: 2 to 3,600. Default 15. */
  claimSeconds?: number;
  /** Of two registrations that differ, the higher one holds. Default 0. */
  revision?: number;
  /** Types whose secret fields it may read. */
  reveal?: string[];
  /** It works on a key for as long as it holds it; changes are told by `renew`. Default false. */
  longRunning?: boolean;
}

/** A key of a type's object; `namespace` is left out for cluster-wide types. */
export interface WorkKey {
  type: string;
  namespace?: string;
  name: string;
}

/** An object to reconcile. Only this worker has it until it reports or its lease runs out. */
export interface KeyClaim extends WorkKey {
  kind: 'key';
  /** Fences writes (`claim`) and reports the result. */
  token: string;
  /** Of the object; when it is gone, as the change said that queued the key, or null. */
  uid: string | null;
  /** The object as it is now; null when it is gone. */
  object: Resource | null;
  /** Failed runs before this one. */
  attempts: number;
  /** Why it was queued: `added`, `modified`, `requeueAfter`, `error`, … */
  reason: string;
  /** The trace of the change that it was queued for (W3C trace context), where that is traced and not long ago. */
  traceparent?: string;
  /** The worker's lease from now, unless it is renewed. */
  expiresInSeconds: number;
}

/** Events of a watched type, to be turned into keys. */
export interface MapClaim {
  kind: 'map';
  /** Reports the result. */
  token: string;
  /** The watched type. */
  type: string;
  /** For keys that are queued beside the result: 10 when a client made one of the changes, else 0. */
  priority: number;
  /** Whole states before and after each event. */
  events: { op: 'ADDED' | 'MODIFIED' | 'DELETED'; before: Resource | null; object: Resource | null }[];
  /** The worker's lease from now, unless it is renewed. */
  expiresInSeconds: number;
}

/** What a worker holds: an object to reconcile, or events to turn into keys. */
export type Claim = KeyClaim | MapClaim;

/** What a worker asks for. */
export interface ClaimRequest {
  /** Names the process; all its claims share one lease. */
  worker: string;
  /** 1 to 1,000. Fewer come where their objects have more than 32 MiB together. */
  max: number;
  /** Waits for work so many seconds, at most 30. Default 0. */
  waitSeconds?: number;
  /** Only these, as far as they are queued. */
  keys?: WorkKey[];
  /** Ends the wait; the call rejects with the signal's reason. */
  signal?: AbortSignal;
}

/** What a worker asks for that hears by messages of keys. */
export interface MessageClaimRequest extends Omit<ClaimRequest, 'keys'> {
  /**
   * The keys that messages named; the most urgent ones are answered, which may be others. None where there was no message: with
   * `waitSeconds` it then waits for keys that the replica it asks queues, which come without a message to those who wait.
   */
  messages: WorkKey[];
}

/** What a worker asks for that has results to report, too. */
export interface DoneAndClaimRequest extends Omit<ClaimRequest, 'keys'> {
  /** At most 1,000. They are taken first, at once, even where the call then waits for keys. */
  results: WorkResult[];
  /** As in `claimForMessages`. */
  messages?: WorkKey[];
}

/** What became of a result; `fenced`: the claim was lost before, and it did nothing. */
export interface ResultState {
  token: string;
  state: 'ok' | 'fenced';
}

/** A message that names no key of the controller: others have put it on the queue. */
export interface RefusedMessage {
  /** Its place among those that were sent. */
  index: number;
  /** What is wrong with it. */
  reason: string;
}

/** One key, the keys of all objects that a selector matches, or all keys of a type. */
export type Target =
  WorkKey | { type: string; namespace?: string; labelSelector: string } | { type: string; all: true };

/** What became of a claim. */
export interface WorkResult {
  /** Of the claim. */
  token: string;
  /** `error` comes again with back-off, `terminal` when the object changes, `released` at once. */
  result: 'done' | 'error' | 'terminal' | 'released';
  /** After `done`: run again in so many seconds, at most a year. */
  requeueAfterSeconds?: number;
  /** What went wrong, for people, at most 4,096 characters; never a secret. */
  message?: string;
  /** What the events of a map mean: keys to queue. Queued in one transaction with the end of the map. */
  enqueue?: Target[];
}

/** State of a worker's lease and claims. */
export interface Renewal {
  /** The lease from now; 0: it had run out, and everything that the worker held is lost. */
  expiresInSeconds: number;
  /** Tokens that the worker no longer holds. */
  lost: string[];
  /** Tokens whose objects have changed since they were claimed. */
  changed: string[];
  /** All tokens that the worker holds. */
  held: string[];
}

/** Which keys to queue: named ones, or those of all objects that a selector matches, or of a whole type. */
export type EnqueueRequest = (
  | { keys: { type?: string; namespace?: string; name: string }[] }
  | { type: string; namespace?: string; labelSelector: string }
  | { type: string; all: true }
) & {
  /** A higher one goes first; a user's change has 10, a resync -10. Default 0. */
  priority?: number;
  /** In so many seconds at the latest; of a key that is claimed, once more. */
  afterSeconds?: number;
};

/** Which of a controller's keys to show. */
export interface WorkQuery {
  /** `failing`: those that wait after an error. `parked`: after a terminal one, for their object to change. */
  state?: 'queued' | 'claimed' | 'waiting' | 'failing' | 'parked';
  /** Keys in one page, 1 to 1,000. Default 100. */
  limit?: number;
  /** `continue` of the page before. */
  continue?: string;
}
