import { isPlatformError, type Client, type Resource } from '../../client/index.js';
import { TerminalError, type Context, type Controller } from './controller.js';
import { secondsOf, type Duration } from './duration.js';
import type { Log } from './log.js';

/**
 * Work that is done every so often, once in the whole fleet, whatever number of processes have it: a controller without
 * objects, whose single key lies in the platform's database. So it has one runner at a time, a runner that is killed is replaced
 * within 2 s, and the time of the next run outlives restarts.
 *
 * @example
 * export const tidy: Task = {
 *   name: 'tidy',
 *   every: '1h',
 *   async run({ client }) {
 *     await client.clusters.removeAll({ labelSelector: 'env=scratch' });
 *   },
 * };
 */
export interface Task {
  /** Names it everywhere, among controllers too: registration, queue, metrics. */
  name: string;
  /**
   * From the beginning of a run to the beginning of the next, exact to a second, at least 1 s. The first run is at the first
   * start ever. Runs that were missed are not made up for; a run that takes longer is followed by the next at once. A failed
   * run is tried again after 1 s, 2 s, 4 s, … as any key.
   */
  every: Duration;
  /** Longest run; a longer one counts as failed. Default 5 minutes. */
  deadline?: Duration;
  /** Seconds after which the work of a process that fell silent goes to others. Default 15. */
  claimSeconds?: number;
  /** Raise it with every change of `claimSeconds` or `reveal`: the highest one holds. */
  revision?: number;
  /** Types whose secret fields it reads. */
  reveal?: string[];
  /** Everything thrown counts as failed and comes again. */
  run(context: TaskContext): Promise<void>;
}

/** What a task sees of its run. */
export type TaskContext = Pick<Context, 'client' | 'log' | 'signal' | 'attempts' | 'remaining' | 'hold'>;

/** What `run` takes. */
export function isTask(one: Controller | Task): one is Task {
  return 'every' in one;
}

/** The controller that does a task. */
export function controllerOf(task: Task): Controller {
  const { name, every, deadline, claimSeconds, revision, reveal } = task;
  const seconds = secondsOf(every, `${name}: every`);
  if (seconds < 1) throw new TypeError(`${name}: every must be at least 1 s`);
  return {
    name,
    type: '-',
    deadline,
    claimSeconds,
    revision,
    reveal,
    async reconcile(_: Resource | undefined, context) {
      const begun = performance.now();
      try {
        await task.run(context);
      } catch (error) {
        // Nothing changes that a parked key would wait for.
        if (error instanceof TerminalError) throw new Error(error.message, { cause: error });
        throw error;
      }
      return { requeueAfter: Math.max(0, seconds - (performance.now() - begun) / 1000) };
    },
  };
}

/** Brings the next run forward where an earlier release, with a longer `every`, has put it further off. */
export async function hasten(client: Client, { name, every }: Task, log: Log): Promise<void> {
  const afterSeconds = secondsOf(every, name);
  try {
    const { items } = await client.controllers.work(name, { state: 'waiting', limit: 1 });
    const due = Date.parse(items[0]?.notBefore ?? '');
    // A clock that differs from the database's makes a call too many, or leaves the date as it is.
    if (!(due > Date.now() + afterSeconds * 1000)) return;
    await client.controllers.enqueue(name, { keys: [{ name }], priority: -10, afterSeconds });
  } catch (error) {
    log.warn(
      { controller: name, error: isPlatformError(error) ? error.message : String(error) },
      'could not look at the next run of a task',
    );
  }
}
