import { now } from './clock.js';
import type { Program, Reference } from './program.js';
import { ReconcileProcess } from './runtime.js';
import { store } from './store.js';

const fleets = [1, 2, 4];
/** What each reconcile waits, in ms, and how many of a worker wait at once: 800 a second are the most that a worker can do. */
const waits = 5;
const concurrency = 4;

/** Workers whose reconciles wait 5 ms, as calls to others do: how much more two and four get done than one. */
export const scaling: Program = {
  name: 'scaling',
  about: 'one, two and four workers that wait 5 ms for each key',
  async run(stage) {
    const api = await stage.api();
    const { seconds, warmupSeconds } = stage;
    const most = Math.max(...fleets) * concurrency * (1000 / waits);
    const keys = Math.ceil(most * (seconds + 2 * warmupSeconds));
    stage.say(`storing ${keys} objects`);
    await store(await stage.database(), 'clusters', keys, number => ({
      namespace: `bench-${number % 20}`,
      name: `stored-${number}`,
    }));
    const rates: number[] = [];
    for (const size of fleets) {
      stage.say(`${size} worker${size > 1 ? 's' : ''}`);
      // A name of its own: all objects are queued for a controller that is new.
      const options = { name: `fleet-of-${size}`, url: api.url, concurrency, waits };
      const fleet = await Promise.all(Array.from({ length: size }, () => ReconcileProcess.start(stage, options)));
      const from = now() + warmupSeconds * 1000;
      const to = from + seconds * 1000;
      await new Promise(resolve => setTimeout(resolve, to - now()));
      const runs = (await Promise.all(fleet.map(worker => worker.take()))).flat();
      rates.push((runs.filter(([, at]) => at >= from && at < to).length * 1000) / (to - from));
      await Promise.all(fleet.map(worker => worker.stop()));
    }
    const [one = NaN] = rates;
    return fleets.map((size, at) => {
      const ideal: Reference = { name: 'so many times one worker', figure: { value: one * size }, atLeast: 0.95 };
      return {
        what: `${size} worker${size > 1 ? 's' : ''}`,
        unit: '1/s',
        ours: { value: rates[at] ?? NaN },
        references: size === 1 ? [] : [ideal],
      };
    });
  },
};
