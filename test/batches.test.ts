import { randomUUID } from 'node:crypto';
import { expect } from 'chai';
import { call, spawnPlatform, type TestProcess } from './platform.js';
import { createDatabase, type TestDatabase } from './postgres.js';

describe('batches of an API that is killed', function () {
  this.timeout(90_000);
  let database: TestDatabase;
  let api: TestProcess;
  const start = () => spawnPlatform('api', { DATABASE_URL: database.url });

  before(async () => {
    database = await createDatabase();
    api = await start();
  });
  after(async () => {
    await api.end('SIGTERM');
    await database.drop();
  });

  const names = async () => {
    const found: string[] = [];
    for (let next = ''; ;) {
      const { body } = await call(api.url, 'GET', `/v1/clusters?limit=500${next}`);
      found.push(...body.items.map(({ name }: { name: string }) => name));
      if (body.continue === undefined) return found;
      next = `&continue=${encodeURIComponent(body.continue)}`;
    }
  };
  const creations = (prefix: string, count: number) =>
    Array.from({ length: count }, (_, i) => ({ op: 'create', type: 'clusters', object: { name: `${prefix}-${i}` } }));

  it('are stored as a whole or not at all, and a repetition with the same key completes them without doubles', async () => {
    const size = 50;
    const batches = Array.from({ length: 40 }, (_, i) => ({
      key: randomUUID(),
      body: { atomic: true, operations: creations(`atomic${i}`, size) },
    }));
    const send = ({ key, body }: (typeof batches)[number]) =>
      call(api.url, 'POST', '/v1/batch', body, { 'Idempotency-Key': key });
    let answered = 0;
    const killed = new Promise<void>((resolve, reject) => {
      const sent = batches.map(async batch => {
        await send(batch).catch(() => undefined);
        if (++answered === 8) await api.end('SIGKILL');
      });
      Promise.all(sent).then(() => resolve(), reject);
    });
    await killed;
    api = await start();
    const counts = new Map<string, number>();
    for (const name of await names()) {
      const prefix = name.replace(/-.*/, '');
      counts.set(prefix, (counts.get(prefix) ?? 0) + 1);
    }
    expect([...new Set(counts.values())]).to.deep.equal([size]);
    const answers = await Promise.all(batches.map(send));
    expect(answers.map(({ status }) => status)).to.deep.equal(batches.map(() => 200));
    for (const { body } of answers) {
      expect(new Set(body.results.map(({ status }: { status: number }) => status))).to.deep.equal(new Set([201]));
    }
    expect(new Set(await names()).size).to.equal(size * batches.length);
  });

  it('of a bulk load go on where they were', async () => {
    const before = (await names()).length;
    const count = 5_000;
    const lines = creations('load', count).map(operation => `${JSON.stringify(operation)}\n`);
    const headers = { 'Content-Type': 'application/x-ndjson', 'Idempotency-Key': randomUUID() };
    const load = async (onLine: (line: string) => void) => {
      const response = await fetch(`${api.url}/v1/batch`, { method: 'POST', headers, body: lines.join('') });
      let rest = '';
      const decoder = new TextDecoder();
      for await (const chunk of response.body ?? []) {
        const parts = (rest + decoder.decode(chunk as Uint8Array, { stream: true })).split('\n');
        rest = parts.pop() ?? '';
        parts.forEach(onLine);
      }
    };
    let heard = 0;
    await load(() => {
      if (++heard === 500) void api.end('SIGKILL');
    }).catch(() => undefined);
    await api.end('SIGKILL');
    expect(heard).to.be.lessThan(count);
    api = await start();
    const stored = (await names()).length - before;
    expect(stored).to.be.within(500, count - 1);
    const statuses: number[] = [];
    await load(line => statuses.push((JSON.parse(line) as { status: number }).status));
    expect(statuses).to.deep.equal(lines.map(() => 201));
    expect((await names()).length - before).to.equal(count);
  });
});
