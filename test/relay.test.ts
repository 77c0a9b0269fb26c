import { expect } from 'chai';
import { Database } from '../db/index.js';
import { call, spawnPlatform, type TestProcess } from './platform.js';
import { createDatabase, type TestDatabase } from './postgres.js';
import { listen, withoutRepeats } from './published.js';
import { sharedRabbit, startRabbit } from './rabbitmq.js';
import { until } from './until.js';

const exchange = 'syncsets.events.clusters';

const upTo = (count: number) => Array.from({ length: count }, (_, i) => i + 1);

/** The types that a replica leads. */
async function led({ url }: { url: string }): Promise<string[]> {
  const { body } = await call(url, 'GET', '/metrics');
  return [...String(body).matchAll(/^syncsets_relay_leader\{type="(\w+)"\} 1$/gm)].map(match => match[1] ?? '').sort();
}

describe('the relay', function () {
  this.timeout(60_000);
  let own: TestDatabase;
  let env: Record<string, string>;
  const started: TestProcess[] = [];

  before(async () => {
    env = { AMQP_URL: (await sharedRabbit()).url };
  });
  beforeEach(async () => {
    own = await createDatabase();
    env['DATABASE_URL'] = own.url;
  });
  afterEach(async () => {
    await Promise.all(started.splice(0).map(one => one.end('SIGKILL')));
    await own.drop();
  });

  const start = async () => {
    const one = await spawnPlatform('api', env);
    started.push(one);
    return one;
  };
  const pair = async () => {
    const [first, second] = [await start(), await start()];
    const all = (await led(first)).length > 0 ? await led(first) : await led(second);
    const types = await until(
      async () => {
        const [ours, theirs] = [await led(first), await led(second)];
        return (
          Math.abs(ours.length - theirs.length) <= 1 && ours.length + theirs.length >= all.length && [ours, theirs]
        );
      },
      { what: 'the types to be shared' },
    );
    const isFirst = types[0]?.includes('clusters') === true;
    return { leader: isFirst ? first : second, other: isFirst ? second : first, types: types.flat() };
  };

  it('is led by one replica for each type, and by the other at once when that one is told to stop', async () => {
    const { leader, other, types } = await pair();
    expect(new Set(types).size).to.equal(types.length);
    const ended = leader.end('SIGTERM');
    await until(async () => (await led(other)).includes('clusters'), { what: 'the other to lead' });
    await ended;
    expect(await led(other)).to.deep.equal([...types].sort());
  });

  it('is led by the other within a second of kill -9', async () => {
    const { leader, other } = await pair();
    const killed = performance.now();
    await leader.end('SIGKILL');
    await until(async () => (await led(other)).includes('clusters'), { what: 'the other to lead' });
    const milliseconds = performance.now() - killed;
    if (process.env['BENCH_PRINT']) console.log(`taken over after ${Math.round(milliseconds)} ms`);
    // 0.8 s and a look; twice as much for a machine that has other things to do.
    expect(milliseconds).to.be.below(2_000);
  });

  it('goes on under another leader when one is frozen, whose late steps change nothing', async () => {
    const { leader, other } = await pair();
    const database = new Database({ connection: { connectionString: own.url }, log: () => undefined });
    const queue = await listen(env['AMQP_URL'] ?? '', exchange);
    await call(other.url, 'PUT', '/v1/controllers/counter', { type: 'clusters' });
    const count = 400;
    const claimed = new Map<string, number>();
    const cursors: { work: number; published: number }[] = [];
    const over = new AbortController();
    const working = (async () => {
      const path = '/v1/controllers/counter/claims';
      while (!over.signal.aborted) {
        const { body } = await call(other.url, 'POST', path, { worker: 'w', max: 100, waitSeconds: 1 });
        const claims = body.claims as { token: string; name: string }[];
        for (const { name } of claims) claimed.set(name, (claimed.get(name) ?? 0) + 1);
        if (claims.length === 0) continue;
        const results = claims.map(({ token }) => ({ token, result: 'done' }));
        await call(other.url, 'POST', `${path}/done`, { results });
      }
    })();
    const looking = (async () => {
      while (!over.signal.aborted) {
        cursors.push(
          ...(await database.query<{ work: number; published: number }>({
            text: `select work, published from syncsets.cursors where type = 'clusters'`,
          })),
        );
      }
    })();
    try {
      for (let i = 0; i < count; i += 20) {
        const write = (n: number) => call(other.url, 'POST', '/v1/clusters', { name: `r${i + n}` });
        const written = Promise.all(upTo(20).map(write));
        // In the middle of what it relays, twice: once shortly, once for longer than its lease.
        if (i === 100 || i === 200) leader.process.kill('SIGSTOP');
        for (const { status } of await written) expect(status).to.equal(201);
        if (i === 120) leader.process.kill('SIGCONT');
        if (i !== 300) continue;
        await until(async () => (await led(other)).includes('clusters'), { what: 'the other to lead' });
        leader.process.kill('SIGCONT');
      }
      await until(() => claimed.size === count && withoutRepeats(queue.versions).length === count, {
        what: 'all to be worked on and published',
        deadline: 30_000,
      });
    } finally {
      over.abort();
      await Promise.all([working, looking]);
      await database.stop();
      await queue.close();
    }
    expect(withoutRepeats(queue.versions)).to.deep.equal(upTo(count));
    expect([...claimed.values()].filter(times => times > 1)).to.deep.equal([]);
    for (const cursor of ['work', 'published'] as const) {
      const seen = cursors.map(one => one[cursor]);
      expect(seen).to.deep.equal([...seen].sort((a, b) => a - b));
    }
  });

  // RELAY_BACKLOG=50000 for an hour's worth; 10 kB each.
  it('catches up in order and in bounded memory after the broker was away', async () => {
    const count = Number(process.env['RELAY_BACKLOG'] ?? 3_000);
    const rabbit = await startRabbit();
    let close: (() => Promise<void>) | undefined;
    const database = new Database({ connection: { connectionString: own.url }, log: () => undefined });
    try {
      const api = await spawnPlatform('api', { ...env, AMQP_URL: rabbit.url });
      started.push(api);
      const queue = await listen(rabbit.url, exchange);
      close = queue.close;
      await call(api.url, 'POST', '/v1/clusters', { name: 'first' });
      await until(() => queue.versions.length === 1, { what: 'the first event' });
      rabbit.pause();
      await database.query({
        text: `insert into syncsets.events (type, version, previous, at, op, namespace, name, uid, labels, object, before, changed, actor, own)
          select 'clusters', n, n - 1, clock_timestamp(), 'MODIFIED', 'default', 'first', gen_random_uuid(), '{}',
            jsonb_build_object('name', 'first', 'pad', (select string_agg(md5(n::text || i), '') from generate_series(1, 320) i)),
            null, '{spec}', 'client', false from generate_series(2, $1::integer) n`,
        values: [count],
      });
      await database.query({ text: `update syncsets.types set version = $1 where type = 'clusters'`, values: [count] });
      const rss = async () =>
        Number(
          /^process_resident_memory_bytes (\S+)/m.exec(String((await call(api.url, 'GET', '/metrics')).body))?.[1],
        );
      const before = await rss();
      rabbit.resume();
      let most = 0;
      const begun = performance.now();
      await until(
        async () => {
          most = Math.max(most, await rss());
          return queue.versions.at(-1) === count;
        },
        { what: 'all to be published', deadline: 30_000 + count * 2 },
      );
      if (process.env['BENCH_PRINT']) {
        const seconds = (performance.now() - begun) / 1_000;
        console.log(`${count} events in ${seconds.toFixed(1)} s, ${((most - before) / 2 ** 20).toFixed(0)} MiB more`);
      }
      expect(withoutRepeats(queue.versions)).to.deep.equal(upTo(count));
      // 3,000 events are 30 MB as they are, four times as much as strings, buffers and frames of AMQP. Node 20 takes 70 MiB, and 180
      // for 10,000; Node 24, whose young generation may grow further, 95 to 152 and 225 (145 with --max-semi-space-size=16).
      expect((most - before) / 2 ** 20).to.be.below(200);
    } finally {
      await close?.(); // or it looks for the broker for ever, and the process of the tests does not end
      await database.stop();
      await rabbit.close();
    }
  });
});
