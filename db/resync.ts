import type { Database, Queries } from './database.js';
import { insistOn } from './races.js';
import type { Key } from './read.js';

/** So many keys are queued by one statement: a writer or worker that wants one of these keys waits for its 20 to 40 ms. */
const page = 2_000;
/** Events that one statement of the relay passes where a registration waits for all of them. */
const stretch = 10_000;

/**
 * Enqueues all keys of a controller, below the priority of any change: every object of a type, or of all (`*`); of a task its
 * one key. The first `now` keys in the caller's transaction, the others by `resyncNext` after it. What changes until then comes by
 * its event as well. Returns whom to wake.
 */
export async function enqueueAll(
  queries: Queries,
  controller: string,
  type: string,
  { reason, now }: { reason: string; now: number },
): Promise<string[]> {
  if (type === '-') {
    const [row] = await queries.query<{ woken: string[] }>({
      text: `select syncsets.enqueue(array[row($1, '-', '', $1, null, null, -10, $2)::syncsets.key]) as woken`,
      values: [controller, reason],
    });
    return row?.woken ?? [];
  }
  // One that is under way begins again.
  const begun = await queries.query<Resync>({
    text: `insert into syncsets.resyncs (controller, type, reason)
      select $1, type, $3 from syncsets.types where $2 = '*' or type = $2 order by type
      on conflict (controller, type) do update set reason = excluded.reason, namespace = '', name = ''
      returning controller, type, reason, namespace, name`,
    values: [controller, type, reason],
  });
  let left = now;
  let woken = false;
  for (const resync of begun) {
    if (left === 0) break;
    const made = await enqueuePage(queries, resync, left);
    left -= made.count;
    woken ||= made.woken;
  }
  return woken ? [controller] : [];
}

/** Whose keys were enqueued, and whether any is queued. */
export interface ResyncStep {
  controller: string;
  woken: boolean;
}

/**
 * Enqueues the next keys of the controller whose turn it is, of those that are to be given every object of a type; undefined when
 * there is none, or others are at it.
 */
export async function resyncNext(database: Database): Promise<ResyncStep | undefined> {
  // As a rule there is none: one round trip instead of a transaction's three, five times a second at every replica.
  const [some] = await database.query({ name: 'some-resync', text: 'select from syncsets.resyncs limit 1' });
  if (!some) return undefined;
  return insistOn(database, async queries => {
    // The controller is locked too, so that its type is that of this moment, not of the one before another registration's end.
    const [resync] = await queries.query<Resync & { reconciled: boolean }>({
      name: 'next-resync',
      text: `select r.controller, r.type, r.reason, r.namespace, r.name, c.type = any (array[r.type, '*']) as reconciled
        from syncsets.resyncs r join syncsets.controllers c on c.name = r.controller
        order by r.turn_at limit 1 for update of r skip locked for key share of c skip locked`,
    });
    if (!resync) return undefined;
    const { controller, type } = resync;
    if (resync.reconciled) return { controller, woken: (await enqueuePage(queries, resync, page)).woken };
    // It was registered for another type since.
    await endResync(queries, controller, type);
    return { controller, woken: false };
  });
}

/**
 * Locks what a controller is still to be given, until the commit: before any of its keys, as `resyncNext` does, so that neither waits
 * for the other.
 */
export async function lockResyncs(queries: Queries, controller: string): Promise<void> {
  await queries.query({
    text: 'select from syncsets.resyncs where controller = $1 order by type for update',
    values: [controller],
  });
}

/** A row of `resyncs`, which the caller's transaction has locked. */
interface Resync extends Key {
  controller: string;
  type: string;
  reason: string;
}

