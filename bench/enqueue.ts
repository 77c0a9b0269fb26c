import { now, percentiles } from './clock.js';
import type { Program } from './program.js';
import { store } from './store.js';

/** Keys that one call queues, of so many sets. */
const keys = 10_000;
const sets = 5;

/** "All clusters that match this selector": 10,000 of 50,000 objects are queued by one call over HTTP, five times, each time others. */
export const enqueue: Program = {
  name: 'enqueue',
  about: 'keys queued by a selector with one call',
  async run(stage) {
    const api = await stage.api();
    const client = stage.client(api);
    // Registered before there is anything, and not interested in what is stored now: its queue is empty.
    await client.controllers.register('bench', { type: 'clusters', on: ['status'] });
    stage.say(`storing ${sets * keys} objects`);
    await store(await stage.database(), 'clusters', sets * keys, number => ({
      namespace: `bench-${number % 20}`,
      name: `stored-${number}`,
      labels: { set: `set-${number % sets}` },
    }));
    const waits: number[] = [];
    for (let set = 0; set < sets; set++) {
      const begun = now();
      const count = await client.controllers.enqueue('bench', { type: 'clusters', labelSelector: `set=set-${set}` });
      waits.push(now() - begun);
      if (count !== keys) throw new Error(`${count} keys were queued`);
    }
    return [
      { what: '10k keys by selector', unit: 'ms', ours: percentiles(waits), target: { atMost: 100 }, references: [] },
    ];
  },
};
