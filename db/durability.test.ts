import { expect } from 'chai';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { until } from '../test/until.js';
import { registerController } from './controllers.js';
import { Database } from './database.js';
import { EmbeddedPostgres } from './embedded.js';
import { migrate } from './migrate.js';
import { ensureTypes } from './types.js';
import { enqueueKeys } from './enqueue.js';
import { claimKeys } from './work.js';

describe('claims', function () {
  this.timeout(60_000);
  let dataDir: string;
  const stops: (() => Promise<unknown>)[] = [];
  before(async () => (dataDir = await mkdtemp(join(tmpdir(), 'durability-'))));
  afterEach(stop);
  after(() => rm(dataDir, { recursive: true }));

  async function stop(): Promise<void> {
    for (const each of stops.splice(0).reverse()) await each();
  }

  async function start(): Promise<Database> {
    await stop();
    const server = new EmbeddedPostgres({ dataDir, log: () => undefined });
    stops.push(() => server.stop());
    const connection = { connectionString: (await server.start()).url };
    const database = new Database({ connection, log: () => undefined });
    stops.push(() => database.stop());
    await migrate(connection, () => undefined);
    await ensureTypes(database, [{ type: 'things', namespaced: true }]);
    return database;
  }

  it('outlive a kill -9 of Postgres as soon as a worker knows of them: no second worker gets the key', async () => {
    const database = await start();
    const file = join(dataDir, 'postgres', 'postmaster.pid');
    const pid = Number((await readFile(file, 'utf8')).split('\n')[0]);
    const registration = {
      type: 'things',
      on: ['spec'],
      watches: [],
      claimSeconds: 60,
      revision: 0,
      reveal: [],
      interests: [],
    };
    await registerController(database, { ...registration, name: 'ctl', longRunning: false });
    const keys = Array.from({ length: 20 }, (_, i) => ({ type: 'things', namespace: 'default', name: `k${i}` }));
    await enqueueKeys(database, 'ctl', keys, { priority: 0, reason: 'test' });
    const claim = { controller: 'ctl', worker: 'first', max: 10, seconds: 60 };
    const { keys: claimed } = await claimKeys(database, claim);
    process.kill(pid, 'SIGKILL');
    expect(claimed).to.have.length(10);
    await until(
      () =>
        database.query({ text: 'select 1' }).then(
          () => false,
          () => true,
        ),
      { what: 'the database to be gone' },
    );

    const { keys: others } = await claimKeys(await start(), { ...claim, worker: 'second', max: 100 });
    const names = new Set(claimed.map(({ name }) => name));
    expect(others.filter(({ name }) => names.has(name))).to.deep.equal([]);
    expect(others).to.have.length(10);
  });
});
