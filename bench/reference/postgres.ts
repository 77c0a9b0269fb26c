import pg from 'pg';
import { now, percentiles } from '../clock.js';
import type { InsertJob, NotifyJob, Throughput } from '../load.js';
import { inParallel, pace } from '../loops.js';
import type { Figure } from '../program.js';

/** What plain programs do with Postgres, by `pg` and one statement at a time. */

/** Inserts objects one by one over ten connections, as many as an API process has, into a table with an index on labels. */
export async function insertRows({ databaseUrl, body, inFlight, ...job }: InsertJob): Promise<Throughput> {
  const pool = new pg.Pool({ connectionString: databaseUrl, max: 10 });
  try {
    await pool.query('drop table if exists plain_objects');
    await pool.query(`create table plain_objects (
      namespace text not null, name text not null, object jsonb not null, primary key (namespace, name))`);
    await pool.query(`create index on plain_objects using gin ((object->'labels') jsonb_path_ops)`);
    const text = 'insert into plain_objects (namespace, name, object) values ($1, $2, $3)';
    let count = 0;
    return await inParallel({ ...job, clients: inFlight }, () => {
      const name = `plain-${count++}`;
      return pool.query({ name: 'insert', text, values: ['bench', name, body.replace('{name}', name)] });
    });
  } finally {
    await pool.end();
  }
}

/** From just before a notification is sent to its arrival at another connection. */
export async function notifyRoundTrips({ databaseUrl, rate, seconds }: NotifyJob): Promise<Required<Figure>> {
  const sender = new pg.Pool({ connectionString: databaseUrl, max: 4 });
  const listener = new pg.Client(databaseUrl);
  await listener.connect();
  const waits: number[] = [];
  const sends: Promise<unknown>[] = [];
  try {
    const last = Math.floor(rate * seconds) - 1;
    const done = new Promise<void>(resolve => {
      listener.on('notification', ({ payload = '' }) => {
        const [turn, sent] = payload.split(' ').map(Number);
        waits.push(now() - (sent ?? NaN));
        if (turn === last) resolve();
      });
    });
    await listener.query('listen bench');
    let turn = 0;
    await pace(rate, seconds, () => {
      const values = ['bench', `${turn++} ${now()}`];
      sends.push(sender.query({ name: 'notify', text: 'select pg_notify($1, $2)', values }));
    });
    await Promise.all(sends);
    await done;
  } finally {
    await Promise.all([sender.end(), listener.end()]);
  }
  return percentiles(waits);
}

/** A plain queue table with so many rows, and how many a second leave it by claim and delete in batches of 64. */
export async function drainQueue(databaseUrl: string, rows: number): Promise<number> {
  const pool = new pg.Pool({ connectionString: databaseUrl, max: 4 });
  // Told by the query that is under way.
  pool.on('error', () => undefined);
  try {
    await pool.query(`create table plain_queue (
      id bigint primary key, key text not null, claimed boolean not null default false)`);
    await pool.query('create index on plain_queue (id) where not claimed');
    await pool.query(`insert into plain_queue (id, key) select n, 'bench/queued-' || n from generate_series(1, $1) n`, [
      rows,
    ]);
    await pool.query('vacuum analyze plain_queue');
    const begun = now();
    let left = rows;
    const loop = async () => {
      for (;;) {
        const claimed = await pool.query<{ id: string }>({
          name: 'claim',
          text: `update plain_queue set claimed = true where id in (
            select id from plain_queue where not claimed order by id limit 64 for update skip locked) returning id`,
        });
        if (claimed.rows.length === 0) return;
        left -= claimed.rows.length;
        const ids = claimed.rows.map(row => row.id);
        await pool.query({
          name: 'delete',
          text: 'delete from plain_queue where id = any($1::bigint[])',
          values: [ids],
        });
      }
    };
    await Promise.all(Array.from({ length: 4 }, loop));
    if (left !== 0) throw new Error(`${left} rows are left in the queue`);
    return (rows * 1000) / (now() - begun);
  } finally {
    await pool.end();
  }
}
