import { expect } from 'chai';
import { connect, type Client, type Cluster } from '../../client/index.js';
import { startApi, type TestApi } from '../../test/platform.js';
import { until } from '../../test/until.js';
import { TerminalError, type Controller } from './controller.js';
import { run, type Running } from './runtime.js';
import { quiet } from './testing/quiet.js';

describe('the health of a runtime', () => {
  let api: TestApi;
  let client: Client;
  let started: Running;
  /** What was told to the program that runs the controllers. */
  const told: string[] = [];
  const controller: Controller<Cluster> = {
    name: 'healthy',
    type: 'clusters',
    reconcile: cluster => {
      if (cluster?.name === 'fatal') return Promise.reject(new TerminalError('never'));
      return cluster?.name === 'bad' ? Promise.reject(new Error('no')) : Promise.resolve({ requeueAfter: '1h' });
    },
  };
  before(async () => {
    api = await startApi();
    client = connect({ url: api.url });
    started = await run([controller], {
      url: api.url,
      log: quiet,
      handleSignals: false,
      healthPort: 0,
      concurrency: 7,
      onAnswer: ({ method, code }) => told.push(`${method} ${code}`),
    });
  });
  after(async () => {
    await started.stop();
    await client.close();
    await api.stop();
  });

  it('is shown over HTTP, with metrics', async () => {
    for (const one of ['good', 'bad']) await client.clusters.create({ name: one });
    const get = async (path: string) => {
      const answer = await fetch(`http://127.0.0.1:${started.healthPort}${path}`);
      return { status: answer.status, text: await answer.text() };
    };
    expect(await get('/healthz')).to.include({ status: 200 });
    await until(async () => (await get('/readyz')).status === 200, { what: 'readiness' });
    await until(async () => (await get('/metrics')).text.includes('reconcile_errors_total{controller="healthy"} 1'), {
      what: 'the error to be counted',
    });
    const { text } = await get('/metrics');
    expect(text).to.include('controller_runtime_reconcile_total{controller="healthy",result="requeue_after"} 1');
    expect(text).to.include('controller_runtime_max_concurrent_reconciles{controller="healthy"} 7');
    expect(text).to.include('controller_runtime_reconcile_time_seconds_count{controller="healthy"}');
    await client.clusters.create({ name: 'fatal' });
    const count = (text: string, metric: string) =>
      Number(new RegExp(`${metric}{\\w+="healthy"} (\\d+)`).exec(text)?.[1]);
    const counted = await until(
      async () => {
        const { text } = await get('/metrics');
        return count(text, 'terminal_reconcile_errors_total') === 1 ? text : undefined;
      },
      { what: 'the terminal error to be counted' },
    );
    // Each run is of a key that was claimed; a failed one may have been claimed again meanwhile.
    const runs = ['success', 'error', 'requeue_after'].map(result =>
      Number(new RegExp(`reconcile_total{controller="healthy",result="${result}"} (\\d+)`).exec(counted)?.[1]),
    );
    const ended = runs.reduce((sum, one) => sum + one);
    expect(count(counted, 'workqueue_adds_total')).to.be.within(ended, ended + 3);
    // What failed for good is not tried again.
    expect(count(counted, 'workqueue_retries_total')).to.equal(count(counted, 'runtime_reconcile_errors_total') - 1);
    expect(await get('/nonsense')).to.include({ status: 404 });
  });

  it('counts the answers of the API, and leaves them to whoever else listens to them', async () => {
    const metrics = await (await fetch(`http://127.0.0.1:${started.healthPort}/metrics`)).text();
    expect(metrics).to.match(/rest_client_requests_total{code="200",method="PUT",host="[^"]+"} 1/);
    expect(told.filter(one => one === 'PUT 200')).to.have.length(1);
  });
});
