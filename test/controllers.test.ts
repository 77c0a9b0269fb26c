import { expect } from 'chai';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startApi, type TestApi } from './platform.js';
import { startRabbit, type Rabbit } from './rabbitmq.js';
import { until } from './until.js';

interface Entry {
  replica: number;
  /** Milliseconds on the machine's monotonic clock. */
  at: number;
  key: string;
  begins?: boolean;
  ends?: boolean;
  started?: boolean;
  version?: string;
  wrote?: string;
  failed?: string;
}

for (const transport of ['rabbitmq', 'postgres'] as const) {
  describe(`controllers (${transport})`, function () {
    this.timeout(240_000);
    let rabbit: Rabbit | undefined;
    let api: TestApi;
    let folder: string;
    let serial = 0;
    let controller: string;
    let replicas: ChildProcess[] = [];

    before(async () => {
      rabbit = transport === 'rabbitmq' ? await startRabbit() : undefined;
      api = await startApi(rabbit ? { amqpUrl: rabbit.url } : {});
      folder = mkdtempSync(join(tmpdir(), 'syncsets-journal-'));
    });
    beforeEach(() => {
      controller = `journey${++serial}`;
    });
    afterEach(async () => {
      for (const replica of replicas) replica.kill('SIGKILL');
      replicas = [];
      await api.call('DELETE', `/v1/controllers/${controller}`);
    });
    after(async () => {
      await api.stop();
      await rabbit?.close();
      rmSync(folder, { recursive: true });
    });

    function journal(): Entry[] {
      const file = join(folder, controller);
      if (!existsSync(file)) return [];
      return readFileSync(file, 'utf8')
        .trim()
        .split('\n')
        .map(line => JSON.parse(line) as Entry);
    }

    async function startReplicas(count: number, pause = 5): Promise<ChildProcess[]> {
      const args = [
        '--import',
        'tsx',
        join(import.meta.dirname, 'replica.ts'),
        controller,
        api.url,
        join(folder, controller),
        String(pause),
        rabbit?.url ?? '',
      ];
      const started = Array.from({ length: count }, () =>
        spawn(process.execPath, args, { stdio: ['ignore', 'inherit', 'inherit'] }),
      );
      replicas.push(...started);
      await until(() => journal().filter(entry => entry.started).length === replicas.length, {
        what: 'the replicas to start',
        deadline: 90_000,
      });
      return started;
    }

    const idle = async () => {
      const { body } = await api.call('GET', `/v1/controllers/${controller}`);
      return body.queued === 0 && body.claimed === 0 && body.waiting === 0;
    };

    /** Pairs of runs of one key that overlap. A run that was never ended was killed or lost, and ended with its claim. */
    function overlaps(): string[] {
      const open = new Map<string, Entry>();
      const found: string[] = [];
      for (const entry of journal().sort((a, b) => a.at - b.at)) {
        const before = open.get(entry.key);
        if (entry.begins) {
          if (before && replicas.some(one => one.pid === before.replica && one.signalCode === null))
            found.push(`${entry.key}: ${before.replica} and ${entry.replica}`);
          open.set(entry.key, entry);
        }
        if (entry.ends && before?.replica === entry.replica) open.delete(entry.key);
      }
      return found;
    }

    it('share 300 clusters between three replicas: each reconciled, none by two at once, none lost with a killed one', async () => {
      const names = Array.from({ length: 300 }, (_, i) => `${controller}-${i}`);
      const [, victim] = await startReplicas(3, 20);
      await Promise.all(names.map(name => api.call('POST', '/v1/clusters', { name })));
      await until(() => journal().filter(entry => entry.ends).length >= 60, {
        what: 'a fifth of the work',
        deadline: 20_000,
      });
      victim?.kill('SIGKILL');
      await Promise.all(
        names
          .slice(0, 100)
          .map(name => api.call('PATCH', `/v1/clusters/default/${name}`, { labels: { changed: 'meanwhile' } })),
      );
      await until(idle, { what: 'all work to be done', deadline: 40_000 });
      const runs = journal();
      expect(new Set(runs.filter(entry => entry.wrote).map(entry => entry.key))).to.include.all.keys(names);
      expect(overlaps()).to.deep.equal([]);
      expect(new Set(runs.map(entry => entry.replica)).size).to.equal(3);
      // Each key's last run saw the last version that the controller did not write itself.
      for (const name of names.slice(0, 100)) {
        const last = runs.filter(entry => entry.key === name && entry.begins).at(-1);
        const { body } = await api.call('GET', `/v1/clusters/default/${name}`);
        const [newest] = await api.database.query<{ version: number }>({
          text: `select max(version) as version from syncsets.events where type = 'clusters' and name = $1 and actor = 'client'`,
          values: [name],
        });
        expect(Number(last?.version), name).to.be.at.least(newest?.version ?? 0);
        expect(body.labels).to.deep.equal({ changed: 'meanwhile' });
      }
    });

    it('do not wake themselves by the status that they write', async () => {
      const [replica] = await startReplicas(1);
      const name = `${controller}-own`;
      await api.call('POST', '/v1/clusters', { name });
      await until(() => journal().some(entry => entry.key === name && entry.wrote), { what: 'the status' });
      await api.call('PATCH', `/v1/clusters/default/${name}`, { labels: { second: 'run' } });
      await until(() => journal().filter(entry => entry.key === name && entry.ends).length === 2, {
        what: 'the second run',
      });
      await until(idle, { what: 'quiet', deadline: 20_000 });
      // The relay has passed the status that the second run wrote when a later change of another object is done.
      await api.call('POST', '/v1/clusters', { name: `${name}-later` });
      await until(() => journal().some(entry => entry.key === `${name}-later` && entry.ends), {
        what: 'a later object',
      });
      expect(journal().filter(entry => entry.key === name && entry.begins)).to.have.length(2);
      expect((await api.call('GET', `/v1/clusters/default/${name}`)).body.status.nodeCount).to.equal(2);
      expect(replica?.exitCode).to.equal(null);
    });

    it('that were frozen for longer than their lease cannot write afterwards, and lose no key', async () => {
      const [frozen] = await startReplicas(1, 300);
      const name = `${controller}-frozen`;
      await api.call('POST', '/v1/clusters', { name });
      await until(() => journal().some(entry => entry.key === name && entry.begins), { what: 'the run' });
      frozen?.kill('SIGSTOP');
      await startReplicas(1, 5);
      await until(() => journal().some(entry => entry.key === name && entry.replica !== frozen?.pid && entry.wrote), {
        what: 'the other one',
        deadline: 20_000,
      });
      frozen?.kill('SIGCONT');
      await until(() => journal().some(entry => entry.key === name && entry.replica === frozen?.pid && entry.ends), {
        what: 'the late run to end',
      });
      expect(
        journal().filter(entry => entry.replica === frozen?.pid && entry.key === name && entry.wrote),
      ).to.deep.equal([]);
      expect((await api.call('GET', `/v1/clusters/default/${name}`)).body.status.nodeCount).to.equal(1);
    });

    it('learn of all clusters that a syncset named while nobody listened', async () => {
      await startReplicas(1);
      await until(idle, { what: 'quiet', deadline: 20_000 });
      const [gone] = replicas.splice(0);
      gone?.kill('SIGTERM');
      if (gone) await once(gone, 'exit');
      const names = ['a', 'b', 'c'].map(one => `${controller}-${one}`);
      const before = journal().length;
      await api.call('POST', '/v1/syncsets', { name: controller, clusterRefs: names.slice(0, 1), allowMissing: true });
      for (const name of names.slice(1))
        await api.call('PATCH', `/v1/syncsets/default/${controller}`, { clusterRefs: [name] });
      rmSync(join(folder, controller));
      expect(before).to.be.greaterThan(0);
      await startReplicas(1);
      await until(() => names.every(name => journal().some(entry => entry.key === name && entry.ends)), {
        what: 'the keys of all three',
      });
    });

    it('finish their work in hand when they are asked to stop', async () => {
      const [replica] = await startReplicas(1, 500);
      const name = `${controller}-stop`;
      await api.call('POST', '/v1/clusters', { name });
      await until(() => journal().some(entry => entry.key === name && entry.begins), { what: 'the run' });
      replica?.kill('SIGTERM');
      if (replica) await once(replica, 'exit');
      expect(replica?.exitCode).to.equal(0);
      expect(journal().some(entry => entry.key === name && entry.wrote)).to.equal(true);
      expect((await api.call('GET', `/v1/controllers/${controller}`)).body).to.include({ claimed: 0, workers: 0 });
    });

    if (transport === 'rabbitmq') {
      it('go on over HTTP while the broker is away, and over the broker when it is back', async () => {
        await startReplicas(2);
        await rabbit?.stop();
        await api.call('POST', '/v1/clusters', { name: `${controller}-away` });
        await until(() => journal().some(entry => entry.key === `${controller}-away` && entry.ends), {
          what: 'work without the broker',
        });
        await rabbit?.start();
        await until(async () => (await api.call('GET', '/readyz')).body.broker === 'ok', {
          what: 'the broker to be back',
          deadline: 30_000,
        });
        await api.call('POST', '/v1/clusters', { name: `${controller}-back` });
        await until(() => journal().some(entry => entry.key === `${controller}-back` && entry.ends), {
          what: 'work with the broker',
        });
      });
    }
  });
}
