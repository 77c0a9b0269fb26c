import type { Client, GarbageResult, WorkKey } from '../../client/index.js';
import type { Controller } from '../runtime/controller.js';

/** Objects in one call. */
const largestCall = 100;
/** Seconds between two looks at an owner that waits for its dependents, at first and at most. */
const shortestWait = 1;
const longestWait = 30;

interface Waiting {
  key: WorkKey;
  resolve: (waits: boolean) => void;
  reject: (error: unknown) => void;
}

/**
 * Deletes what no owner holds any more, and lets owners go that wait for their dependents or leave them behind. It is woken by
 * objects with owners and by the deletion of those that others name as their owner; what is to be done is found out from the
 * present state, in sets, by one call for all keys that came together: an owner with 10,000 dependents costs one call, and so do
 * 16 deletions of owners.
 */
export function garbageCollector(): Controller {
  const waiting: Waiting[] = [];

  /** Looks after an object together with what else is asked for in this turn; whether it waits for dependents. */
  const look = (client: Client, key: WorkKey): Promise<boolean> =>
    new Promise((resolve, reject) => {
      // With the claim of the first one: should that be lost, all of them are tried again.
      if (waiting.length === 0) setImmediate(() => void flush(client));
      waiting.push({ key, resolve, reject });
    });

  const flush = async (client: Client): Promise<void> => {
    const now = waiting.splice(0, largestCall);
    if (waiting.length > 0) setImmediate(() => void flush(client));
    let result: GarbageResult;
    try {
      result = await client.garbage.collect(now.map(({ key }) => key));
    } catch (error) {
      for (const { reject } of now) reject(error);
      return;
    }
    now.forEach(({ resolve, reject }, at) => {
      const refused = result.refused?.[at] ?? undefined;
      // Shown with the key, and tried again after a back-off: whoever refers to it may go any time.
      if (refused !== undefined) reject(new Error(refused));
      else resolve(result.waiting[at] === true);
    });
  };

  return {
    name: 'garbagecollector',
    type: '*',
    on: ['owners'],
    revision: 1,

    async reconcile(object, context) {
      if (!(await look(context.client, context.key))) return undefined;
      // Its dependents do not wake it one by one: ten thousand of them would.
      const since = object?.deletedAt === undefined ? 0 : (Date.now() - Date.parse(object.deletedAt)) / 1000;
      return { requeueAfter: Math.min(longestWait, Math.max(shortestWait, since / 10)) };
    },
  };
}
