import pg from 'pg';
import type { Violations } from './violations.js';

/** What the tables of a kind take at a moment: bytes of heap and indexes, and rows as Postgres counts them. */
export interface Size {
  /** `events` stands for all partitions of the log together, others for the tables of that name. */
  table: string;
  heap: number;
  indexes: number;
  live: number;
  dead: number;
  /** At so many dead rows vacuum comes at its next visit, by the settings of the table. */
  due: number;
}

/** One look: the sizes by table. */
export type Look = Map<string, Size>;

/** How much bigger than in the middle third of a run a table may end. What grows evenly from nothing ends 1.5 times as big. */
const growth = 1.25;
/** The log is cut by whole partitions: so many times its size are left. */
const uncut = 1.5;
/** Answers to requests with an Idempotency-Key are kept for a day: they grow all the while. */
const growing = new Set(['answers']);

/**
 * Compares the most that a table took in the last third of the looks with the most in the third before. The log fills up to its
 * size first, so it is held to that, to half as much again, and to what is written between three looks: it is cut as often as there
 * is one, by whole partitions, and not the one that is being written. Dead rows are held to twice what vacuum comes for and what is
 * written between two of its visits.
 *
 * @param bounds.logMax bytes of all logs together
 * @param bounds.slack bytes that any table may grow by
 * @param bounds.written how many writes were answered at each look
 */
export function judge(
  looks: Look[],
  { logMax, slack, written }: { logMax: number; slack: number; written: number[] },
  violations: Violations,
): void {
  const third = Math.floor(looks.length / 3);
  if (third === 0) return;
  const writes = Math.max(...written.map((count, at) => count - (written[at - 1] ?? 0)));
  for (const table of looks.at(-1)?.keys() ?? []) {
    if (growing.has(table)) continue;
    const most = (from: number, until: number, part: 'heap' | 'indexes' | 'dead' | 'due') =>
      Math.max(...looks.slice(from, until).map(look => look.get(table)?.[part] ?? 0));
    for (const part of ['heap', 'indexes'] as const) {
      const [before, after] = [most(third, 2 * third, part), most(looks.length - third, looks.length, part)];
      const bound =
        slack + (table === 'events' ? logMax * uncut + 2 * writes * rowSize(looks, table, part) : before * growth);
      if (after > bound)
        violations.report('grows', `${part} of ${table} grew from ${megabytes(before)} to ${megabytes(after)} MB`);
    }
    const [dead, due] = [most(third, looks.length, 'dead'), most(third, looks.length, 'due')];
    if (dead > 2 * due + writes)
      violations.report('vacuum is behind', `${table} has ${dead} dead rows, and vacuum is due at ${Math.round(due)}`);
  }
}

/** Bytes of a row of a table, by the last look. */
function rowSize(looks: Look[], table: string, part: 'heap' | 'indexes'): number {
  const size = looks.at(-1)?.get(table);
  return size === undefined ? 0 : size[part] / Math.max(1, size.live);
}

/** The sizes of all tables of more than 100 KB, and of the catalogues, which tables that come and go leave their rows in. */
export async function measure(database: pg.Client): Promise<Look> {
  const { rows } = await database.query<Record<Exclude<keyof Size, 'table'>, string> & { table: string }>(`
    select case when s.relname like 'events\\_%' then 'events' else s.relname end as "table",
      sum(pg_table_size(s.relid)) as heap, sum(pg_indexes_size(s.relid)) as indexes,
      sum(s.n_live_tup) as live, sum(s.n_dead_tup) as dead, sum(v.threshold + v.factor * s.n_live_tup) as due
    from pg_stat_all_tables s join pg_class c on c.oid = s.relid
    cross join lateral (
      select coalesce(max(option_value::float) filter (where option_name = 'autovacuum_vacuum_threshold'),
          current_setting('autovacuum_vacuum_threshold')::float) as threshold,
        coalesce(max(option_value::float) filter (where option_name = 'autovacuum_vacuum_scale_factor'),
          current_setting('autovacuum_vacuum_scale_factor')::float) as factor
      from pg_options_to_table(c.reloptions) where option_name like 'autovacuum\\_vacuum\\_%'
    ) v
    where s.schemaname in ('public', 'syncsets')
      or s.relid in ('pg_class'::regclass, 'pg_attribute'::regclass, 'pg_depend'::regclass, 'pg_index'::regclass)
    group by 1 having sum(pg_total_relation_size(s.relid)) > 100000 order by 1`);
  return new Map(
    rows.map(({ table, heap, indexes, live, dead, due }) => [
      table,
      {
        table,
        heap: Number(heap),
        indexes: Number(indexes),
        live: Number(live),
        dead: Number(dead),
        due: Number(due),
      },
    ]),
  );
}

/** One line of a look. */
export function show(look: Look): string {
  return [...look.values()]
    .map(
      ({ table, heap, indexes, live, dead }) =>
        `${table} ${megabytes(heap)}+${megabytes(indexes)} MB, ${live} rows, ${dead} dead`,
    )
    .join('; ');
}

const megabytes = (bytes: number) => (bytes / 2 ** 20).toFixed(1);
