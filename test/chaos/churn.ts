import pg from 'pg';
import { setTimeout as sleep } from 'node:timers/promises';
import { Fleet } from './fleet.js';
import { Random } from './random.js';
import { types, type Scale } from './scale.js';
import { judge, measure, show, type Look } from './sizes.js';
import { Violations } from './violations.js';
import { Writers } from './writers.js';

export interface Churn {
  violations: Violations;
  answered: number;
  /** Sizes at each look, the first when the log had reached its size. */
  looks: Look[];
}

/**
 * A day's churn in little: writes without end over the same objects, with workers, while the event log may hold so little that it
 * is replaced again and again, as it is each day at 200 writes a second. All sizes have to stay where they were at the half.
 *
 * @param scale its `writes` end the run too, a day of 200 a second has 17,280,000
 * @param minutes how long at most; housekeeping and autovacuum come once a minute, so five are the least that shows anything
 */
export async function churn(
  scale: Scale,
  { minutes, eventLogMax }: { minutes: number; eventLogMax: string },
  say: (text: string) => void,
): Promise<Churn> {
  const violations = new Violations();
  const fleet = await Fleet.start(scale, violations, { EVENT_LOG_MAX: eventLogMax });
  const database = new pg.Client({ connectionString: fleet.databaseUrl });
  const looks: Look[] = [];
  try {
    await database.connect();
    const writers = new Writers({
      scale,
      url: fleet.doors[0],
      prefix: 'o',
      random: new Random(scale.seed),
      violations,
    });
    const writing = writers.run();
    const written: number[] = [];
    while (looks.length < minutes && writers.answered < scale.writes) {
      await sleep(60_000);
      const sizes = await measure(database);
      looks.push(sizes);
      written.push(writers.answered);
      say(`${violations.time()} ${writers.answered} writes; ${show(sizes)}`);
    }
    writers.stop();
    await writing;
    judge(looks, { logMax: bytesOf(eventLogMax) * types.length, slack: 8 * 2 ** 20, written }, violations);
    return { violations, answered: writers.answered, looks };
  } finally {
    await database.end();
    await fleet.stop();
  }
}

/** Bytes of a size as EVENT_LOG_MAX has it. */
const bytesOf = (size: string) =>
  parseInt(size, 10) * (size.endsWith('GiB') ? 2 ** 30 : size.endsWith('MiB') ? 2 ** 20 : 1);
