import type { Queries } from '../db/database.js';

/** Rows and index entries that this session has looked at since it last told the statistics, and blocks. */
export async function touched(queries: Queries): Promise<{ rows: number; blocks: number }> {
  const [sum] = await queries.query<{ rows: number; blocks: number }>({
    text: `select sum(pg_stat_get_xact_tuples_returned(c.oid))::integer as rows,
        sum(pg_stat_get_xact_blocks_fetched(c.oid))::integer as blocks
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
      where n.nspname in ('syncsets', 'public') and c.relkind in ('r', 'i')`,
  });
  return sum ?? { rows: 0, blocks: 0 };
}
