import { randomUUID } from 'node:crypto';
import { Database, ObjectStore } from '../db/index.js';
import { annotations, createCluster, labels } from './objects.js';
import type { Figure, Program } from './program.js';
import { drainQueue } from './reference/postgres.js';

/** Objects that exist before the controller comes. */
const keys = 50_000;
const rate = 200;
/** Keys that the runtime works on at once. */
const concurrency = 512;

/** What reconcile-process.ts is asked for. */
export type ReconcileJob = { kind: 'run'; url: string; concurrency: number; keys: number } | { kind: 'waits' };

/** When the first and the last of the keys began, by `now()`, and how many runs that were. */
export interface Drained {
  first: number;
  last: number;
  runs: number;
}

/**
 * Reconciles that do nothing, durable and exclusive, in one runtime process of one controller: all of 50,000 objects that exist when
 * it registers, from the first to the last; then from just before a POST is sent to the reconcile that it wakes.
 */
export const reconcile: Program = {
  name: 'reconcile',
  about: 'reconciles that do nothing, one runtime process',
  async run(stage) {
    const api = await stage.api();
    stage.say(`storing ${keys} objects`);
    await store(await stage.database());

    const runtime = stage.assistant('reconcile-process.ts');
    stage.say(`reconciling ${keys} objects`);
    const { first, last, runs } = await runtime.ask<Drained>({ kind: 'run', url: api.url, concurrency, keys });
    if (runs !== keys) throw new Error(`${keys} keys made ${runs} runs`);
    stage.windows.push({ from: first, to: last });

    stage.say('from a write to its reconcile');
    const load = stage.load();
    const { warmupSeconds, seconds } = stage;
    const paced = { endpoint: api, template: createCluster, rate, prefix: 'paced-' };
    await load.pace({ ...paced, warmupSeconds: 0, seconds: warmupSeconds + seconds });
    const waits = await runtime.ask<Required<Figure>>({ kind: 'waits' });
    await runtime.stop();
    await api.stop();

    stage.say('a plain queue in SQL');
    const plain = await drainQueue(await stage.database(), keys);
    return [
      {
        what: `${keys / 1000}k keys, one runtime`,
        unit: '1/s',
        ours: { value: ((runs - 1) * 1000) / (last - first) },
        target: { atLeast: 10_000 },
        references: [{ name: 'SQL queue: claim 64, delete', figure: { value: plain } }],
      },
      { what: 'POST sent to reconcile', unit: 'ms', ours: waits, references: [] },
    ];
  },
};

/** Stores the objects as the API would, 500 with a statement. */
async function store(databaseUrl: string): Promise<void> {
  const database = new Database({ connection: { connectionString: databaseUrl }, log: () => undefined });
  try {
    const objects = new ObjectStore(database);
    const own = {
      labels,
      annotations: { ...annotations, 'example.com/sent': '', 'example.com/filling': 'x'.repeat(500) },
    };
    const writes = Array.from({ length: keys }, (_, number) => {
      const uid = randomUUID();
      const key = { namespace: `bench-${number % 20}`, name: `stored-${number}` };
      const object = JSON.stringify({ type: 'clusters', ...key, uid, generation: 1, ...own });
      const written = { op: 'create', uid, object, labels, actor: 'client', own: false } as const;
      return objects.write('clusters', { ...key, ...written, changed: ['spec'] });
    });
    for (const { outcome } of await Promise.all(writes))
      if (outcome !== 'ok') throw new Error(`an object was ${outcome}`);
    // As autovacuum would within a minute.
    await database.query({ text: 'analyze syncsets.objects, syncsets.events' });
  } finally {
    await database.stop();
  }
}
