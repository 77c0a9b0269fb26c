import pg from 'pg';
import { sqlState, type Database, type Queries } from './database.js';

/** Event partitions are made this far ahead, so that a platform that was suspended for hours still finds one. */
const hoursAhead = 6;
/** How many events of a type are kept beyond its keeping time, and for how long at most. */
const keptBeyond = { events: 100_000, interval: '7 days' };
/**
 * The newest partition is cut when it holds this part of what the log may hold, so that size is dropped in such pieces; at most so
 * many bytes: all of them are read within the seconds that it is cut ahead, after which writers would wait for that.
 */
const largestPart = { share: 1 / 8, bytes: 2 ** 30 };
/** A partition is cut this many seconds ahead: until then its rows are looked through, while others are written. */
const cutAhead = 30;
/** Says of a partition that is about to be cut that its rows lie before the cut. */
export const cutConstraint = 'events_cut';

const hour = 3_600;

/** How large the log of a type is. */
export interface EventLogSize {
  type: string;
  /** Events that can be read. */
  events: number;
  /** On disk, indexes included. */
  bytes: number;
  partitions: number;
  /** How long ago the oldest partition began, in seconds; null: there is none. */
  seconds: number | null;
  /** How long its events are kept, in seconds. */
  keepSeconds: number;
  /** Events that the relay has yet to make work of, and to publish; what the log has lost is not published any more. */
  workLag: number;
  publishLag: number;
}

interface Partition {
  name: string;
  bytes: number;
  /** Its bounds, in seconds since 1970. */
  since: number;
  until: number;
  /** Where it is by the given clock: nothing is written into it any more, longer ago than events are kept. */
  past: boolean;
  expired: boolean;
  ancient: boolean;
  /** For so many seconds it will be written into, by the database's own clock. */
  left: number;
  isBeingCut: boolean;
}

/**
 * Makes the hourly event partitions of a type from this hour up to some hours ahead, in a transaction of the caller's. Who
 * finds no place for an event calls it too.
 */
export async function makeEventPartitions(queries: Queries, type: string, now?: Date): Promise<void> {
  await queries.query({ text: `select pg_advisory_xact_lock(hashtext('syncsets types'))` });
  const partitions = await partitionsOf(queries, type);
  const [clock] = await queries.query<{ now: number }>({
    text: 'select extract(epoch from coalesce($1::timestamptz, clock_timestamp()))::double precision as now',
    values: [now ?? null],
  });
  if (!clock) throw new Error('the database has no clock');
  for (let start = clock.now - (clock.now % hour); start <= clock.now + hoursAhead * hour; start += hour) {
    for (const [since, until] of uncovered(start, start + hour, partitions)) await attach(queries, type, since, until);
  }
  // A process that was killed while it cut left this; the partition would refuse what comes after the cut.
  for (const { name, isBeingCut } of partitions) {
    if (!isBeingCut) continue;
    await queries.query({
      text: `alter table syncsets.${pg.escapeIdentifier(name)} drop constraint if exists ${cutConstraint}`,
    });
  }
}

/**
 * Makes event partitions ahead and drops those that nobody may ask for any more: older than the type's keeping time and
 * beyond its last 100,000 events (7 days at most), or beyond `maxBytes` in any case. One process at a time does it, each
 * step in a transaction of its own, which gives up when it would have to wait for readers: everybody else would wait for it.
 * Returns the names of the dropped partitions.
 *
 * @param options.now the time that it is, for those who simulate days; else the database's
 */
export async function maintainEventLog(
  database: Database,
  types: string[],
  options: { maxBytes: number; now?: Date },
): Promise<string[]> {
  const dropped: string[] = [];
  for (const type of types) {
    await alone(database, queries => makeEventPartitions(queries, type, options.now));
    await cutLargest(database, type, options.maxBytes);
    for (;;) {
      const name = await alone(database, queries => dropOldest(queries, type, options));
      if (name === undefined) break;
      dropped.push(name);
    }
  }
  return dropped;
}

