import type { Cluster } from '../client/index.js';
import { run, type Controller, type Running } from '../controllers/index.js';
import { now } from './clock.js';
import { serveJobs } from './processes.js';
import type { Began, ReconcileJob } from './runtime.js';

// A controllers process whose controller only takes the time, and may wait.

const began: Began[] = [];
let running: Running | undefined;
let enough: { runs: number; resolve: () => void } | undefined;

serveJobs((job: ReconcileJob): Promise<unknown> => {
  switch (job.kind) {
    case 'run':
      return start(job);
    case 'runs':
      return until(job.runs);
    case 'take':
      return Promise.resolve(began.splice(0));
  }
});

async function start({
  name,
  url,
  amqpUrl,
  concurrency,
  waits,
}: Extract<ReconcileJob, { kind: 'run' }>): Promise<void> {
  const controller: Controller<Cluster> = {
    name,
    type: 'clusters',
    async reconcile(_cluster, context) {
      began.push([context.key.name, now()]);
      if (began.length === enough?.runs) enough.resolve();
      if (waits > 0) await new Promise(resolve => setTimeout(resolve, waits));
    },
  };
  running = await run([controller], { url, concurrency, ...(amqpUrl !== undefined && { amqpUrl }) });
}

async function until(runs: number): Promise<void> {
  if (began.length >= runs) return;
  await new Promise<void>(resolve => (enough = { runs, resolve }));
  enough = undefined;
}

process.once('SIGTERM', () => {
  void (running?.stop() ?? Promise.resolve()).finally(() => process.disconnect());
});
