import { cluster } from './objects.js';
import { kubernetes } from './peers.js';
import type { Program } from './program.js';

const size = 500;

/** Objects of 1 KB, 500 in a request of `POST /v1/batch`, by four clients to one API process. */
export const batch: Program = {
  name: 'batch',
  about: 'POST /v1/batch with 500 creates of 1 KB objects',
  async run(stage) {
    const load = stage.load();
    const { warmupSeconds, seconds } = stage;
    const api = await stage.api();
    stage.say('ours, 4 clients');
    // {name} is filled in once a request, in front of each operation's own number.
    const operations = Array.from({ length: size }, (_, i) => ({
      op: 'create',
      type: 'clusters',
      object: { ...cluster, name: `{name}-${i}` },
    }));
    const template = { method: 'POST' as const, path: '/v1/batch', body: JSON.stringify({ operations }) };
    const names = { prefix: 'batch-' };
    const ours = await load.throughput({ endpoint: api, template, names, clients: 4, warmupSeconds, seconds });
    stage.windows.push(ours);
    await api.stop();

    const references = [];
    for await (const { name, endpoint, create } of kubernetes(stage)) {
      stage.say(`${name}, one each, 64 clients`);
      const theirs = await load.throughput({ endpoint, template: create, names, clients: 64, warmupSeconds, seconds });
      references.push({ name: `${name}, one each`, figure: { value: theirs.rate } });
    }
    stage.say('insert by pg, 64 at once');
    const databaseUrl = await stage.database();
    const body = JSON.stringify(cluster);
    const inserted = await load.insert({ databaseUrl, body, inFlight: 64, warmupSeconds, seconds });
    references.push({ name: 'insert by pg, one each', figure: { value: inserted.rate } });
    return [
      {
        what: '4 clients, objects',
        unit: '1/s',
        ours: { value: ours.rate * size },
        target: { atLeast: 25_000 },
        references,
      },
      { what: '4 clients, wait for 500', unit: 'ms', ours: ours.waits, references: [] },
    ];
  },
};
