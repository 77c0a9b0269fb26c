import pg from 'pg';
import { isDatabaseAway, sqlState } from '../database.js';
import { DATABASE, urlOf } from './files.js';

// Any two numbers: nothing else takes advisory locks in the database `postgres` of the embedded server.
const LOCK = [1_937_337_955, 1];

interface Taken {
  state: 'taken';
  session: pg.Client;
}

interface Silent {
  /** away: nobody answers at this port, or a server that is starting or stopping. refused: it knows another password. */
  state: 'away' | 'refused';
}

/** With `held` another platform has it, and `holder` says which process. */
export type Lock = Taken | Silent | { state: 'held'; holder: string };

/**
 * Takes the lock that says "this platform runs this server": a session's advisory lock, which Postgres releases when the
 * session ends, however its process died. No pid is compared, so no reused pid can be taken for a platform.
 *
 * The session stays open as long as the lock is wanted; when it is lost it emits `end`.
 */
export async function takeLock(port: number, password: string): Promise<Lock> {
  return withSession(port, password, async session => {
    const taken = await session.query<{ taken: boolean }>('select pg_try_advisory_lock($1, $2) as taken', LOCK);
    if (taken.rows[0]?.taken) return { state: 'taken', session };
    const holder = await holderOf(session);
    await session.end();
    return { state: 'held', holder };
  });
}

/** Looks whether a platform holds the lock, without taking it: `free` when the server runs for nobody, `away` until its database is made. */
export async function readLock(port: number, password: string): Promise<Exclude<Lock, Taken> | { state: 'free' }> {
  return withSession(port, password, async session => {
    const holder = await holderOf(session);
    const complete = await session.query('select from pg_database where datname = $1', [DATABASE]);
    await session.end();
    if (holder && complete.rowCount === 0) return { state: 'away' };
    return holder ? { state: 'held', holder } : { state: 'free' };
  });
}

async function withSession<T>(
  port: number,
  password: string,
  work: (session: pg.Client) => Promise<T>,
): Promise<T | Silent> {
  const session = new pg.Client({
    connectionString: urlOf(port, password, 'postgres'),
    application_name: `process ${process.pid}`,
    connectionTimeoutMillis: 5_000,
  });
  // Told by 'end', which follows; an error event without a listener would end the process.
  session.on('error', () => undefined);
  try {
    await session.connect();
    return await work(session);
  } catch (error) {
    await session.end().catch(() => undefined);
    if (sqlState(error) === '28P01') return { state: 'refused' };
    if (isDatabaseAway(error)) return { state: 'away' };
    throw error;
  }
}

async function holderOf(session: pg.Client): Promise<string> {
  const found = await session.query<{ holder: string }>(
    `select coalesce(nullif(application_name, ''), 'a session without a name') as holder
       from pg_locks join pg_stat_activity using (pid)
      where locktype = 'advisory' and granted and classid = $1 and objid = $2
        and pg_locks.database = (select oid from pg_database where datname = current_database())`,
    LOCK,
  );
  return found.rows[0]?.holder ?? '';
}
