import type { Database } from '../db/index.js';

/**
 * How many statements of this database wait for a lock now, of those that hold a text. Ask on another connection than the one that
 * holds the lock: a transaction sees the activity of its first look.
 */
export async function lockWaits(database: Database, text = ''): Promise<number> {
  const waiting = await database.query({
    text: `select from pg_stat_activity
      where datname = current_database() and wait_event_type = 'Lock' and strpos(query, $1) > 0`,
    values: [text],
  });
  return waiting.length;
}
