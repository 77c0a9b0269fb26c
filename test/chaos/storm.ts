import { Faults } from './faults.js';
import { Fleet } from './fleet.js';
import { judge, type Runs } from './judge.js';
import { startQueues } from './queues.js';
import { Random } from './random.js';
import type { Scale } from './scale.js';
import { Violations } from './violations.js';
import { startWatchers } from './watchers.js';
import { Writers } from './writers.js';

/** What a run saw. */
export interface Verdict {
  violations: Violations;
  answered: number;
  /** Writes whose answer was lost. */
  unknown: number;
  seconds: number;
  faults: Faults['counts'];
  /** By follower: changes taken, and repeats that were dropped. */
  followers: { name: string; received: number; repeated: number }[];
  connections: number;
  runs: Runs;
}

/**
 * Writes to a fleet of processes while faults happen to all of its parts, follows every change in every way there is, lets
 * workers reconcile, and judges the end: nothing lost, nothing doubled, nothing out of order, nobody twice at once.
 */
export async function storm(scale: Scale, say: (text: string) => void): Promise<Verdict> {
  const violations = new Violations();
  const random = new Random(scale.seed);
  const log = (text: string) => say(`${violations.time()} ${text}`);
  const stops: (() => Promise<void>)[] = [];
  try {
    const fleet = await Fleet.start(scale, violations);
    stops.push(() => fleet.stop());
    const [toWrite, toWatch, toFill] = fleet.doors;
    const watchers = startWatchers(scale.watchers, [toWatch], violations);
    stops.push(() => watchers.stop());
    const queues = await startQueues({ http: toFill, amqp: fleet.brokers }, violations);
    stops.push(() => queues.stop());
    log('everything is there');

    const faults = new Faults({ fleet, scale, random: random.fork('faults'), violations, say: log });
    const began = performance.now();
    const happening = faults.start();
    const writers = new Writers({ scale, urls: [toWrite], random: random.fork('writers'), violations });
    const seconds = () => (performance.now() - began) / 1_000;
    const progress = setInterval(() => {
      const { answered, unknown } = writers;
      log(`${answered.length} writes answered, ${unknown} not, ${violations.found.length} violations`);
    }, 10_000);
    stops.push(async () => {
      clearInterval(progress);
    });
    await writers.run();
    const took = seconds();
    if (scale.once) await happening;
    await faults.stop();
    log(`${writers.answered.length} writes in ${took.toFixed(0)} s; nothing is broken any more`);

    const followers = [...watchers.followers, ...queues.followers.map(follower => ({ follower, selective: false }))];
    const runs = await judge(
      {
        url: fleet.apis[0]?.url ?? '',
        followers,
        answered: writers.answered,
        journals: fleet.journals,
        settle: scale.settle,
      },
      violations,
    );
    log('judged');
    return {
      violations,
      answered: writers.answered.length,
      unknown: writers.unknown,
      seconds: took,
      faults: faults.counts,
      followers: followers.map(({ follower: { name, received, repeated } }) => ({ name, received, repeated })),
      connections: watchers.connections(),
      runs,
    };
  } finally {
    for (const stop of stops.reverse()) await stop();
  }
}

/** As lines for people. */
export function describe(verdict: Verdict): string[] {
  const { answered, unknown, seconds, faults, followers, connections, runs, violations } = verdict;
  return [
    `${answered} writes answered in ${seconds.toFixed(0)} s, ${unknown} without an answer`,
    `${faults.kill} kills, ${faults.freeze} freezes, ${faults.cut} cuts; ${connections} raw watch connections`,
    ...followers.map(({ name, received, repeated }) => `${name}: ${received} changes, ${repeated} of them repeats`),
    `${runs.runs} reconciles, ${runs.certain} with a certain claim, ${runs.watched} watched, ${runs.wrote} statuses written`,
    ...(violations.found.length === 0 ? ['no violation'] : violations.describe()),
  ];
}
