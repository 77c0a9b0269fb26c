import type { Cluster } from '../client/index.js';
import { run, type Controller, type Running } from '../controllers/index.js';
import { now, percentiles } from './clock.js';
import { serveJobs } from './processes.js';
import type { Drained, ReconcileJob } from './reconcile.js';

// A controllers process whose controller only takes the time.

const waits: number[] = [];
const seen = new Set<string>();
let runs = 0;
let first = 0;
let last = 0;
let running: Running | undefined;
let whenSeen: { keys: number; resolve: () => void } | undefined;

const controller: Controller<Cluster> = {
  name: 'bench',
  type: 'clusters',
  reconcile(cluster) {
    const at = now();
    const sent = Number(cluster?.annotations?.['example.com/sent']);
    if (sent > 0) waits.push(at - sent);
    if (whenSeen && cluster?.uid !== undefined) {
      if (runs++ === 0) first = at;
      last = at;
      seen.add(cluster.uid);
      if (seen.size === whenSeen.keys) whenSeen.resolve();
    }
    return Promise.resolve();
  },
};

serveJobs((job: ReconcileJob): Promise<unknown> => (job.kind === 'run' ? drain(job) : Promise.resolve(paced())));

async function drain({ url, concurrency, keys }: Extract<ReconcileJob, { kind: 'run' }>): Promise<Drained> {
  const all = new Promise<void>(resolve => (whenSeen = { keys, resolve }));
  running = await run([controller], { url, concurrency });
  await all;
  whenSeen = undefined;
  return { first, last, runs };
}

/** All but the first tenth, in which the code was still being compiled. */
function paced() {
  return percentiles(waits.slice(Math.ceil(waits.length / 10)));
}

process.once('SIGTERM', () => {
  void (running?.stop() ?? Promise.resolve()).finally(() => process.disconnect());
});
