import { Faults } from './faults.js';
import { Fleet } from './fleet.js';
import { judge, type Runs } from './judge.js';
import { startQueues, type Queues } from './queues.js';
import { Random } from './random.js';
import type { Scale } from './scale.js';
import { Violations } from './violations.js';
import { startWatchers, type Watchers } from './watchers.js';
import { Writers, type Answered } from './writers.js';

/** What a storm left behind. Followers and runs are counted from the beginning. */
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

/** A fleet with everybody who follows its changes, for one storm or several. */
export class Scene {
  readonly violations: Violations;
  readonly #fleet: Fleet;
  readonly #watchers: Watchers;
  readonly #queues: Queues;
  readonly #say: (text: string) => void;
  readonly #answered: Answered[] = [];
  #storms = 0;

  private constructor(parts: {
    fleet: Fleet;
    watchers: Watchers;
    queues: Queues;
    violations: Violations;
    say: (text: string) => void;
  }) {
    this.#fleet = parts.fleet;
    this.#watchers = parts.watchers;
    this.#queues = parts.queues;
    this.violations = parts.violations;
    this.#say = text => parts.say(`${parts.violations.time()} ${text}`);
  }

  static async start(scale: Scale, say: (text: string) => void): Promise<Scene> {
    const violations = new Violations();
    const fleet = await Fleet.start(scale, violations);
    const [, toWatch, toFill] = fleet.doors;
    const watchers = startWatchers(scale.watchers, toWatch, violations);
    try {
      const queues = await startQueues({ http: toFill, amqp: fleet.brokers }, violations);
      return new Scene({ fleet, watchers, queues, violations, say });
    } catch (error) {
      await watchers.stop();
      await fleet.stop();
      throw error;
    }
  }

  /**
   * Writes while faults happen to all parts of the fleet, then judges: nothing lost, nothing doubled, nothing out of order, no
   * object reconciled by two at once, each one's last state reconciled.
   */
  async storm(scale: Scale): Promise<Verdict> {
    const violations = this.violations;
    const random = new Random(scale.seed);
    const faults = new Faults({
      fleet: this.#fleet,
      scale,
      random: random.fork('faults'),
      violations,
      say: text => this.#say(text),
    });
    const writers = new Writers({
      scale,
      url: this.#fleet.doors[0],
      prefix: `s${this.#storms++}-`,
      random: random.fork('writers'),
      violations,
      onAnswered: write => this.#answered.push(write),
    });
    const began = performance.now();
    let told = violations.found.length;
    const progress = setInterval(() => {
      const { answered, unknown } = writers;
      // At once, since a long run may be ended by hand before it is judged; the first twenty, as at the end.
      for (const { kind, what } of violations.found.slice(told, 20)) this.#say(`${kind}: ${what}`);
      told = violations.found.length;
      this.#say(`${answered} writes answered, ${unknown} not, ${violations.found.length} violations`);
    }, 10_000);
    try {
      const happening = faults.start();
      await writers.run();
      if (scale.each !== undefined) await happening;
    } finally {
      clearInterval(progress);
      await faults.stop();
    }
    const seconds = (performance.now() - began) / 1_000;
    this.#say(`${writers.answered} writes in ${seconds.toFixed(0)} s; nothing is broken any more`);
    const queues = this.#queues.followers.map(follower => ({ follower, selective: false }));
    const followers = [...this.#watchers.followers, ...queues];
    const runs = await judge(
      {
        url: this.#fleet.apis[0]?.url ?? '',
        followers,
        answered: this.#answered,
        journals: this.#fleet.journals,
        settle: scale.settle,
      },
      violations,
    );
    this.#say('judged');
    return {
      violations,
      answered: writers.answered,
      unknown: writers.unknown,
      seconds,
      faults: faults.counts,
      followers: followers.map(({ follower: { name, received, repeated } }) => ({ name, received, repeated })),
      connections: this.#watchers.connections(),
      runs,
    };
  }

  async stop(): Promise<void> {
    await this.#queues.stop();
    await this.#watchers.stop();
    await this.#fleet.stop();
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
