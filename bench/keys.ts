import { Database } from '../db/index.js';

/** Queues so many keys of gone clusters for a controller, 50,000 with a statement, at a change's priority by a controller (0). */
export async function queueKeys(databaseUrl: string, controller: string, count: number): Promise<void> {
  const database = new Database({ connection: { connectionString: databaseUrl }, log: () => undefined });
  try {
    for (let from = 1; from <= count; from += 50_000) {
      await database.query({
        text: `select syncsets.enqueue(array(select row($1, 'clusters', 'crowd', 'k' || n, null, null, 0, 'resync')::syncsets.key
          from generate_series($2::integer, $3::integer) n))`,
        values: [controller, from, Math.min(count, from + 49_999)],
      });
    }
    await database.query({ text: 'analyze syncsets.work' });
  } finally {
    await database.stop();
  }
}
