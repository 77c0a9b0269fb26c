import type { Database, Queries } from './database.js';
import { insistOn } from './races.js';
import { enqueueAll, lockResyncs, relayAll } from './resync.js';

/** A controller's registration: what it reconciles and what else it watches. */
export interface Registration {
  name: string;
  /** A type, '*' for all, or '-' for none: a task. */
  type: string;
  interests: string[];
  watches: string[];
  claimSeconds: number;
  revision: number;
  reveal: string[];
  longRunning: boolean;
}

const columns = `name, type, interests, watches, claim_seconds as "claimSeconds", revision, reveal, long_running as "longRunning"`;

/** Keys of a controller by state, for people and metrics. */
export interface WorkSummary {
  queued: number;
  claimed: number;
  waiting: number;
  /** Waiting keys whose last run failed and that are tried again. */
  failing: number;
  /** Waiting keys whose last run ended in a terminal error. */
  parked: number;
  /** Seconds that the oldest queued key has waited. */
  oldestSeconds: number;
  workers: number;
  /** When a worker was last seen alive, to the minute; the registration, if none ever was. RFC 3339. */
  seenAt: string;
  maps: MapSummary[];
  /** Types of which more objects are to be enqueued, because all are. */
  resyncing: string[];
}

/** So many keys are queued before a registration is answered. The events of the type wait for them, 0.1 to 0.2 s. */
const queuedAtOnce = 10_000;

/** How far a controller has come in turning the events of a watched type into keys. */
export interface MapSummary {
  type: string;
  /** Versions between its cursor and the newest one. */
  behind: number;
  /** Failed attempts at the present stretch. */
  attempts: number;
  lastError: string | null;
  /** When the stretch is tried again after an error; RFC 3339. */
  notBefore: string | null;
}

/** The registration of a controller; undefined when there is none. */
export async function findController(database: Queries, name: string): Promise<Registration | undefined> {
  const [row] = await database.query<Registration>({
    name: 'find-controller',
    text: `select ${columns} from syncsets.controllers where name = $1`,
    values: [name],
  });
  return row;
}

/** All registrations, by name. */
export async function listControllers(database: Database): Promise<Registration[]> {
  return database.query<Registration>({ text: `select ${columns} from syncsets.controllers order by name` });
}

/**
 * Stores a registration. Of two that differ the higher revision wins: with a lower or an equal one nothing changes, the stored
 * registration is returned and `refused` says so. At the first registration, and when a watch or a part of a change is added, all
 * existing objects are enqueued, see `enqueueAll`: what was changed before then woke nobody.
 */
export async function registerController(
  database: Database,
  wanted: Registration,
): Promise<{ stored: Registration; woken: string[]; refused: boolean }> {
  return insistOn(database, async queries => {
    await lockName(queries, wanted.name);
    const present = await findController(queries, wanted.name);
    if (present && !same(present, wanted) && wanted.revision <= present.revision)
      return { stored: present, woken: [], refused: true };
    if (present && same(present, wanted) && wanted.revision <= present.revision)
      return { stored: present, woken: [], refused: false };
    await lockCursors(queries, present, wanted);
    await lockResyncs(queries, wanted.name);
    // For a newcomer these are among the objects that are enqueued for it, once.
    const others = await relayAll(queries, wanted.type);
    await storeRegistration(queries, wanted);
    await storeWatches(queries, wanted);
    const retyped = present !== undefined && present.type !== wanted.type;
    if (retyped) await dropOtherTypes(queries, wanted);
    const grows = (now: string[], before: string[]) => now.some(one => !before.includes(one));
    const familiar =
      present && !retyped && !grows(wanted.watches, present.watches) && !grows(wanted.interests, present.interests);
    const all = { reason: 'registered', now: queuedAtOnce };
    const own = familiar ? [] : await enqueueAll(queries, wanted.name, wanted.type, all);
    return { stored: wanted, woken: [...others, ...own], refused: false };
  });
}

