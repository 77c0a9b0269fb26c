import type { Program, Reference } from './program.js';
import { drainQueue } from './reference/postgres.js';
import { drainBossKeyByKey, queues } from './reference/queues.js';
import { ReconcileProcess } from './runtime.js';
import { store } from './store.js';

/** Objects that exist before the controller comes. */
const keys = 50_000;
/** Keys that the runtime works on at once. */
const concurrency = 512;
/** What ours has to be better by than these. */
const goals = [8, 1.5];

/**
 * Reconciles that do nothing, durable and exclusive, in one runtime process of one controller: all of 50,000 objects that exist
 * when it registers, from the first to the last.
 */
export const reconcile: Program = {
  name: 'reconcile',
  about: 'reconciles that do nothing, one runtime process',
  async run(stage) {
    const api = await stage.api();
    const databaseUrl = await stage.database();
    stage.say(`storing ${keys} objects`);
    await store(databaseUrl, 'clusters', keys, number => ({
      namespace: `bench-${number % 20}`,
      name: `stored-${number}`,
    }));

    // As its worker registers it; all keys are queued before the first is taken, as those of the references are.
    const { controllers } = stage.client(api);
    await controllers.register('bench', { type: 'clusters' });
    while ((await controllers.read('bench')).queued < keys) await new Promise(resolve => setTimeout(resolve, 20));
    stage.say(`reconciling ${keys} objects`);
    const worker = await ReconcileProcess.start(stage, { name: 'bench', url: api.url, concurrency, waits: 0 });
    await worker.runs(keys);
    const runs = await worker.take();
    const distinct = new Set(runs.map(([name]) => name)).size;
    if (runs.length !== keys || distinct !== keys) throw new Error(`${distinct} keys made ${runs.length} runs`);
    const [from, to] = [runs[0]?.[1] ?? NaN, runs.at(-1)?.[1] ?? NaN];
    stage.windows.push({ from, to });
    await worker.stop();
    await api.stop();

    const references: Reference[] = [];
    for (const [at, queue] of queues.entries()) {
      stage.say(queue.name);
      const value = await queue.drain(databaseUrl, keys);
      references.push({ name: queue.name, figure: { value }, ...(goals[at] !== undefined && { atLeast: goals[at] }) });
    }
    stage.say('pg-boss with a result for each key');
    const single = await drainBossKeyByKey(databaseUrl, keys);
    references.push({ name: 'pg-boss, a result for each', figure: { value: single } });
    stage.say('a plain queue in SQL');
    references.push({ name: 'SQL queue: claim 64, delete', figure: { value: await drainQueue(databaseUrl, keys) } });
    return [
      {
        what: `${keys / 1000}k keys, one runtime`,
        unit: '1/s',
        ours: { value: ((keys - 1) * 1000) / (to - from) },
        target: { atLeast: 20_000 },
        references,
      },
    ];
  },
};
