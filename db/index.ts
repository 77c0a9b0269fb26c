export { Database, isDatabaseAway, sqlState, type DatabaseOptions, type Log } from './database.js';
export { EmbeddedPostgres, findEmbedded, type EmbeddedAddress, type EmbeddedOptions } from './embedded.js';
export { migrate } from './migrate.js';
export { parseConnection, type ConnectionVariables } from './parameters.js';
export { ensureTypes, type TypeTable } from './types.js';
export { raiseVersions, type RaisedVersion } from './versions.js';
export { maintainEventLog, measureEventLog, type EventLogSize } from './event-partitions.js';
export { ObjectStore } from './objects.js';
export type { Key, StoredObject } from './read.js';
export type {
  AnswerReference,
  ChangedPart,
  ClaimReference,
  Committed,
  RuleMatch,
  StoredAnswer,
  WriteItem,
  WriteResult,
} from './write.js';
export { Unstorable, type Transaction } from './atomic.js';
export { expireAnswers, findAnswers, firstAnswer, keepAnswers } from './answers.js';
export type { TypeRule } from './rules.js';
export { FieldIndexes, type IndexedField, type TypeIndexes } from './field-index.js';
export { readPage, VersionGone, type ListRequest, type Order, type Page, type Place } from './lists.js';
export { Snapshot } from './snapshot.js';
export type { FieldCondition, LabelCondition, Selector } from './selectors.js';
export {
  isLogEvent,
  logRange,
  priorityOf,
  readEvents,
  type LogEvent,
  type LogRange,
  type ReadLimits,
} from './events.js';
export {
  advancePublished,
  advanceWork,
  attend,
  dropLeases,
  publishedUpTo,
  relayPosition,
  relayWork,
  takeLeases,
  type AdvancedWork,
  type Lease,
  type NewKey,
  type RelayPosition,
} from './relay.js';
export { resyncNext, type RelayStep } from './resync.js';
export {
  deleteController,
  dropAbandonedWork,
  findController,
  forgottenControllers,
  listControllers,
  noteWorkers,
  queueRemoved,
  registerController,
  summarizeWork,
  type MapSummary,
  type Registration,
  type WorkSummary,
} from './controllers.js';
export { enqueueKeys, type EnqueueTarget } from './enqueue.js';
export {
  claimKeys,
  finishAndClaimKeys,
  finishKeys,
  heldClaims,
  isHeld,
  listWork,
  releaseWorker,
  renewWorker,
  shrinkLease,
  wakeDueWork,
  type Claimed,
  type ClaimedKey,
  type ClaimedMap,
  type KeyResult,
  type WorkRow,
} from './work.js';
export { sentKeys, takeUnsent, unsend, unsendKeys, type QueueRoom, type SentKey, type SentKeys } from './sent-keys.js';
export { claimMap, finishMap, type MapOutcome } from './maps.js';
export { platformKey, rewrapPlatformKey, type WrappedKey } from './keys.js';
export { reseal, sealedByOthers, type SealedRow } from './sealed.js';
export { dependents, namedAsOwners, ownerStates, selectedObjects, type Dependent, type OwnerState } from './owners.js';
export { expireNotices, listNotices, recordNotice, type NoticeRow } from './notices.js';
