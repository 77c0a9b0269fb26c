import type { Endpoint, Template, Throughput } from './load.js';
import { createCluster, getCluster } from './objects.js';
import { peers } from './peers.js';
import type { Program } from './program.js';

/** Objects that are read, at random. */
const among = 1000;
const prefix = 'read-';

/** Objects of 1 KB read by name, by 64 clients, from one API process. */
export const get: Program = {
  name: 'get',
  about: 'GET of 1 KB objects by name from one API process',
  async run(stage) {
    const load = stage.load();
    const measure = async (name: string, endpoint: Endpoint, create: Template, get: Template) => {
      stage.say(`${name}, 64 clients`);
      const { warmupSeconds, seconds } = stage;
      const shared = { endpoint, clients: 64, warmupSeconds, seconds };
      await load.throughput({ ...shared, template: create, names: { prefix }, requests: among });
      return load.throughput({ ...shared, template: get, names: { prefix, among } });
    };
    const api = await stage.api();
    const ours = await measure('ours', api, createCluster, getCluster);
    stage.windows.push(ours);
    await api.stop();

    const others: [string, Throughput][] = [];
    for await (const { name, endpoint, create, get } of peers(stage))
      others.push([name, await measure(name, endpoint, create, get)]);
    const rates = others.map(([name, { rate }]) => ({ name, figure: { value: rate } }));
    const waits = others.map(([name, { waits }]) => ({ name, figure: waits }));
    return [
      { what: '64 clients', unit: '1/s', ours: { value: ours.rate }, references: rates },
      { what: '64 clients, wait', unit: 'ms', ours: ours.waits, references: waits },
    ];
  },
};
