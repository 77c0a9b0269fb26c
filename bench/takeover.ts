import { connect } from '../client/index.js';
import { now, percentiles } from './clock.js';
import type { Measure, Program } from './program.js';
import type { Service } from './processes.js';
import { ReconcileProcess } from './runtime.js';
import type { Stage } from './stage.js';

const rounds = 3;

/**
 * What a `kill -9` costs. Relay: two API processes, the one that relays the type's events dies; from then until the other leads. Worker:
 * it dies with a key in hand; from then until another worker begins that key. The longest of three rounds.
 */
export const takeover: Program = {
  name: 'takeover',
  about: 'how long work rests when its process is killed',
  async run(stage) {
    const relay: number[] = [];
    for (let round = 0; round < rounds; round++) relay.push(await killRelay(stage));
    const worker: number[] = [];
    const api = await stage.api();
    for (let round = 0; round < rounds; round++) worker.push(await killWorker(stage, api, `takeover-${round}`));
    const longest = (what: string, waits: number[], atMost: number): Measure => ({
      what,
      unit: 's',
      ours: { value: Math.max(...waits) / 1000 },
      target: { atMost },
      references: [{ name: 'ours, median', figure: { value: percentiles(waits).value / 1000 } }],
    });
    return [longest('relay', relay, 1), longest('worker', worker, 2)];
  },
};

async function killRelay(stage: Stage): Promise<number> {
  const pair = await Promise.all([stage.api(), stage.api()]);
  const [leads, other] = await leader(pair);
  const killed = now();
  await leads.kill();
  await leader([other]);
  const took = now() - killed;
  await other.stop();
  return took;
}

/** The process that relays the clusters' events, and the others' last. */
async function leader(services: Service[]): Promise<[Service, Service]> {
  for (;;) {
    for (const service of services) {
      const text = await (await fetch(`${service.url}/metrics`)).text();
      if (text.includes('syncsets_relay_leader{type="clusters"} 1'))
        return [service, services.find(other => other !== service) ?? service];
    }
    await new Promise(resolve => setTimeout(resolve, 5));
  }
}

async function killWorker(stage: Stage, api: Service, name: string): Promise<number> {
  // Longer than this takes: its key is in hand when it dies.
  const first = await ReconcileProcess.start(stage, { name, url: api.url, concurrency: 1, waits: 600_000 });
  const client = connect({ url: api.url });
  await client.clusters.create({ name, namespace: 'bench' });
  await client.close();
  let held: string | undefined;
  while (held === undefined) {
    await first.runs(1);
    held = (await first.take()).find(([key]) => key !== '')?.[0];
  }
  const second = await ReconcileProcess.start(stage, { name, url: api.url, concurrency: 16, waits: 0 });
  const killed = now();
  await first.kill();
  for (;;) {
    const begun = (await second.take()).find(([key]) => key === held);
    if (begun) {
      await second.stop();
      return begun[1] - killed;
    }
    await new Promise(resolve => setTimeout(resolve, 5));
  }
}
