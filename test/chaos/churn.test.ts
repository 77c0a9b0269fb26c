import { expect } from 'chai';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { run, type Running } from '../../controllers/index.js';
// Quiet, as those of the runtime's own tests.
import { quiet } from '../../controllers/runtime/testing/quiet.js';
import { maintainEventLog, migrate } from '../../db/index.js';
import { startApi, type TestApi } from '../platform.js';
import { until } from '../until.js';
import { PostgresServer } from './processes.js';
import { Random } from './random.js';
import { readScale, types } from './scale.js';
import { judge, measure, show, type Look } from './sizes.js';
import { Violations } from './violations.js';
import { Writers } from './writers.js';

/** Looks at the sizes; an hour of the event log passes between two. */
const looks = 9;
/** Bytes that the log of a type may hold: less than its empty partitions take, so that each hour drops the one before. */
const logMax = 2 ** 18;
/** Bytes that a table may grow by: a wave between two visits of vacuum. What leaks beyond it grows with the run. */
const slack = 2 ** 18;
/** Writes between two looks, at least. */
const writes = 100;

// What `make churn` does for half an hour with the log's own clock, here with one whose hours pass at once, and vacuum each second.
describe('a day of churn', function () {
  this.timeout(120_000);
  const violations = new Violations();
  let folder: string;
  let postgres: PostgresServer;
  let database: pg.Client;
  let api: TestApi;
  let running: Running | undefined;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'syncsets-churn-'));
    postgres = await PostgresServer.start(folder, { autovacuum_naptime: '1s' });
    await migrate({ connectionString: postgres.url }, () => undefined);
    api = await startApi({ databaseUrl: postgres.url });
    database = new pg.Client({ connectionString: postgres.url });
    await database.connect();
    const controllers = types.map(type => ({ name: `churn-${type}`, type, reconcile: () => Promise.resolve() }));
    running = await run(controllers, { url: api.url, log: quiet, handleSignals: false });
  });
  after(async () => {
    await running?.stop();
    await database.end();
    await api.stop();
    await postgres.stop();
    await rm(folder, { recursive: true, force: true, maxRetries: 10 });
  });

  it('leaves tables, indexes, catalogues and dead rows as they were', async () => {
    const scale = { ...readScale({}), writes: Infinity, objects: 100, lanes: 16, batching: 2, batch: 20 };
    const random = new Random(scale.seed);
    const writers = new Writers({ scale, url: api.url, prefix: 'o', random, violations });
    const writing = writers.run();
    const seen: Look[] = [];
    let dropped = 0;
    const written: number[] = [];
    const start = performance.now();
    while (seen.length < looks) {
      const due = writers.answered + writes;
      const now = new Date(Date.now() + (seen.length + 8) * 3_600_000);
      dropped += (await maintainEventLog(api.database, [...types], { maxBytes: logMax, now })).length;
      await until(() => writers.answered >= due, { what: `${writes} more writes`, deadline: 30_000 });
      // Vacuum comes once a second, however fast the writes are.
      await until(() => performance.now() - start > (seen.length + 1) * 1_000, { what: 'the next second' });
      seen.push(await measure(database));
      written.push(writers.answered);
    }
    writers.stop();
    await writing;
    expect(dropped).to.be.at.least(looks);
    judge(seen, { logMax: logMax * types.length, slack, written }, violations);
    const story = [`seed ${scale.seed}`, ...seen.map(show)].join('\n');
    expect(
      violations.found.map(({ kind, what }) => `${kind}: ${what}`),
      story,
    ).to.deep.equal([]);
  });
});