/** The logs of all types, and how far the relay is behind them. */
export async function measureEventLog(database: Database): Promise<EventLogSize[]> {
  return database.query<EventLogSize>({
    name: 'measure-event-log',
    text: `select t.type, t.version - t.log_start as events, coalesce(p.bytes, 0)::bigint as bytes, p.partitions,
        extract(epoch from clock_timestamp() - p.since)::double precision as seconds,
        extract(epoch from t.keep_events)::double precision as "keepSeconds",
        t.version - c.work as "workLag", t.version - greatest(c.published, t.log_start) as "publishLag"
      from syncsets.types t join syncsets.cursors c using (type)
      cross join lateral (
        select count(*)::integer as partitions, sum(pg_total_relation_size(i.inhrelid)) as bytes,
          min(substring(pg_get_expr(k.relpartbound, k.oid) from 'FROM \\(''([^'']+)''\\)')::timestamptz) as since
        from pg_inherits i join pg_class k on k.oid = i.inhrelid
        where i.inhparent = to_regclass(format('syncsets.%I', 'events_' || t.type))
      ) p`,
  });
}

async function partitionsOf(queries: Queries, type: string, now?: Date): Promise<Partition[]> {
  return queries.query<Partition>({
    text: `with known as (
        select c.oid, c.relname as name, pg_total_relation_size(c.oid) as bytes, b.bound[1]::timestamptz as since, b.bound[2]::timestamptz as until
        from pg_inherits i join pg_class c on c.oid = i.inhrelid
        cross join regexp_match(pg_get_expr(c.relpartbound, c.oid), 'FROM \\(''([^'']+)''\\) TO \\(''([^'']+)''\\)') as b(bound)
        where i.inhparent = format('syncsets.%I', 'events_' || $1)::regclass
      )
      select k.name, k.bytes, extract(epoch from k.since)::double precision as since,
        extract(epoch from k.until)::double precision as until, k.until <= n.now as past,
        k.until < n.now - t.keep_events as expired, k.until < n.now - greatest(t.keep_events, $2::interval) as ancient,
        extract(epoch from k.until - clock_timestamp())::double precision as left,
        exists (select from pg_constraint c where c.conrelid = k.oid and c.conname = '${cutConstraint}') as "isBeingCut"
      from known k join syncsets.types t on t.type = $1
      cross join (select coalesce($3, clock_timestamp()) as now) n order by k.since`,
    values: [type, keptBeyond.interval, now ?? null],
  });
}

/** Drops the oldest partition of a type if it may go; returns its name. */
async function dropOldest(
  queries: Queries,
  type: string,
  { maxBytes, now }: { maxBytes: number; now?: Date },
): Promise<string | undefined> {
  const partitions = await partitionsOf(queries, type, now);
  const [oldest] = partitions;
  if (!oldest?.past) return undefined;
  const table = `syncsets.${pg.escapeIdentifier(oldest.name)}`;
  const [last] = await queries.query<{ version: number | null; head: number }>({
    // With the type, though the partition has no other: the index begins with it, and without it all rows are looked at.
    text: `select (select max(version) from ${table} where type = $1) as version, version as head from syncsets.types
      where type = $1`,
    values: [type],
  });
  const surplus = last !== undefined && (last.version === null || last.head - last.version >= keptBeyond.events);
  const bytes = partitions.reduce((sum, one) => sum + one.bytes, 0);
  if (!(oldest.ancient || (oldest.expired && surplus) || bytes > maxBytes)) return undefined;
  if (last?.version != null) {
    await queries.query({
      text: 'update syncsets.types set log_start = greatest(log_start, $2) where type = $1',
      values: [type, last.version],
    });
  }
  await queries.query({ text: `drop table ${table}` });
  return oldest.name;
}

/**
 * Cuts the partition that is being written a little ahead, when it alone holds too much of what the log may hold: 5,000
 * writes a second are 30 GB in an hour. What is in it is shown to lie before the cut while writing goes on, so that the
 * exchange reads nothing and takes some ms; without that it looked through all rows with all writers waiting.
 */
