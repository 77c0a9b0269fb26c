import type { Database, Queries } from './database.js';
import { enqueueKeys, type EnqueueTarget } from './enqueue.js';
import { insist, insistOn } from './races.js';
import type { Key } from './read.js';
import type { ClaimReference } from './write.js';

/** A claimed key with the object as it is now; `object` is JSON text, null when the object is gone. */
export interface ClaimedKey extends Key {
  type: string;
  /** Of the object; of one that is gone, as the last change of it said, if one made the key. */
  uid: string | null;
  attempts: number;
  reason: string;
  nonce: string;
  object: string | null;
  /** Seconds between enqueueing and this claim. */
  age: number;
}

/** What a claim brought. */
export interface Claimed {
  keys: ClaimedKey[];
  /** Keys were left in the queue because the objects of one answer have 32 MiB at most. */
  more: boolean;
}

/** A row of the function `claim`; the one that says that there is more has no name. */
type ClaimedRow = ClaimedKey | { name: null };

/** A claimed stretch of another type's events, to be mapped to keys. `before` and `object` are whole states as JSON text. */
export interface ClaimedMap {
  type: string;
  nonce: string;
  /** At which its keys are queued: 10 when a client has written one of the events, else 0. */
  priority: number;
  events: { op: 'ADDED' | 'MODIFIED' | 'DELETED'; before: string | null; object: string | null }[];
}

/** A worker's report on a claimed key. */
export interface KeyResult extends Key {
  type: string;
  nonce: string;
  result: 'done' | 'error' | 'terminal' | 'released';
  /** Seconds. */
  requeueAfter?: number;
  message?: string;
  /** What to enqueue for the controller with it. */
  enqueue?: EnqueueTarget[];
}

/** A key in the work table, for people. */
export interface WorkRow extends Key {
  type: string;
  state: 'queued' | 'claimed' | 'waiting';
  reason: string;
  priority: number;
  attempts: number;
  worker: string | null;
  lastError: string | null;
  queuedAt: string;
  notBefore: string | null;
  parked: boolean;
}

/**
 * Claims up to `max` keys, or of `keys` those that are queued. `messages` are keys whose messages the worker took off its queue:
 * it gets the most urgent ones instead, and those of them that stay queued are sent again. Extends the worker's lease by `seconds`.
 * The objects have 32 MiB together at most, one of them whatever it weighs.
 */
export async function claimKeys(
  database: Queries,
  claim: {
    controller: string;
    worker: string;
    max: number;
    seconds: number;
    keys?: ({ type: string } & Key)[];
    messages?: ({ type: string } & Key)[];
  },
): Promise<Claimed> {
  if (claim.messages) {
    const rows = await database.query<ClaimedRow>({
      name: 'claim-instead',
      text: 'select type, namespace, name, uid, attempts, reason, nonce, object, age from syncsets.claim_instead($1, $2, $3, $4, $5)',
      values: [claim.controller, claim.worker, claim.max, claim.seconds, JSON.stringify(claim.messages)],
    });
    return claimedOf(rows);
  }
  const rows = await database.query<ClaimedRow>({
    name: 'claim',
    text: 'select type, namespace, name, uid, attempts, reason, nonce, object, age from syncsets.claim($1, $2, $3, $4, $5)',
    values: [claim.controller, claim.worker, claim.max, claim.seconds, claim.keys ? JSON.stringify(claim.keys) : null],
  });
  return claimedOf(rows);
}

function claimedOf(rows: ClaimedRow[]): Claimed {
  const keys: ClaimedKey[] = [];
  for (const row of rows) if (row.name !== null) keys.push(row);
  return { keys, more: keys.length < rows.length };
}

/**
 * Takes the results of keys and claims others in the same transaction. The results may not enqueue anything. Like `finishKeys` and
 * `claimKeys`, at little more than the cost of one of them.
 */
