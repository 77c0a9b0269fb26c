import { expect } from 'chai';
import { spawn, type ChildProcess } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { startApi, type TestApi } from '../../test/platform.js';
import { until } from '../../test/until.js';

describe('a process of controllers', function () {
  this.timeout(60_000);
  let api: TestApi;
  const children: ChildProcess[] = [];

  before(async () => {
    api = await startApi();
  });

  afterEach(async () => {
    for (const child of children.splice(0)) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      const ended = new Promise(resolve => child.once('exit', resolve));
      child.kill('SIGKILL');
      await ended;
    }
  });

  after(() => api.stop());

  const start = async (what: 'task' | 'careless') => {
    const script = join(import.meta.dirname, 'testing', 'process.ts');
    const child = spawn(process.execPath, ['--import', 'tsx', script, what, api.url], { stdio: 'pipe' });
    children.push(child);
    const lines: string[] = [];
    for (const stream of [child.stdout, child.stderr]) {
      createInterface({ input: stream }).on('line', line => lines.push(line));
    }
    const port = await until(() => lines.find(line => line.startsWith('port '))?.slice(5), {
      what: 'the start of the process',
      deadline: 40_000,
    });
    return { child, lines, port };
  };

  it('has a task run by one replica at a time, by another one soon after kill -9, and goes on at the set pace', async () => {
    const replicas = await Promise.all([start('task'), start('task')]);
    const began = (one: (typeof replicas)[number]) => one.lines.filter(line => line.startsWith('begin')).length;
    const runner = await until(() => replicas.find(one => began(one) > 0), { what: 'the first run' });
    const other = replicas.find(one => one !== runner)!;
    expect(began(other)).to.equal(0);
    const killedAt = performance.now();
    runner.child.kill('SIGKILL');
    await until(() => began(other) === 1, { what: 'the run of the other', deadline: 20_000 });
    // Two seconds on a machine with nothing else to do; the lease itself lasts 15.
    expect(performance.now() - killedAt).to.be.lessThan(8000);
    expect(began(runner)).to.equal(1);
    await api.call('POST', '/v1/clusters', { name: 'go', labels: { go: 'yes' } });
    await until(() => began(other) >= 4, { what: 'three more runs', deadline: 20_000 });
    const { body } = await api.call('GET', '/v1/controllers/lonely');
    expect(body).to.include({ type: '-', failing: 0 });
    expect([body.queued, body.claimed, body.waiting].filter(Boolean)).to.deep.equal([1]);
  });

  it('lives on when what a reconcile started fails where nobody catches it, and tells whose it was', async () => {
    const { lines, child, port } = await start('careless');
    const create = (name: string) => api.call('POST', '/v1/clusters', { name, namespace: 'careless' });
    const told = (text: string) =>
      until(() => lines.find(line => line.includes(text)), { what: text, deadline: 20_000 });
    await create('sync');
    await create('promise1');
    expect(await told('nobody caught an error')).to.include('nobody awaits this');
    await create('promise2');
    expect(await told('"name":"promise2"'))
      .to.include('"controller":"careless"')
      .and.include('nobody awaits this');
    await create('timer');
    expect(await told('thrown by a timer')).to.include('"name":"timer"');
    await create('good');
    await told('ran good');
    expect(child.exitCode).to.equal(null);
    // The last one may not have been reported yet, and the first one is tried again now and then.
    const failing = await until(
      async () => {
        const { body } = await api.call('GET', '/v1/controllers/careless/work?state=failing');
        return body.items.length > 0 && body.items;
      },
      { what: 'the error that was thrown' },
    );
    expect(failing.map((one: { name: string; lastError: string }) => [one.name, one.lastError])).to.deep.equal([
      ['sync', 'thrown at once'],
    ]);
    const metrics = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
    expect(metrics).to.include('controller_runtime_reconcile_panics_total{controller="careless"} 2');
    expect(metrics).to.include('controller_runtime_reconcile_panics_total{controller=""} 1');
  });
});
