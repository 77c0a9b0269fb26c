import { now, percentiles } from './clock.js';
import { queueKeys } from './keys.js';
import type { Program } from './program.js';
import { ReconcileProcess } from './runtime.js';

/** Keys that are queued before the edits; all of one namespace, as after a resync or a change that concerns everything. */
const keys = Number(process.env['BENCH_BACKLOG'] ?? 1_000_000);
/** Edits, one after the other. */
const edits = 20;
/** Keys that the runtime works on at once, and milliseconds that each takes: it never comes to the end of the backlog. */
const concurrency = 16;
const waits = 20;

/** From a user's edit to its reconcile, while a million keys wait in front of the one runtime that there is. */
export const backlog: Program = {
  name: 'backlog',
  about: "a user's edit while a million keys wait",
  async run(stage) {
    const api = await stage.api();
    const client = stage.client(api);
    await client.controllers.register('backlog', { type: 'clusters' });
    stage.say(`queueing ${keys} keys`);
    await queueKeys(await stage.database(), 'backlog', keys);
    const worker = await ReconcileProcess.start(stage, { name: 'backlog', url: api.url, concurrency, waits });
    // It is at work, with all slots taken.
    await worker.runs(10 * concurrency);
    const began = new Map<string, number>();
    const waited: number[] = [];
    for (let edit = 0; edit < edits; edit++) {
      const name = `edited-${edit}`;
      const sent = now();
      await client.clusters.create({ namespace: 'people', name });
      while (!began.has(name)) {
        for (const [key, at] of await worker.take()) began.set(key, at);
        if (now() - sent > 60_000) throw new Error('an edit was not reconciled within a minute');
        await new Promise(resolve => setTimeout(resolve, 10));
      }
      waited.push((began.get(name) ?? NaN) - sent);
    }
    const { queued } = await client.controllers.read('backlog');
    if (queued === 0) throw new Error('the backlog was worked off before the last edit');
    return [
      {
        what: `an edit, ${keys} keys queued`,
        unit: 'ms',
        ours: percentiles(waited),
        references: [],
      },
      {
        what: 'the slowest of them',
        unit: 'ms',
        ours: { value: Math.max(...waited) },
        target: { atMost: 1_000 },
        references: [],
      },
    ];
  },
};
