import { openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { pause } from '../../client/index.js';
import { run, type Controller } from '../../controllers/index.js';
import type { Entry } from './journal.js';
import { Random } from './random.js';
import { types, type Type } from './scale.js';
import { now } from './violations.js';

// One worker: a process with a controller for each type. It writes down what it does when it does it, one write to the kernel for
// each line, so that nothing of it is lost with the process.

const [name = '', folder = '', url = '', amqpUrl = '', seed = '0', claimSeconds = '6'] = process.argv.slice(2);
const worker = `${name}-${process.pid}`;
const file = openSync(join(folder, `${worker}.journal`), 'a');
const random = new Random(Number(seed)).fork(worker);
let runs = 0;

const write = (entry: Omit<Entry, 'at' | 'worker'> & { at?: number }) =>
  void writeSync(file, `${JSON.stringify({ at: now(), worker, ...entry })}\n`);

function controller(type: Type): Controller {
  return {
    name: `chaos-${type}`,
    type,
    claimSeconds: Number(claimSeconds),
    async reconcile(object, context) {
      const entry = { run: ++runs, key: `${type}/${context.key.namespace ?? ''}/${context.key.name}` };
      const certain = () => context.remaining() > 0;
      write({ ...entry, what: 'begin', certain: certain(), serial: object?.labels?.serial ?? 'gone' });
      try {
        // Most runs are short. One in twenty-five takes so long that faults meet it.
        const end = performance.now() + (random.happens(0.04) ? random.between([500, 4_000]) : random.between([0, 8]));
        while (performance.now() < end && !context.signal.aborted) {
          await pause(Math.min(100, end - performance.now()), context.signal);
          write({ ...entry, what: 'held', certain: certain() });
        }
        context.signal.throwIfAborted();
        if (object && type === 'clusters' && random.happens(0.3)) {
          const at = now();
          const { resourceVersion } = await context.client.clusters.patchStatus(object, { nodeCount: runs });
          write({ ...entry, at, what: 'wrote', certain: true, version: Number(resourceVersion) });
        }
        if (random.happens(0.01)) throw new Error('a reconcile that fails by chance');
        write({ ...entry, what: 'end', certain: certain() });
      } catch (error) {
        write({ ...entry, what: 'failed', certain: certain() });
        throw error;
      }
    },
  };
}

await run(types.map(controller), { url, amqpUrl, concurrency: 8 });
process.stdout.write('started\n');
