import { findController } from './controllers.js';
import type { Database, Queries } from './database.js';
import { priorityOf } from './events.js';
import { insistOn } from './races.js';
import { enqueueKeys, type EnqueueTarget } from './enqueue.js';
import { enqueueAll } from './resync.js';
import type { ClaimedMap } from './work.js';

/**
 * Claims a stretch of the events that a controller has yet to map, of one of its watched types, for a worker that has a
 * lease: as many events as the limits allow, one whatever it weighs. A cursor older than the log cannot be mapped: all keys are
 * enqueued instead, which is `resynced`.
 */
export async function claimMap(
  database: Database,
  controller: string,
  worker: string,
  limits: { events: number; bytes: number },
): Promise<ClaimedMap | 'resynced' | undefined> {
  return insistOn(database, async queries => {
    const [map] = await queries.query<{
      type: string;
      version: number;
      head: number;
      log_start: number;
      nonce: string;
    }>({
      text: `select m.type, m.version, t.version as head, t.log_start, gen_random_uuid() as nonce
        from syncsets.maps m join syncsets.types t on t.type = m.type
        where m.controller = $1 and m.version < t.version and m.not_before <= clock_timestamp()
          and not exists (select from syncsets.workers k where k.controller = m.controller and k.worker = m.worker
            and m.nonce is not null and k.expires_at > clock_timestamp())
        order by m.claimed_at limit 1 for update of m skip locked`,
      values: [controller],
    });
    if (!map) return undefined;
    const events = await queries.query<
      ClaimedMap['events'][number] & { version: number; previous: number; actor: string }
    >({
      // The inner limit keeps the states from being made twice, as where events are read.
      text: `select s.version, s.previous, s.op, s.object, s.before, s.actor from (
          select b.*, row_number() over w as place,
            sum(coalesce(octet_length(b.object), 0) + coalesce(octet_length(b.before), 0)) over w as weight
          from (
            select e.version, e.previous, e.op, e.actor, case when e.op <> 'DELETED' then e.object::text end as object,
              case when e.op <> 'ADDED' then ((e.object || coalesce(e.before, '{}'))
                - array(select b.key from jsonb_each(e.before) b where b.value = 'null'::jsonb))::text end as before
            from syncsets.events e where e.type = $1 and e.version > $2 order by e.version limit $3
          ) b window w as (order by b.version rows unbounded preceding)
        ) s where s.place = 1 or s.weight <= $4 order by s.version`,
      values: [map.type, map.version, limits.events, limits.bytes],
    });
    const [first] = events;
    // A partition may have been dropped since the look at the log's start.
    if (!first || map.version < map.log_start || first.previous > map.version) {
      const registration = await findController(queries, controller);
      if (registration) await enqueueAll(queries, controller, registration.type, { reason: 'resync', now: 0 });
      await moveMap(queries, { controller, type: map.type }, map.head);
      return 'resynced';
    }
    const priority = Math.max(...events.map(priorityOf));
    await queries.query({
      text: `update syncsets.maps set nonce = $3, worker = $4, upto = $5, priority = $6, claimed_at = clock_timestamp()
        where controller = $1 and type = $2`,
      values: [controller, map.type, map.nonce, worker, events.at(-1)?.version ?? map.head, priority],
    });
    return {
      type: map.type,
      nonce: map.nonce,
      priority,
      events: events.map(({ op, before, object }) => ({ op, before, object })),
    };
  });
}

/** How the mapping of a stretch ended: with keys to enqueue, with an error, or given up for others. */
export type MapOutcome = { targets: EnqueueTarget[] } | { error: string } | 'released';

/**
 * Ends the claim of a map: enqueues what it found and moves the cursor in one transaction. With `error` the cursor stays and
 * the stretch is tried again after a back-off of 1 s * 2^n, at most 5 min.
 */
export async function finishMap(
  database: Database,
  map: { controller: string; type: string; nonce: string },
  result: MapOutcome,
): Promise<{ held: boolean; woken: boolean }> {
  return insistOn(database, async queries => {
    const [held] = await queries.query<{ priority: number; upto: number }>({
      text: `select m.priority, m.upto from syncsets.maps m join syncsets.workers k on k.controller = m.controller and k.worker = m.worker
        where m.controller = $1 and m.type = $2 and m.nonce = $3 and k.expires_at > clock_timestamp() for update of m`,
      values: [map.controller, map.type, map.nonce],
    });
    if (!held) return { held: false, woken: false };
    if (result === 'released') {
      await queries.query({
        text: 'update syncsets.maps set nonce = null, worker = null where controller = $1 and type = $2',
        values: [map.controller, map.type],
      });
      return { held: true, woken: true };
    }
    if ('error' in result) {
      await queries.query({
        text: `update syncsets.maps set nonce = null, worker = null, attempts = attempts + 1, last_error = $3,
            not_before = clock_timestamp() + make_interval(secs => least(300, power(2, least(attempts, 10))) * (1 - random() * 0.1))
          where controller = $1 and type = $2`,
        values: [map.controller, map.type, result.error],
      });
      return { held: true, woken: false };
    }
    const { woken } = await enqueueKeys(queries, map.controller, result.targets, {
      priority: held.priority,
      reason: map.type,
    });
    const more = await moveMap(queries, map, held.upto);
    return { held: true, woken: woken || more };
  });
}

/** Moves the cursor of a map, which nobody holds then, and forgets its errors; true when there are newer events. */
async function moveMap(
  queries: Queries,
  { controller, type }: { controller: string; type: string },
  version: number,
): Promise<boolean> {
  const [moved] = await queries.query<{ more: boolean }>({
    text: `update syncsets.maps m set version = $3, upto = null, nonce = null, worker = null, attempts = 0,
        last_error = null, not_before = '-infinity'
      from syncsets.types t where m.controller = $1 and m.type = $2 and t.type = m.type returning t.version > m.version as more`,
    values: [controller, type, version],
  });
  return moved?.more === true;
}
