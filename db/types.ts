import pg from 'pg';
import type { Database, Log } from './database.js';
import { makeEventPartitions } from './event-partitions.js';
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
        // Room in each page, so that most updates find place beside the former row and leave the indexes alone.
        await queries.query({
          text: `create table ${objects} (like syncsets.objects including all) with (fillfactor = 80)`,
        });
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
