// The door of the room, and what `syncsets/client` exports.
export { Backoff, pause } from './backoff.js';
export type { BatchOptions, BatchOutcome, BatchOutcomes, BatchWrite } from './batch.js';
export type { Broker, Log as ClientLog } from './broker.js';
export type {
  Claim,
  ClaimRequest,
  EnqueueRequest,
  Interest,
  KeyClaim,
  MapClaim,
  DoneAndClaimRequest,
  MessageClaimRequest,
  ResultState,
  RefusedMessage,
  Registration,
  Renewal,
  Target,
  WorkKey,
  WorkQuery,
  WorkResult,
} from './claims.js';
export type {
  CallOptions,
  FieldsOption,
  JsonPatchOperation,
  ListOptions,
  MergePatch,
  Metadata,
  Page,
  Part,
  Preconditions,
  PropagationPolicy,
  RemoveAllOptions,
  RemoveOptions,
} from './calls.js';
export type { Collection, MinimalCalls } from './collection.js';
export { connect, type Client, type Collections, type ConnectOptions, type Kinds } from './connect.js';
export { ConnectionError, isPlatformError, PlatformError, type ErrorDetail } from './errors.js';
export { events, type EventsOptions } from './events.js';
export type { Garbage } from './garbage.js';
// Not by name: a type that is added brings its own.
export type * from './generated/index.js';
export type { Bookmark, WatchEvent } from './replay.js';
export { compareVersions, type Key, type ObjectReference, type Resource } from './resource.js';
export type { SecretCalls, StatusCalls } from './subresources.js';
export { watch, type WatchOptions } from './watch.js';
export { WorkQueue, type WorkMessages } from './work-queue.js';
export type { Controllers } from './work.js';
