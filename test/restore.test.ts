import { expect } from 'chai';
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { connect, isPlatformError, watch } from '../client/index.js';
import { call, encryptionKey, startApi, type TestApi } from './platform.js';
import { createDatabase, type TestDatabase } from './postgres.js';
import { program } from './program.js';
import { until } from './until.js';

describe('make raise-versions, after a restored backup', function () {
  this.timeout(60_000);
  let original: TestDatabase;
  let restored: TestDatabase;
  let api: TestApi | undefined;

  before(async () => {
    original = await createDatabase();
  });
  after(async () => {
    await api?.stop();
    await restored.drop();
    await original.drop();
  });

  async function raise(databaseUrl: string): Promise<{ code: number | null; output: string }> {
    const child = spawn(process.execPath, [...program, 'raise-versions'], {
      cwd: join(import.meta.dirname, '..'),
      env: {
        PATH: process.env['PATH'] ?? '',
        DATABASE_URL: databaseUrl,
        ENCRYPTION_KEY: encryptionKey.toString('base64'),
      },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const chunks: Buffer[] = [];
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => chunks.push(chunk));
    const code = await new Promise<number | null>(resolve => child.once('close', resolve));
    return { code, output: Buffer.concat(chunks).toString() };
  }

  it('gives no version twice: watchers list again, claims are void, everything is enqueued', async () => {
    const first = (api = await startApi({ databaseUrl: original.url }));
    await first.call('PUT', '/v1/controllers/keeper', { type: 'clusters' });
    for (const name of ['kept', 'changed']) await first.call('POST', '/v1/clusters', { name });
    const claim = () => first.call('POST', '/v1/controllers/keeper/claims', { worker: 'w', max: 10, waitSeconds: 5 });
    const claimed = await until(async () => (await claim()).body.claims[0] as { token: string; name: string }, {
      what: 'a claim',
    });
    await first.stop();
    restored = await original.copy();

    // What the backup does not hold, and a watcher has seen.
    const lost = (api = await startApi({ databaseUrl: original.url }));
    for (let i = 0; i < 3; i++)
      await lost.call('PATCH', '/v1/clusters/default/changed', { labels: { turn: String(i) } });
    const seen = await lost.call('POST', '/v1/clusters', { name: 'gone' });
    const version = Number(seen.body.resourceVersion);
    await lost.stop();

    const { code, output } = await raise(restored.url);
    expect(code, output).to.equal(0);
    const backup = version - 4;
    expect(output).to.contain(`clusters: versions go on after ${backup + 1_000_000} (the backup had ${backup})`);

    const again = (api = await startApi({ databaseUrl: restored.url }));
    for (const since of [backup, version]) {
      const answer = await call(again.url, 'GET', `/v1/clusters?watch=true&resourceVersion=${since}`);
      expect([answer.status, answer.body.error.code]).to.deep.equal([410, 'Expired']);
    }
    const client = connect({ url: again.url });
    expect((await client.clusters.list()).items.map(({ name }) => name)).to.deep.equal(['changed', 'kept']);
    const told: string[] = [];
    const stop = new AbortController();
    const following = (async () => {
      for await (const { type, object } of watch(client.clusters, { signal: stop.signal }))
        told.push(`${type} ${object.name}`);
    })();
    await until(() => told.length === 2, { what: 'the objects of the backup' });
    const created = await client.clusters.create({ name: 'fresh' });
    expect(Number(created.resourceVersion)).to.equal(backup + 1_000_001);
    await until(() => told.length === 3, { what: 'the new object' });
    expect(told).to.deep.equal(['ADDED changed', 'ADDED kept', 'ADDED fresh']);
    stop.abort();
    await following;

    const late = await client
      .with({ claim: claimed.token })
      .clusters.patch({ name: claimed.name }, { labels: {} })
      .then(
        () => undefined,
        (error: unknown) => error,
      );
    expect(isPlatformError(late, 'Fenced')).to.equal(true);
    const names = new Set<string>();
    await until(
      async () => {
        const { body } = await again.call('POST', '/v1/controllers/keeper/claims', { worker: 'v', max: 10 });
        for (const { name } of body.claims) names.add(name as string);
        return names.size === 3;
      },
      { what: 'all keys' },
    );
    await client.close();
  });
});