async function cutLargest(database: Database, type: string, maxBytes: number): Promise<void> {
  const current = (await partitionsOf(database, type)).find(({ left }) => left > 0);
  const most = Math.min(maxBytes * largestPart.share, largestPart.bytes);
  if (!current || current.bytes < most || current.left < 2 * cutAhead) return;
  const table = `syncsets.${pg.escapeIdentifier(current.name)}`;
  const parent = `syncsets.${pg.escapeIdentifier(`events_${type}`)}`;
  const [cut] = await database.query<{ at: number }>({
    text: 'select ceil(extract(epoch from clock_timestamp()) + $1)::double precision as at',
    values: [cutAhead],
  });
  if (!cut) return;
  const [since, at] = [current.since, cut.at].map(bound);
  // As Postgres states what a partition holds: it compares the two, and does not think long.
  const within = `type is not null and type = ${pg.escapeLiteral(type)} and at is not null and at >= '${since}' and at < '${at}'`;
  const begun = await alone(database, async queries => {
    await queries.query({ text: `alter table ${table} add constraint ${cutConstraint} check (${within}) not valid` });
    return true;
  });
  if (!begun) return;
  try {
    await database.query({ text: `alter table ${table} validate constraint ${cutConstraint}` });
    await alone(database, async queries => {
      const [time] = await queries.query<{ early: boolean }>({
        text: `select clock_timestamp() < $1::timestamptz - interval '5 seconds' as early`,
        values: [at],
      });
      if (!time?.early) return;
      // The counter first, as every write does: a writer that waited for the table would hold it.
      await queries.query({ text: 'select from syncsets.types where type = $1 for update', values: [type] });
      await queries.query({ text: `alter table ${parent} detach partition ${table}` });
      await queries.query({
        text: `alter table ${parent} attach partition ${table} for values from ('${since}') to ('${at}')`,
      });
      await attach(queries, type, cut.at, current.until);
    });
  } finally {
    // Takes the constraint away, unless it would have to wait for readers: a backup, say, with all writers waiting behind it. Then
    // the next look does, or the first writer whom it is in the way of.
    await alone(database, queries => makeEventPartitions(queries, type));
  }
}

async function attach(queries: Queries, type: string, since: number, until: number): Promise<void> {
  const parent = `syncsets.${pg.escapeIdentifier(`events_${type}`)}`;
  // Named after its hour; one that begins later in it, after that moment.
  const suffix = bound(since)
    .replace(/[-:TZ]|\.000/g, '')
    .replace(/0000$/, '');
  const table = `syncsets.${pg.escapeIdentifier(`events_${type}_${suffix}`)}`;
  await queries.query({ text: `create table ${table} (like ${parent} including all)` });
  await queries.query({
    text: `alter table ${parent} attach partition ${table} for values from ('${bound(since)}') to ('${bound(until)}')`,
  });
}

/** A moment as a bound of a partition; bounds are whole seconds. */
function bound(seconds: number): string {
  return new Date(Math.round(seconds) * 1_000).toISOString();
}

/** The stretches of a time that no partition holds. */
function uncovered(since: number, until: number, partitions: Partition[]): [number, number][] {
  const gaps: [number, number][] = [];
  let from = since;
  for (const one of partitions) {
    if (one.until <= from || one.since >= until) continue;
    if (one.since > from) gaps.push([from, one.since]);
    from = one.until;
  }
  if (from < until) gaps.push([from, until]);
  return gaps;
}

/**
 * Runs a step while no other process changes partitions. It waits 300 ms at most for locks that others hold, and is undone
 * when this process is frozen in the middle. Undefined: it has to wait for its next turn.
 */
async function alone<T>(database: Database, step: (queries: Queries) => Promise<T>): Promise<T | undefined> {
  try {
    return await database.transaction(async queries => {
      const [lock] = await queries.query<{ mine: boolean }>({
        text: `select pg_try_advisory_xact_lock(hashtext('syncsets types')) as mine,
          set_config('lock_timeout', '300ms', true), set_config('idle_in_transaction_session_timeout', '2s', true)`,
      });
      return lock?.mine ? await step(queries) : undefined;
    });
  } catch (error) {
    if (sqlState(error) === lockNotAvailable) return undefined;
    throw error;
  }
}

const lockNotAvailable = '55P03';
