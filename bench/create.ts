import type { Endpoint, Throughput } from './load.js';
import { createCluster } from './objects.js';
import { peers } from './peers.js';
import type { Program } from './program.js';

/**
 * Objects of 1 KB, each by a POST of its own, to one API process: by 64 clients, and by one, which shows what a lone write
 * costs.
 */
export const create: Program = {
  name: 'create',
  about: 'POST of 1 KB objects to one API process',
  async run(stage) {
    const load = stage.load();
    const api = await stage.api();
    const { warmupSeconds, seconds } = stage;
    const measure = (name: string, clients: number, endpoint: Endpoint, template = createCluster) => {
      stage.say(`${name}, ${clients} client${clients > 1 ? 's' : ''}`);
      const names = { prefix: `by-${clients}-` };
      return load.throughput({ endpoint, template, names, clients, warmupSeconds, seconds });
    };

    // The lone client comes second: a server that runs for weeks is compiled, one that just began is not.
    const many = await measure('ours', 64, api);
    const lone = await measure('ours', 1, api);
    stage.windows.push(many);
    await api.stop();

    const manyOthers: [string, Throughput][] = [];
    const loneOthers: [string, Throughput][] = [];
    for await (const { name, endpoint, create } of peers(stage)) {
      manyOthers.push([name, await measure(name, 64, endpoint, create)]);
      loneOthers.push([name, await measure(name, 1, endpoint, create)]);
    }
    for (const [inFlight, others] of [
      [1, loneOthers],
      [64, manyOthers],
    ] as const) {
      stage.say(`insert by pg, ${inFlight} at once`);
      const databaseUrl = await stage.database();
      const body = createCluster.body ?? '';
      others.push([
        'insert by pg, one each',
        await load.insert({ databaseUrl, body, inFlight, warmupSeconds, seconds }),
      ]);
    }
    const rates = manyOthers.map(([name, { rate }]) => ({ name, figure: { value: rate } }));
    const waits = (others: [string, Throughput][]) => others.map(([name, { waits }]) => ({ name, figure: waits }));
    return [
      { what: '64 clients', unit: '1/s', ours: { value: many.rate }, target: { atLeast: 4000 }, references: rates },
      { what: '64 clients, wait', unit: 'ms', ours: many.waits, references: waits(manyOthers) },
      { what: '1 client, wait', unit: 'ms', ours: lone.waits, target: { atMost: 1.5 }, references: waits(loneOthers) },
    ];
  },
};