/** The next keys of a type, `limit` at most; how many, and whether any is queued. */
async function enqueuePage(
  queries: Queries,
  resync: Resync,
  limit: number,
): Promise<{ count: number; woken: boolean }> {
  const { controller, type, reason, namespace, name } = resync;
  const [made] = await queries.query<{
    count: number;
    woken: boolean;
    last: Key | null;
  }>({
    text: `with page as materialized (
        select o.namespace, o.name, o.uid, o.version from syncsets.objects o
        where o.type = $3 and (o.namespace, o.name) > ($4, $5) order by o.namespace, o.name limit $6
      )
      select count(*), syncsets.enqueue_objects($1, $3,
          array_agg(p.namespace order by p.namespace, p.name), array_agg(p.name order by p.namespace, p.name),
          array_agg(p.uid order by p.namespace, p.name), array_agg(p.version order by p.namespace, p.name), -10, $2) as woken,
        (select jsonb_build_object('namespace', l.namespace, 'name', l.name) from page l
          order by l.namespace desc, l.name desc limit 1) as last
      from page p`,
    values: [controller, reason, type, namespace, name, limit],
  });
  const count = made?.count ?? 0;
  if (made?.last && count === limit) {
    await queries.query({
      text: `update syncsets.resyncs set namespace = $3, name = $4, turn_at = clock_timestamp()
        where controller = $1 and type = $2`,
      values: [controller, type, made.last.namespace, made.last.name],
    });
  } else await endResync(queries, controller, type);
  return { count, woken: made?.woken ?? false };
}

async function endResync(queries: Queries, controller: string, type: string): Promise<void> {
  await queries.query({
    text: 'delete from syncsets.resyncs where controller = $1 and type = $2',
    values: [controller, type],
  });
}

/** What one step of the work relay did: how many events it passed and which controllers have new keys. */
export interface RelayStep {
  events: number;
  woken: string[];
}

/**
 * Makes the work of the next events of a type; of all its objects where the log no longer has what the cursor has not seen. Only
 * in a transaction is the type's cursor held until all of that is made. Undefined while another process is at it.
 */
export async function relayStretch(queries: Queries, type: string, limit: number): Promise<RelayStep | undefined> {
  const [step] = await queries.query<{ events: number | null; woken: string[] }>({
    text: 'select events, woken from syncsets.relay_work($1, $2)',
    values: [type, limit],
  });
  if (!step) return undefined;
  const { events, woken } = step;
  return events === null ? { events: 0, woken: await resync(queries, type) } : { events, woken };
}

/**
 * Makes the work of all that was committed until now, of a type or of all (`*`), whose cursors are locked. Returns whom to wake.
 */
export async function relayAll(queries: Queries, wanted: string): Promise<string[]> {
  const types = await queries.query<{ type: string }>({
    text: `select type from syncsets.cursors where $1 = '*' or type = $1 order by type`,
    values: [wanted],
  });
  const woken: string[] = [];
  for (const { type } of types) {
    let step: RelayStep | undefined;
    do {
      step = await relayStretch(queries, type, stretch);
      woken.push(...(step?.woken ?? []));
    } while (step?.events === stretch);
  }
  return woken;
}

/** Has every object of a type enqueued for all whom it interests, and moves the type's cursor to its newest version. */
async function resync(queries: Queries, type: string): Promise<string[]> {
  // First: what is written from here on is among the objects as well, and its events come after the cursor.
  const [head] = await queries.query<{ version: number }>({
    text: 'select version from syncsets.types where type = $1',
    values: [type],
  });
  const controllers = await queries.query<{ name: string; reconciles: boolean; maps: boolean }>({
    text: `select name, type = any (array[$1, '*']) as reconciles, $1 = any (watches) as maps from syncsets.controllers
      where type = any (array[$1, '*']) or $1 = any (watches) order by name`,
    values: [type],
  });
  const woken: string[] = [];
  for (const { name, reconciles, maps } of controllers) {
    if (reconciles) await enqueueAll(queries, name, type, { reason: 'resync', now: 0 });
    if (maps) woken.push(name);
  }
  await queries.query({
    text: 'update syncsets.cursors set work = $2 where type = $1',
    values: [type, head?.version ?? 0],
  });
  return woken;
}
