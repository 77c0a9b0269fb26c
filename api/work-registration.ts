import type { Registration, WorkSummary } from '../db/index.js';
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
  /** Seconds that the oldest queued key has waited, of the next 1,000 of each priority. */
  oldestSeconds: number;
  /** Workers with a live lease. */
  workers: number;
  /** When a worker was last seen alive, to the minute; before the first one, when the controller was registered. */
  lastSeenAt: Timestamp;
  /** How far it has come with each type that it watches. */
  maps: MapView[];
  /** Types of which more of the existing objects are to be queued, as after its first registration. */
  resyncing: string[];
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

/** All registered controllers. */
export interface ControllerList {
  items: ControllerView[];
}

/** What is stored for a registration that was sent: with the defaults of what it leaves out. */
export function registrationOf(name: string, body: ControllerInput): Registration {
  return {
    name,
    type: body.type,
    interests: body.on ?? ['spec', 'metadata', 'deletion'],
    watches: body.watches ?? [],
    claimSeconds: body.claimSeconds ?? 15,
    revision: body.revision ?? 0,
    reveal: body.reveal ?? [],
    longRunning: body.longRunning ?? false,
  };
}

/** A registration as it was sent, with everything that may be left out. */
export function registered(registration: Registration): ControllerInput & { name: string } {
  const { name, type, interests, watches, claimSeconds, revision, reveal, longRunning } = registration;
  const on = (['spec', 'metadata', 'status', 'deletion', 'owners'] as const).filter(part => interests.includes(part));
  return { name, type, on, watches, claimSeconds, revision, reveal, longRunning };
}

/** A registration as it is shown, with its work in numbers. */
export function view(registration: Registration, { seenAt, ...counts }: WorkSummary): ControllerView {
  return { ...registered(registration), ...counts, lastSeenAt: seenAt };
}