export async function finishAndClaimKeys(
  database: Queries,
  results: Omit<KeyResult, 'enqueue'>[],
  claim: { controller: string; worker: string; max: number; seconds: number; messages?: ({ type: string } & Key)[] },
): Promise<{ results: { held: boolean; queued: boolean }[]; claimed: Claimed }> {
  const rows = await database.query<FinishedRow | (ClaimedRow & { i: null })>({
    name: 'done-and-claim',
    text: `select i, state, queued, type, namespace, name, uid, attempts, reason, nonce, object, age
      from syncsets.done_and_claim($1, $2, $3, $4, $5, $6)`,
    values: [
      claim.controller,
      JSON.stringify(results.map((result, i) => ({ i, ...result }))),
      claim.worker,
      claim.max,
      claim.seconds,
      claim.messages ? JSON.stringify(claim.messages) : null,
    ],
  });
  const finished: FinishedRow[] = [];
  const claimed: ClaimedRow[] = [];
  for (const row of rows) {
    if (row.i === null) claimed.push(row);
    else finished.push(row);
  }
  return { results: inOrder(finished), claimed: claimedOf(claimed) };
}

/**
 * Takes the results of a controller's claims, and enqueues what they ask for in the same transaction. `held` false: the claim was
 * lost before, and its result does nothing. `queued`: there is something for other workers.
 */
export async function finishKeys(
  database: Database,
  controller: string,
  results: KeyResult[],
): Promise<{ held: boolean; queued: boolean }[]> {
  if (results.every(({ enqueue = [] }) => enqueue.length === 0)) return finish(database, controller, results);
  // The keys of the results first, then those that they enqueue: two calls that name each other's keys can deadlock.
  return insist(database, [], () =>
    database.transaction(async queries => {
      // Before any key, as everywhere: who deletes the controller locks it, then its keys.
      await queries.query({
        name: 'hold-controller',
        text: 'select from syncsets.controllers where name = $1 for key share',
        values: [controller],
      });
      const answers = await finish(queries, controller, results);
      const targets = results.flatMap(({ enqueue = [] }, i) => (answers[i]?.held === true ? enqueue : []));
      const { woken } = await enqueueKeys(queries, controller, targets, { priority: 0, reason: 'enqueued' });
      return answers.map(answer => ({ ...answer, queued: answer.queued || (woken && answer.held) }));
    }),
  );
}

async function finish(
  queries: Queries,
  controller: string,
  results: KeyResult[],
): Promise<{ held: boolean; queued: boolean }[]> {
  const rows = await queries.query<FinishedRow>({
    name: 'done',
    text: 'select i, state, queued from syncsets.done($1, $2)',
    values: [controller, JSON.stringify(results.map(({ enqueue: _, ...result }, i) => ({ i, ...result })))],
  });
  return inOrder(rows);
}

/** What became of the result at place `i`. */
interface FinishedRow {
  i: number;
  state: string;
  queued: boolean;
}

function inOrder(rows: FinishedRow[]): { held: boolean; queued: boolean }[] {
  const answers: { held: boolean; queued: boolean }[] = [];
  for (const { i, state, queued } of rows) answers[i] = { held: state === 'ok', queued };
  return answers;
}

/** Extends a worker's lease, or begins it; false: it had run out, and everything that the worker held is lost. */
export async function renewWorker(
  database: Database,
  controller: string,
  worker: string,
  seconds: number,
): Promise<boolean> {
  const renewed = await database.query({
    name: 'renew',
    text: `insert into syncsets.workers as k (controller, worker, expires_at)
      values ($1, $2, clock_timestamp() + make_interval(secs => $3))
      on conflict (controller, worker) do update set expires_at = excluded.expires_at
        where k.expires_at > clock_timestamp() returning 1`,
    values: [controller, worker, seconds],
  });
  return renewed.length > 0;
}

/**
 * What a worker holds now, keys and maps, and which keys have changed since they were claimed; nothing when its lease has run
 * out.
 */
export async function heldClaims(
  database: Queries,
  controller: string,
  worker: string,
): Promise<{
  secondsLeft: number;
  held: (ClaimReference & { dirty: boolean })[];
  maps: { controller: string; map: string; nonce: string }[];
}> {
  const [lease] = await database.query<{ secondsLeft: number }>({
    name: 'lease-left',
    text: `select extract(epoch from expires_at - clock_timestamp())::double precision as "secondsLeft"
      from syncsets.workers where controller = $1 and worker = $2 and expires_at > clock_timestamp()`,
    values: [controller, worker],
  });
  if (!lease) return { secondsLeft: 0, held: [], maps: [] };
  const held = await database.query<ClaimReference & { dirty: boolean }>({
    name: 'held-claims',
    text: `select controller, type, namespace, name, nonce, dirty from syncsets.work
      where controller = $1 and worker = $2 and state = 'claimed'`,
    values: [controller, worker],
  });
  const maps = await database.query<{ controller: string; map: string; nonce: string }>({
    name: 'held-maps',
    text: `select controller, type as map, nonce from syncsets.maps
      where controller = $1 and worker = $2 and nonce is not null`,
    values: [controller, worker],
  });
  return { secondsLeft: lease.secondsLeft, held, maps };
}

