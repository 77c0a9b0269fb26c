import { now, percentiles } from './clock.js';
import { Connections } from './connections.js';
import type { Job, Paced, PaceJob, Template, Throughput, ThroughputJob } from './load.js';
import { inParallel, pace } from './loops.js';
import { serveJobs } from './processes.js';
import { insertRows, notifyRoundTrips } from './reference/postgres.js';
import { publish } from './reference/rabbitmq.js';

serveJobs((job: Job): Promise<unknown> => {
  switch (job.kind) {
    case 'throughput':
      return throughput(job);
    case 'pace':
      return paced(job);
    case 'insert':
      return insertRows(job);
    case 'notify':
      return notifyRoundTrips(job);
    case 'publish':
      return publish(job);
  }
});

async function throughput({ endpoint, template, names, clients, ...job }: ThroughputJob): Promise<Throughput> {
  const connections = new Connections(endpoint, clients);
  let count = 0;
  const name = () =>
    numbered(names.prefix, names.among === undefined ? count++ : Math.floor(Math.random() * names.among));
  try {
    return await inParallel({ ...job, clients }, () => connections.send(filled(template, name())));
  } finally {
    connections.close();
  }
}

async function paced({ endpoint, template, prefix, rate, watch, watchAt, ...job }: PaceJob): Promise<Paced> {
  const connections = new Connections(endpoint, 64);
  const watching = new Connections(watchAt ?? endpoint, 1);
  const sent = new Map<string, number>();
  const answered = new Map<string, number>();
  const heard = new Map<string, number>();
  const requests: Promise<void>[] = [];
  const pattern = new RegExp(`${prefix}\\d{8}`);
  try {
    if (watch !== undefined) {
      await watching.stream(watch, line => {
        const at = now();
        const name = pattern.exec(line)?.[0];
        if (name !== undefined && !heard.has(name)) heard.set(name, at);
      });
    }
    await pace(rate, job.warmupSeconds + job.seconds, () => {
      const name = numbered(prefix, sent.size);
      sent.set(name, now());
      requests.push(connections.send(filled(template, name)).then(() => void answered.set(name, now())));
    });
    await Promise.all(requests);
    for (let waited = 0; watch !== undefined && heard.size < sent.size; waited++) {
      if (waited === 1_000) throw new Error(`the watcher heard of ${heard.size} of ${sent.size} writes`);
      await new Promise(resolve => setTimeout(resolve, 10));
    }
  } finally {
    connections.close();
    watching.close();
  }
  const measured = [...sent].slice(Math.floor(rate * job.warmupSeconds));
  const between = (begun: (name: string) => number, ends: Map<string, number>) =>
    percentiles(measured.map(([name]) => (ends.get(name) ?? NaN) - begun(name)));
  const sentAt = (name: string) => sent.get(name) ?? NaN;
  return {
    answers: between(sentAt, answered),
    times: measured.map(([name, at]) => ({ name, sent: at, answered: answered.get(name) ?? NaN })),
    ...(watch !== undefined && {
      fromSent: between(sentAt, heard),
      fromAnswer: between(name => answered.get(name) ?? NaN, heard),
    }),
  };
}

function numbered(prefix: string, number: number): string {
  return prefix + String(number).padStart(8, '0');
}

function filled({ method, path, body }: Template, name: string): Template {
  return {
    method,
    path: path.replace('{name}', name),
    ...(body !== undefined && { body: body.replaceAll('{name}', name).replace('{sent}', now().toFixed(3)) }),
  };
}
