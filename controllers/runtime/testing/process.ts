// A controllers process for tests of what only a process can suffer: node --import tsx process.ts <what> <api>
import { run } from '../runtime.js';
import { connect } from '../../../client/index.js';
import type { Controller } from '../controller.js';
import type { Log } from '../log.js';
import type { Task } from '../task.js';

const [, , what = '', url = ''] = process.argv;
const say = (...parts: unknown[]) => void process.stdout.write(`${parts.join(' ')}\n`);
const logOf = (bound: object): Log => ({
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: (fields, message) => say('error', message, JSON.stringify({ ...bound, ...fields })),
  child: more => logOf({ ...bound, ...more }),
});

/** Begins, and ends when the object `go` is there. */
const task: Task = {
  name: 'lonely',
  every: '1s',
  async run({ signal }) {
    say('begin', process.pid);
    const client = connect({ url });
    while (!signal.aborted) {
      const { items } = await client.clusters.list({ labelSelector: 'go=yes' });
      if (items.length > 0) break;
      await new Promise(resolve => setTimeout(resolve, 50));
    }
    await client.close();
    say('end', process.pid);
  },
};

/** Fails in the ways that nobody catches, by the name of its object. */
const careless: Controller = {
  name: 'careless',
  type: 'clusters',
  reconcile(object, context) {
    const { name } = context.key;
    if (name === 'sync') throw new Error('thrown at once');
    if (name.startsWith('promise')) void Promise.reject(new Error('nobody awaits this'));
    if (name === 'timer')
      setTimeout(() => {
        throw new Error('thrown by a timer');
      }, 1);
    say('ran', object?.name);
    return Promise.resolve();
  },
};

const running = await run([what === 'task' ? task : careless], { url, log: logOf({}), healthPort: 0 });
say('port', running.healthPort);
