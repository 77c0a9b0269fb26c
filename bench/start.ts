import { EmbeddedPostgres } from '../db/index.js';
import { now } from './clock.js';
import { startService } from './processes.js';
import type { Program } from './program.js';

const starts = 5;

/**
 * From the command behind `make run` to its line `ready:`, with data from an earlier start: the embedded Postgres, migration, API and
 * controllers. The median of five; the reference is the same Postgres alone.
 */
export const start: Program = {
  name: 'start',
  about: 'the platform from its command to its ready line',
  async run(stage) {
    const directory = await stage.directory();
    const platform = async () => {
      const env = { DATA_DIR: directory, PORT: '0', LOG_LEVEL: 'warn' };
      const begun = now();
      const service = await stage.own(() => startService(['--enable-source-maps', 'dist/main.js', 'run'], env));
      const seconds = (now() - begun) / 1000;
      await service.stop();
      return seconds;
    };
    const database = async () => {
      const server = stage.own(() => new EmbeddedPostgres({ dataDir: directory, log: () => undefined }));
      const begun = now();
      await server.start();
      const seconds = (now() - begun) / 1000;
      await server.stop();
      return seconds;
    };
    stage.say('first start, which makes the database');
    await platform();
    stage.say(`${starts} starts`);
    const ours = await times(starts, platform);
    const theirs = await times(starts, database);
    return [
      {
        what: 'to the ready line',
        unit: 's',
        ours: { value: ours },
        target: { atMost: 5 },
        references: [{ name: 'embedded Postgres alone', figure: { value: theirs } }],
      },
    ];
  },
};

/** The median of so many. */
async function times(count: number, measure: () => Promise<number>): Promise<number> {
  const all: number[] = [];
  while (all.length < count) all.push(await measure());
  return all.sort((a, b) => a - b)[count >> 1] ?? NaN;
}