/** Shortens the lease of a worker whose connection broke; it lives on if the worker returns in time. */
export async function shrinkLease(
  database: Database,
  controller: string,
  worker: string,
  seconds: number,
): Promise<void> {
  await database.query({
    text: `update syncsets.workers set expires_at = least(expires_at, clock_timestamp() + make_interval(secs => $3))
      where controller = $1 and worker = $2`,
    values: [controller, worker, seconds],
  });
}

/** Ends a worker's lease; true when keys or maps that it held are there for others again. */
export async function releaseWorker(database: Database, controller: string, worker: string): Promise<boolean> {
  return insistOn(database, async queries => {
    await queries.query({
      text: 'select from syncsets.workers where controller = $1 and worker = $2 for update',
      values: [controller, worker],
    });
    const [row] = await queries.query<{ released: number }>({
      text: `select syncsets.release_worker($1, $2, 'released') as released`,
      values: [controller, worker],
    });
    await queries.query({
      text: 'delete from syncsets.workers where controller = $1 and worker = $2',
      values: [controller, worker],
    });
    return (row?.released ?? 0) > 0;
  });
}

/** Whether a worker of the controller holds this claim now. */
export async function isHeld(database: Queries, claim: ClaimReference): Promise<boolean> {
  const rows = await database.query({
    name: 'is-held',
    text: `select from syncsets.work w join syncsets.workers k on k.controller = w.controller and k.worker = w.worker
      where w.controller = $1 and w.type = $2 and w.namespace = $3 and w.name = $4 and w.nonce = $5
        and w.state = 'claimed' and k.expires_at > clock_timestamp()`,
    values: [claim.controller, claim.type, claim.namespace, claim.name, claim.nonce],
  });
  return rows.length > 0;
}

/**
 * Queues keys that are due, up to 5,000 of them, and what workers whose lease ran out held; returns the controllers with new
 * keys, or with maps that are free again. Two statements: keys are due in the order of time, and who held them until a worker's
 * keys were free, which are locked in another order, would meet the relay and wait with it for each other.
 */
export async function wakeDueWork(database: Queries): Promise<string[]> {
  const [due] = await database.query<{ woken: string[] }>({
    name: 'promote',
    text: 'select syncsets.promote(5000) as woken',
  });
  const [expired] = await database.query<{ woken: string[] }>({
    name: 'expire-workers',
    text: 'select syncsets.expire_workers() as woken',
  });
  return [...new Set([...(due?.woken ?? []), ...(expired?.woken ?? [])])];
}

/** What each state that can be asked for means, as the indexes say it: these are not used where a parameter stands instead. */
const states = {
  queued: `state = 'queued'`,
  claimed: `state = 'claimed'`,
  waiting: `state = 'waiting'`,
  failing: `state = 'waiting' and last_error is not null and not_before < 'infinity'`,
  parked: `state = 'waiting' and not_before = 'infinity'`,
};

/** One page of a controller's keys in the order (type, namespace, name). */
export async function listWork(
  database: Database,
  controller: string,
  request: { state?: keyof typeof states; limit: number; after?: { type: string } & Key },
): Promise<WorkRow[]> {
  return database.query<WorkRow>({
    text: `select type, namespace, name, state, reason, priority, attempts, worker, last_error as "lastError",
        syncsets.rfc3339(queued_at) as "queuedAt", not_before = 'infinity' is true as parked,
        case when not_before < 'infinity' then syncsets.rfc3339(not_before) end as "notBefore"
      from syncsets.work where controller = $1
        and ${request.state ? states[request.state] : 'true'}
        and (type, namespace, name) > ($2, $3, $4)
      order by type, namespace, name limit $5`,
    values: [
      controller,
      request.after?.type ?? '',
      request.after?.namespace ?? '',
      request.after?.name ?? '',
      request.limit,
    ],
  });
}
