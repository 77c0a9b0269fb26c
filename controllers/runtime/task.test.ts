import { expect } from 'chai';
import { connect, type Client } from '../../client/index.js';
import { startApi, type TestApi } from '../../test/platform.js';
import { until } from '../../test/until.js';
import { TerminalError } from './controller.js';
import { run, Runtime, type Running } from './runtime.js';
import type { Task } from './task.js';
import { quiet } from './testing/quiet.js';

describe('tasks', () => {
  let api: TestApi;
  let client: Client;
  let name: string;
  let names = 0;
  const running: Running[] = [];
  before(async () => {
    api = await startApi();
    client = connect({ url: api.url });
  });
  beforeEach(() => {
    name = `task-${++names}`;
  });
  afterEach(async () => {
    await Promise.all(running.splice(0).map(one => one.stop()));
  });
  after(async () => {
    await client.close();
    await api.stop();
  });

  it('runs a task at its first start and then every so often, whoever starts it', async () => {
    const times: number[] = [];
    let failures = 1;
    const tasks: Task = {
      name,
      every: '2s',
      run({ client: own, attempts }) {
        times.push(performance.now());
        if (failures-- > 0) return Promise.reject(new TerminalError('as good as any error'));
        expect(attempts).to.be.at.most(1);
        return own.clusters.list({ limit: 1 }).then(() => undefined);
      },
    };
    const options = { url: api.url, log: quiet, handleSignals: false };
    const first = await run([tasks], options);
    running.push(first);
    await until(() => times.length === 2, { what: 'the first run and its repetition' });
    await first.stop();
    running.push(await run([tasks], options), await run([{ ...tasks, every: '1h' }], options));
    await until(() => times.length === 3, { what: 'the next run' });
    expect((times[2] ?? 0) - (times[1] ?? 0)).to.be.within(1700, 6000);
    expect(() => new Runtime([{ ...tasks, every: 0.5 }], {})).to.throw(TypeError, 'at least 1 s');
  });

  it('brings a task forward when a newer release runs it more often', async () => {
    let runs = 0;
    const task: Task = {
      name,
      every: '1d',
      run: () => {
        runs++;
        return Promise.resolve();
      },
    };
    const options = { url: api.url, log: quiet, handleSignals: false };
    const former = await run([task], options);
    await until(async () => (await client.controllers.read(name)).waiting === 1, { what: 'the far date' });
    await former.stop();
    running.push(await run([{ ...task, every: '1s' }], options));
    await until(() => runs >= 2, { what: 'the run that came early' });
  });
});
