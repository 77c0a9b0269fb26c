import pg from 'pg';
import { setTimeout as sleep } from 'node:timers/promises';
import { Fleet } from './fleet.js';
import { Random } from './random.js';
import { types, type Scale } from './scale.js';
import { Violations } from './violations.js';
import { Writers } from './writers.js';

/** What the tables of a kind take at a moment. */
interface Size {
  /** `events` stands for all partitions of the log together, others for the tables of that name. */
  table: string;
  heap: number;
  indexes: number;
  live: number;
  dead: number;
}

export interface Churn {
  violations: Violations;
  answered: number;
  /** Sizes at each look, the first when the log had reached its size. */
  looks: Map<string, Size>[];
}

/**
 * A day's churn in little: writes without end over the same objects, with workers, while the event log may hold so little that it
 * is replaced again and again, as it is each day at 200 writes a second. All sizes have to stay where they were at the half.
 *
 * @param minutes how long; housekeeping and autovacuum come once a minute, so five are the least that shows anything
 */
export async function churn(
  scale: Scale,
  { minutes, eventLogMax }: { minutes: number; eventLogMax: string },
  say: (text: string) => void,
): Promise<Churn> {
  const violations = new Violations();
  const fleet = await Fleet.start(scale, violations, { EVENT_LOG_MAX: eventLogMax });
  const database = new pg.Client({ connectionString: fleet.databaseUrl });
  const looks: Map<string, Size>[] = [];
  try {
    await database.connect();
    const writers = new Writers({
      scale,
      url: fleet.doors[0],
      prefix: 'o',
      random: new Random(scale.seed),
      violations,
    });
    const writing = writers.run();
    for (let minute = 1; minute <= minutes; minute++) {
      await sleep(60_000);
      const sizes = await measure(database);
      looks.push(sizes);
      const shown = [...sizes.values()].map(
        ({ table, heap, indexes, live, dead }) =>
          `${table} ${megabytes(heap)}+${megabytes(indexes)} MB, ${live} rows, ${dead} dead`,
      );
      say(`${violations.time()} ${writers.answered.length} writes; ${shown.join('; ')}`);
    }
    writers.stop();
    await writing;
    judge(looks, bytesOf(eventLogMax) * types.length, violations);
    return { violations, answered: writers.answered.length, looks };
  } finally {
    await database.end();
    await fleet.stop();
  }
}

/** Bytes of a size as EVENT_LOG_MAX has it. */
const bytesOf = (size: string) =>
  parseInt(size, 10) * (size.endsWith('GiB') ? 2 ** 30 : size.endsWith('MiB') ? 2 ** 20 : 1);

/** How much bigger than in the middle of the run a table may end; the log is cut once a minute, so it goes up and down. */
const growth = { heap: 1.5, indexes: 1.5, slack: 8 * 2 ** 20 };

/**
 * Compares the most that a table took in the last third with the most in the third before. The log fills up to its size first, so
 * it is held to that, and to half as much again for what is written between two cuts.
 */
function judge(looks: Map<string, Size>[], logMax: number, violations: Violations): void {
  const third = Math.floor(looks.length / 3);
  if (third === 0) return;
  const most = (from: number, until: number, table: string, part: 'heap' | 'indexes') =>
    Math.max(...looks.slice(from, until).map(look => look.get(table)?.[part] ?? 0));
  for (const table of looks.at(-1)?.keys() ?? []) {
    for (const part of ['heap', 'indexes'] as const) {
      const before = most(third, 2 * third, table, part);
      const after = most(looks.length - third, looks.length, table, part);
      const bound = table === 'events' ? logMax * growth[part] : before * growth[part] + growth.slack;
      if (after > bound) {
        const what = `${part} of ${table} grew from ${megabytes(before)} to ${megabytes(after)} MB`;
        violations.report('grows', what);
      }
    }
  }
}

async function measure(database: pg.Client): Promise<Map<string, Size>> {
  const { rows } = await database.query<Record<'heap' | 'indexes' | 'live' | 'dead', string> & { table: string }>(`
    select case when s.relname like 'events\\_%' then 'events' else s.relname end as "table",
      sum(pg_table_size(s.relid)) as heap, sum(pg_indexes_size(s.relid)) as indexes,
      sum(s.n_live_tup) as live, sum(s.n_dead_tup) as dead
    from pg_stat_user_tables s where s.schemaname in ('public', 'syncsets')
    group by 1 having sum(pg_total_relation_size(s.relid)) > 1000000 order by 1`);
  return new Map(
    rows.map(({ table, heap, indexes, live, dead }) => [
      table,
      { table, heap: Number(heap), indexes: Number(indexes), live: Number(live), dead: Number(dead) },
    ]),
  );
}

const megabytes = (bytes: number) => (bytes / 2 ** 20).toFixed(1);
