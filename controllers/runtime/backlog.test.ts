import { expect } from 'chai';
import { connect, type Client } from '../../client/index.js';
import { startApi, type TestApi } from '../../test/platform.js';
import { until } from '../../test/until.js';
import { run, type Running } from './runtime.js';
import { quiet } from './testing/quiet.js';

/** Queued keys; `make bench BENCH=backlog` measures the time with a million. */
const backlog = Number(process.env['BACKLOG'] || 20_000);

describe('a controller with a long queue', () => {
  let api: TestApi;
  let client: Client;
  let running: Running | undefined;
  before(async () => {
    api = await startApi();
    client = connect({ url: api.url });
  });
  after(async () => {
    await running?.stop();
    await client.close();
    await api.stop();
  });

  it(`runs a user's edit next, however many keys are queued before it`, async function () {
    this.timeout(30_000 + backlog);
    const name = 'long-queue';
    await client.controllers.register(name, { type: 'clusters' });
    await api.database.query({
      text: `select syncsets.enqueue(array(select row($1, 'clusters', 'crowd', 'k' || n, null, null, 0, 'resync')::syncsets.key
        from generate_series(1, $2::integer) n))`,
      values: [name, backlog],
    });
    // Each run waits to be let go, so that what is claimed after the edit is seen.
    const runs: { key: string; go: () => void }[] = [];
    running = await run(
      [
        {
          name,
          type: 'clusters',
          // Nothing is claimed ahead of a free slot then, which else would be up to 50 ms of work.
          rateLimit: { perSecond: 1_000 },
          reconcile: (_, { key, signal }) =>
            new Promise<void>(resolve => {
              runs.push({ key: `${key.namespace ?? ''}/${key.name}`, go: resolve });
              signal.addEventListener('abort', () => resolve(), { once: true });
            }),
        },
      ],
      { url: api.url, log: quiet, handleSignals: false, concurrency: 1, drain: 0.1 },
    );
    await until(() => runs.length === 1, { what: 'the first key of the backlog' });
    expect(runs[0]?.key).to.match(/^crowd\//);
    await client.clusters.create({ namespace: 'people', name: 'edited' });
    const isQueued = async () => {
      const rows = await api.database.query({
        text: `select from syncsets.work where controller = $1 and name = 'edited' and state = 'queued'`,
        values: [name],
      });
      return rows.length === 1;
    };
    await until(isQueued, { what: 'the edit to be queued' });
    runs[0]?.go();
    await until(() => runs.length === 2, { what: 'the next run' });
    expect(runs[1]?.key).to.equal('people/edited');
  });
});
