import { Logger, run, runMigrations, type Runner } from 'graphile-worker';
import pg from 'pg';
import PgBoss from 'pg-boss';
import { now, percentiles } from '../clock.js';
import { pace } from '../loops.js';
import type { Figure } from '../program.js';

/** A queue of keys: one that is queued is not queued again. */
export interface Queue {
  name: string;
  /** Queues so many keys, then how many a second are handed to a worker that does nothing, and reported as done. */
  drain(databaseUrl: string, keys: number): Promise<number>;
  /** From just before a key is queued to the moment when its worker begins, in ms. */
  react(
    databaseUrl: string,
    pacing: { rate: number; warmupSeconds: number; seconds: number },
  ): Promise<Required<Figure>>;
}

const quiet = new Logger(() => () => undefined);

/** Jobs in hand at once: of 16, 24 and 64 the figure at which graphile-worker was fastest on two cores. */
const concurrency = 24;

/** The queues on Postgres that Node programs use today. */
export const queues: Queue[] = [
  {
    name: 'pg-boss, one result for 512',
    drain: (databaseUrl, keys) => drainBoss(databaseUrl, keys, (boss, ids) => boss.complete('bench', ids)),
    async react(databaseUrl, pacing) {
      const boss = await startBoss(databaseUrl);
      try {
        return await reactions(pacing, {
          work: handle =>
            boss.work<{ turn: number }>('bench', { batchSize: 512, pollingIntervalSeconds: 0.5 }, jobs => {
              for (const { data } of jobs) handle(data.turn);
              return Promise.resolve();
            }),
          send: turn => boss.send('bench', { turn }, { singletonKey: `key-${turn}` }),
        });
      } finally {
        await boss.stop({ graceful: false, wait: true });
      }
    },
  },
  {
    // A key that is queued anew while it runs would run twice at once: what prevents that is a queue for each key, and with those
    // it did fewer than 100 a second.
    name: 'graphile-worker, not exclusive',
    async drain(databaseUrl, keys) {
      const pool = new pg.Pool({ connectionString: databaseUrl, max: concurrency });
      let left = keys;
      let runner: Runner | undefined;
      try {
        await runMigrations({ pgPool: pool });
        for (let at = 0; at < keys; at += 10_000) {
          await pool.query(
            `select count(*) from graphile_worker.add_jobs(array(
              select ('bench', '{}'::json, null, now(), 25::smallint, 'key-' || n, 0::smallint, null)::graphile_worker.job_spec
              from generate_series($1::int, $2::int) n))`,
            [at, Math.min(at + 10_000, keys) - 1],
          );
        }
        await analyze(databaseUrl);
        const begun = now();
        await new Promise<void>((resolve, reject) => {
          startRunner(pool, () => {
            if (--left === 0) resolve();
          }).then(started => (runner = started), reject);
        });
        return (keys * 1000) / (now() - begun);
      } finally {
        await runner?.stop();
        await pool.end();
      }
    },
    async react(databaseUrl, pacing) {
      const pool = new pg.Pool({ connectionString: databaseUrl, max: concurrency });
      let runner: Runner | undefined;
      try {
        return await reactions(pacing, {
          work: async handle => {
            runner = await startRunner(pool, ({ turn }) => handle(turn));
          },
          send: turn => runner?.addJob('bench', { turn }, { jobKey: `key-${turn}` }) ?? Promise.resolve(),
        });
      } finally {
        await runner?.stop();
        await pool.end();
      }
    },
  },
];

/** As `queues` have it, with a result for each key, so that the failure of one is its own: pg-boss takes one for a batch. */
export function drainBossKeyByKey(databaseUrl: string, keys: number): Promise<number> {
  return drainBoss(databaseUrl, keys, (boss, ids) => Promise.all(ids.map(id => boss.complete('bench', id))));
}

/** Its own workers take a batch each half second at most, so the loop here is ours: fetch and complete, as fast as they answer. */
async function drainBoss(
  databaseUrl: string,
  keys: number,
  complete: (boss: PgBoss, ids: string[]) => Promise<unknown>,
): Promise<number> {
  const boss = await startBoss(databaseUrl);
  try {
    const jobs = Array.from({ length: keys }, (_, key) => ({ name: 'bench', singletonKey: `key-${key}` }));
    for (let at = 0; at < keys; at += 1_000) await boss.insert(jobs.slice(at, at + 1_000));
    await analyze(databaseUrl);
    const begun = now();
    let done = 0;
    const loop = async () => {
      // None is no end: what the other loops are looking at is skipped.
      while (done < keys) {
        const batch = await boss.fetch('bench', { batchSize: 512 });
        if (batch.length === 0) continue;
        await complete(
          boss,
          batch.map(({ id }) => id),
        );
        done += batch.length;
      }
    };
    await Promise.all(Array.from({ length: 2 }, loop));
    return (keys * 1000) / (now() - begun);
  } finally {
    await boss.stop({ graceful: false, wait: true });
  }
}

async function startBoss(databaseUrl: string): Promise<PgBoss> {
  const boss = new PgBoss({ connectionString: databaseUrl, max: 10 });
  boss.on('error', error => console.error(error));
  await boss.start();
  // At most one of a key in each state, so at most one at work.
  await boss.createQueue('bench', { name: 'bench', policy: 'stately' });
  return boss;
}

function startRunner(pgPool: pg.Pool, handle: (payload: { turn: number }) => void): Promise<Runner> {
  return run({
    pgPool,
    concurrency,
    noHandleSignals: true,
    // Told at once by NOTIFY; this is for what was missed.
    pollInterval: 1_000,
    logger: quiet,
    taskList: { bench: payload => handle(payload as { turn: number }) },
  });
}

/** Sends keys at an even pace and waits until a worker began each. */
async function reactions(
  { rate, warmupSeconds, seconds }: Parameters<Queue['react']>[1],
  queue: { work(handle: (turn: number) => void): Promise<unknown>; send(turn: number): Promise<unknown> },
): Promise<Required<Figure>> {
  const sent: number[] = [];
  const waits: number[] = [];
  const turns = Math.ceil(rate * (warmupSeconds + seconds));
  const sends: Promise<unknown>[] = [];
  let begun = 0;
  const all = new Promise<void>((resolve, reject) => {
    queue
      .work(turn => {
        waits[turn] = now() - (sent[turn] ?? NaN);
        if (++begun === turns) resolve();
      })
      .then(() =>
        pace(rate, warmupSeconds + seconds, () => {
          const turn = sent.push(now()) - 1;
          sends.push(queue.send(turn));
        }),
      )
      .catch(reject);
  });
  await all;
  await Promise.all(sends);
  return percentiles(waits.slice(Math.floor(rate * warmupSeconds)));
}

/** As autovacuum would within a minute. */
async function analyze(databaseUrl: string): Promise<void> {
  const client = new pg.Client(databaseUrl);
  await client.connect();
  await client.query('analyze');
  await client.end();
}
