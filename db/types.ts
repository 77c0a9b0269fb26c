import pg from 'pg';
import type { Database, Log, Queries } from './database.js';
import { ensureRules, type TypeRule } from './rules.js';

/** What the database must know of a type. */
export interface TypeTable {
  /** The plural, lower case name: route, partition and event exchange are named after it. */
  type: string;
  namespaced: boolean;
  /** How long its events are kept at least, as a Postgres interval. Default 24 hours. */
  keepEvents?: string;
  rules?: TypeRule[];
}

/** Event partitions are made this far ahead, so that a platform that was suspended for hours still finds one. */
const hoursAhead = 6;

/**
 * Makes what a type needs: its partition of `objects` in the schema public, its event log, counter and cursors. Safe to call
 * from several processes at once; existing types are left as they are, but for `keepEvents` and their rules.
 */
export async function ensureTypes(database: Database, types: TypeTable[], log: Log = () => undefined): Promise<void> {
  await database.transaction(async queries => {
    await queries.query({ text: `select pg_advisory_xact_lock(hashtext('syncsets types'))` });
    for (const { type, namespaced, keepEvents = '24 hours' } of types) {
      const objects = `public.${pg.escapeIdentifier(type)}`;
      const events = `syncsets.${pg.escapeIdentifier(`events_${type}`)}`;
      const known = await queries.query<{ namespaced: boolean }>({
        text: 'select namespaced from syncsets.types where type = $1',
        values: [type],
      });
      if (!known[0]) {
        // Made beside the parent and then attached: attaching waits for nobody, `partition of` would lock out all writers.
        await queries.query({ text: `create table ${objects} (like syncsets.objects including all)` });
        await queries.query({
          text: `alter table syncsets.objects attach partition ${objects} for values in (${pg.escapeLiteral(type)})`,
        });
        await queries.query({
          text: `create table ${events} (like syncsets.events including defaults including constraints) partition by range (at)`,
        });
        await queries.query({ text: `alter table ${events} add primary key (type, version, at)` });
        await queries.query({
          text: `alter table syncsets.events attach partition ${events} for values in (${pg.escapeLiteral(type)})`,
        });
        await queries.query({
          text: 'insert into syncsets.types (type, namespaced, keep_events) values ($1, $2, $3::interval)',
          values: [type, namespaced, keepEvents],
        });
        await queries.query({ text: 'insert into syncsets.cursors (type) values ($1)', values: [type] });
      } else if (known[0].namespaced !== namespaced) {
        throw new Error(
          `type ${type} is stored as ${known[0].namespaced ? 'namespaced' : 'cluster-wide'}; a type cannot change its scope`,
        );
      }
      await queries.query({
        text: 'update syncsets.types set keep_events = $2::interval where type = $1 and keep_events <> $2::interval',
        values: [type, keepEvents],
      });
      await makeEventPartitions(queries, type);
    }
  });
  await ensureRules(database, types, log);
}

/** Makes the hourly event partitions of a type up to some hours ahead, in a transaction of the caller's. */
export async function makeEventPartitions(queries: Queries, type: string): Promise<void> {
  await queries.query({ text: `select pg_advisory_xact_lock(hashtext('syncsets types'))` });
  const missing = await queries.query<{ suffix: string; since: string; until: string }>({
    text: `select to_char(hour at time zone 'utc', 'YYYYMMDDHH24') as suffix, hour::text as since, (hour + interval '1 hour')::text as until
      from generate_series(date_trunc('hour', clock_timestamp(), 'utc'),
        clock_timestamp() + make_interval(hours => $2), interval '1 hour') hour
      where to_regclass(format('syncsets.%I', 'events_' || $1 || '_' || to_char(hour at time zone 'utc', 'YYYYMMDDHH24'))) is null`,
    values: [type, hoursAhead],
  });
  for (const { suffix, since, until } of missing) {
    const parent = `syncsets.${pg.escapeIdentifier(`events_${type}`)}`;
    const hour = `syncsets.${pg.escapeIdentifier(`events_${type}_${suffix}`)}`;
    await queries.query({ text: `create table ${hour} (like ${parent} including all)` });
    await queries.query({
      text: `alter table ${parent} attach partition ${hour} for values from (${pg.escapeLiteral(since)}) to (${pg.escapeLiteral(until)})`,
    });
  }
}

/** How many events of a type are kept beyond its keeping time, and for how long at most. */
const keptBeyond = { events: 100_000, interval: '7 days' };

/**
 * Makes event partitions ahead and drops those that nobody may ask for any more: older than the type's keeping time and
 * beyond its last 100,000 events (7 days at most), or beyond `maxBytes` in any case. One process at a time does it.
 * Returns the names of the dropped partitions.
 */
export async function maintainEventLog(database: Database, types: string[], maxBytes: number): Promise<string[]> {
  return database.transaction(async queries => {
    const dropped: string[] = [];
    const [lock] = await queries.query<{ mine: boolean }>({
      text: `select pg_try_advisory_xact_lock(hashtext('syncsets types')) as mine`,
    });
    if (!lock?.mine) return dropped;
    // Dropping waits for readers, and whoever comes next waits for it: rather try again in a minute.
    await queries.query({ text: `set local lock_timeout = '2s'` });
    for (const type of types) {
      await makeEventPartitions(queries, type);
      const hours = await queries.query<{ partition: string; bytes: number; expired: boolean; ancient: boolean }>({
        text: `with hours as (
            select c.relname as partition, pg_total_relation_size(c.oid) as bytes,
              to_timestamp(right(c.relname, 10) || '+00', 'YYYYMMDDHH24TZH') + interval '1 hour' as until
            from pg_inherits i join pg_class c on c.oid = i.inhrelid
            where i.inhparent = format('syncsets.%I', 'events_' || $1)::regclass
          )
          select h.partition, h.bytes, h.until < clock_timestamp() - t.keep_events as expired,
            h.until < clock_timestamp() - $2::interval as ancient
          from hours h join syncsets.types t on t.type = $1 where h.until <= clock_timestamp() order by h.partition`,
        values: [type, keptBeyond.interval],
      });
      let bytes = hours.reduce((sum, hour) => sum + hour.bytes, 0);
      for (const hour of hours) {
        const partition = `syncsets.${pg.escapeIdentifier(hour.partition)}`;
        const [last] = await queries.query<{ version: number | null; head: number }>({
          text: `select (select max(version) from ${partition}) as version, version as head from syncsets.types where type = $1`,
          values: [type],
        });
        const surplus = last !== undefined && (last.version === null || last.head - last.version >= keptBeyond.events);
        if (!(hour.ancient || (hour.expired && surplus) || bytes > maxBytes)) break;
        bytes -= hour.bytes;
        if (last?.version != null) {
          await queries.query({
            text: 'update syncsets.types set log_start = greatest(log_start, $2) where type = $1',
            values: [type, last.version],
          });
        }
        await queries.query({ text: `drop table ${partition}` });
        dropped.push(hour.partition);
      }
    }
    return dropped;
  });
}