/** Writes the registration; one that was forgotten before is there again, with its queue on the broker. */
async function storeRegistration(queries: Queries, wanted: Registration): Promise<void> {
  await queries.query({
    text: `with remembered as (delete from syncsets.forgotten where controller = $1)
      insert into syncsets.controllers (name, type, interests, watches, claim_seconds, revision, reveal, long_running)
      values ($1, $2, $3, $4, $5, $6, $7, $8)
      on conflict (name) do update set type = excluded.type, interests = excluded.interests, watches = excluded.watches,
        claim_seconds = excluded.claim_seconds, revision = excluded.revision, reveal = excluded.reveal,
        long_running = excluded.long_running`,
    values: [
      wanted.name,
      wanted.type,
      wanted.interests,
      wanted.watches,
      wanted.claimSeconds,
      wanted.revision,
      wanted.reveal,
      wanted.longRunning,
    ],
  });
}

/** Ends the maps of types that are watched no longer, and begins those of new ones at the present version. */
async function storeWatches(queries: Queries, { name, watches }: Registration): Promise<void> {
  await queries.query({
    text: `with ended as (delete from syncsets.maps where controller = $1 and not type = any ($2::text[]))
      insert into syncsets.maps (controller, type, version)
      select $1, t.type, t.version from syncsets.types t where t.type = any ($2::text[])
      on conflict (controller, type) do nothing`,
    values: [name, watches],
  });
}

/** Drops the keys that are of another type than the controller's. Of what it was still to be given `resyncNext` makes no more. */
async function dropOtherTypes(queries: Queries, { name, type }: Registration): Promise<void> {
  await queries.query({
    text: `delete from syncsets.work where controller = $1 and $2 <> '*' and type <> $2`,
    values: [name, type],
  });
}

/** Waits for all changes of a controller's registration that are under way, until the commit. */
async function lockName(queries: Queries, name: string): Promise<void> {
  await queries.query({
    text: `select pg_advisory_xact_lock(hashtext('syncsets controller ' || $1))`,
    values: [name],
  });
}

/**
 * Locks the cursors of the types that a controller reconciles or watches, now or until now, until the commit: an event that a
 * relay passes before it can see a registration is one that the registration sees as an object, and no keys are enqueued for who
 * is registered no longer. Other types go on.
 */
async function lockCursors(queries: Queries, ...registrations: (Registration | undefined)[]): Promise<void> {
  const types = registrations.flatMap(one => (one ? [one.type, ...one.watches] : []));
  await queries.query({
    text: `select from syncsets.cursors where '*' = any ($1) or type = any ($1) order by type for update`,
    values: [types],
  });
  await queries.query({
    text: `update syncsets.cursors set registrations = registrations + 1 where '*' = any ($1) or type = any ($1)`,
    values: [types],
  });
}

/** Forgets a controller with all its work; false when there is none of that name. */
export async function deleteController(database: Database, name: string): Promise<boolean> {
  return insistOn(database, async queries => {
    await lockName(queries, name);
    await lockCursors(queries, await findController(queries, name));
    const rows = await queries.query({
      text: 'delete from syncsets.controllers where name = $1 returning 1',
      values: [name],
    });
    await queries.query({ text: 'delete from syncsets.work where controller = $1', values: [name] });
    if (rows.length > 0) {
      await queries.query({
        text: 'insert into syncsets.forgotten (controller) values ($1) on conflict do nothing',
        values: [name],
      });
    }
    return rows.length > 0;
  });
}

/** Controllers that were deleted and whose queue may still be on the broker; `settled` a minute after that. */
export async function forgottenControllers(database: Database): Promise<{ controller: string; settled: boolean }[]> {
  return database.query({
    text: `select controller, at < clock_timestamp() - interval '1 minute' as settled from syncsets.forgotten`,
  });
}

/** The queue of a deleted controller is gone for good. */
export async function queueRemoved(database: Database, controller: string): Promise<void> {
  await database.query({ text: 'delete from syncsets.forgotten where controller = $1', values: [controller] });
}

/** Notes which controllers have a live worker. */
export async function noteWorkers(database: Database): Promise<void> {
  await database.query({
    text: `update syncsets.controllers c set seen_at = clock_timestamp() where exists (
      select from syncsets.workers k where k.controller = c.name and k.expires_at > clock_timestamp())`,
  });
}

/**
 * Drops keys whose object is gone, of controllers that nobody has worked for in `days`, when the keys have waited as long.
 * The keys of objects that there are cannot be more than those; those of gone ones would gather for ever. Who comes back later
 * finds what is left, as with a watch older than the event log. Returns how many.
 */
