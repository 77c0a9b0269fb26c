import { fileURLToPath } from 'node:url';
import { runner } from 'node-pg-migrate';
import pg, { type ClientConfig } from 'pg';
import type { Log } from './database.js';

/**
 * Brings the database to the newest schema. Several processes may call it at once: one migrates, the others wait for it
 * (a session-level advisory lock: a direct connection is needed, not a transaction-pooling proxy).
 */
export async function migrate(connection: ClientConfig, log: Log): Promise<void> {
  const client = new pg.Client({ ...connection, connectionTimeoutMillis: 5_000 });
  // A connection that is lost fails the statement under way; the event besides would end the process.
  client.on('error', error => log('warn', 'database connection lost', { reason: error.message }));
  await client.connect();
  try {
    const done = await runner({
      dbClient: client,
      dir: fileURLToPath(new URL('./migrations', import.meta.url)),
      direction: 'up',
      schema: 'syncsets',
      createSchema: true,
      migrationsTable: 'migrations',
      advisoryLockMode: 'wait',
      log: message => log('debug', 'migration', { message }),
    });
    if (done.length > 0) log('info', 'database migrated', { migrations: done.map(one => one.name) });
  } finally {
    await client.end();
  }
}