export async function dropAbandonedWork(database: Database, days = 7): Promise<number> {
  const rows = await database.query({
    text: `delete from syncsets.work w using syncsets.controllers c
      where c.name = w.controller and c.seen_at < clock_timestamp() - make_interval(days => $1)
        and not exists (select from syncsets.workers k where k.controller = c.name)
        and w.state = 'queued' and w.queued_at < clock_timestamp() - make_interval(days => $1)
        -- '-' is no type: the key of a task has no object
        and w.type <> '-' and not exists (
          select from syncsets.objects o where o.type = w.type and o.namespace = w.namespace and o.name = w.name)
      returning 1`,
    values: [days],
  });
  return rows.length;
}

/** Keys are counted up to this many: a million of them would be read from disk for each scrape. */
const countedKeys = 100_000;

/**
 * Counts the keys of controllers, of all or of one, from indexes alone and each state up to `limit`. What a state has beyond
 * that is not counted. The oldest one is looked for among the next 1,000 of each priority: namespaces are served in turn and in
 * each the oldest key first, so the oldest of every namespace is among the next. What is not among them is a key that was queued long
 * ago and became more urgent just now.
 */
export async function summarizeWork(
  database: Database,
  { controller, limit = countedKeys }: { controller?: string; limit?: number } = {},
): Promise<Map<string, WorkSummary>> {
  const rows = await database.query<WorkSummary & { name: string }>({
    text: `select c.name,
        (select count(*) from (select from syncsets.work w where w.controller = c.name and w.state = 'queued' limit $2) q) as queued,
        (select count(*) from (select from syncsets.work w where w.controller = c.name and w.state = 'claimed' limit $2) q) as claimed,
        (select count(*) from (select from syncsets.work w where w.controller = c.name and w.state = 'waiting' limit $2) q) as waiting,
        (select count(*) from (select from syncsets.work w where w.controller = c.name and w.state = 'waiting'
          and w.last_error is not null and w.not_before < 'infinity' limit $2) q) as failing,
        (select count(*) from (select from syncsets.work w where w.controller = c.name and w.state = 'waiting'
          and w.not_before = 'infinity' limit $2) q) as parked,
        coalesce(extract(epoch from clock_timestamp() - (
          with recursive urgency (priority) as (
            (select w.priority from syncsets.work w where w.controller = c.name and w.state = 'queued' order by w.priority desc limit 1)
            union all
            select (select w.priority from syncsets.work w where w.controller = c.name and w.state = 'queued'
              and w.priority < u.priority order by w.priority desc limit 1) from urgency u where u.priority is not null
          )
          select min(n.queued_at) from urgency u cross join lateral (
            select w.queued_at from syncsets.work w where w.controller = c.name and w.state = 'queued' and w.priority = u.priority
            order by w.rank limit 1000) n)), 0)::double precision as "oldestSeconds",
        (select count(*) from syncsets.workers k where k.controller = c.name and k.expires_at > clock_timestamp()) as workers,
        syncsets.rfc3339(c.seen_at) as "seenAt",
        (select coalesce(jsonb_agg(jsonb_build_object('type', m.type, 'behind', greatest(t.version - m.version, 0),
            'attempts', m.attempts, 'lastError', m.last_error,
            'notBefore', case when m.not_before > clock_timestamp() then syncsets.rfc3339(m.not_before) end) order by m.type), '[]')
          from syncsets.maps m join syncsets.types t on t.type = m.type where m.controller = c.name) as maps,
        array(select r.type from syncsets.resyncs r where r.controller = c.name order by r.type) as resyncing
      from syncsets.controllers c where $1::text is null or c.name = $1`,
    values: [controller ?? null, limit],
  });
  return new Map(rows.map(({ name, ...summary }) => [name, summary]));
}

function same(a: Registration, b: Registration): boolean {
  const comparable = ({ revision: _, ...rest }: Registration) =>
    JSON.stringify([
      rest.type,
      rest.claimSeconds,
      rest.longRunning,
      ...[rest.interests, rest.watches, rest.reveal].map(list => [...list].sort()),
    ]);
  return comparable(a) === comparable(b);
}
