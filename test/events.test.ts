import { expect } from 'chai';
import { connect, events, watch, type Client, type Cluster, type WatchEvent } from '../client/index.js';
import { createDatabase, type TestDatabase } from './postgres.js';
import { spawnPlatform, startApi, type TestApi, type TestProcess } from './platform.js';
import { freePort } from './ports.js';
import { startRabbit, type Rabbit } from './rabbitmq.js';
import { until } from './until.js';

/** What a listener has seen: versions in their order, and the state that they add up to. */
class Listener {
  readonly versions: number[] = [];
  readonly state = new Map<string, string>();
  readonly ended: Promise<void>;

  constructor(stream: AsyncIterable<WatchEvent<Cluster>>) {
    this.ended = this.#follow(stream);
  }

  async #follow(stream: AsyncIterable<WatchEvent<Cluster>>): Promise<void> {
    for await (const event of stream) {
      this.versions.push(Number(event.resourceVersion));
      const key = `${event.object.namespace}/${event.object.name}`;
      if (event.type === 'DELETED') this.state.delete(key);
      else this.state.set(key, event.object.resourceVersion);
    }
  }

  isOrdered(): boolean {
    return this.versions.every((version, i) => i === 0 || version > (this.versions[i - 1] ?? 0));
  }
}

async function stored(api: { url: string }): Promise<Map<string, string>> {
  const client = connect({ url: api.url });
  const state = new Map<string, string>();
  for await (const object of client.clusters.all())
    state.set(`${object.namespace}/${object.name}`, object.resourceVersion);
  await client.close();
  return state;
}

describe('events', function () {
  this.timeout(120_000);

  describe('with RabbitMQ and two replicas of the API', () => {
    let rabbit: Rabbit;
    let api: TestApi;
    let replica: TestApi;
    let clients: Client[];
    const stop = new AbortController();
    before(async () => {
      rabbit = await startRabbit();
      api = await startApi({ amqpUrl: rabbit.url });
      replica = await startApi({ amqpUrl: rabbit.url, databaseUrl: api.databaseUrl });
      clients = [api, replica].map(({ url }) => connect({ url, amqpUrl: rabbit.url }));
    });
    after(async () => {
      stop.abort();
      await Promise.all(clients.map(client => client.close()));
      await replica.stop();
      await api.stop();
      await rabbit.close();
    });

    it('reach two HTTP watchers and two bound queues, each every version once and in order', async () => {
      const listeners = clients.flatMap(client => [
        new Listener(watch(client.clusters, { since: '0', signal: stop.signal })),
        new Listener(events(client.clusters, { since: '0', signal: stop.signal })),
      ]);
      await Promise.all(
        Array.from({ length: 16 }, async (_, i) => {
          const { clusters } = clients[i % 2] ?? clients[0]!;
          for (let n = 0; n < 20; n++) {
            const name = `e${i}-${n}`;
            await clusters.create({ name });
            await clusters.patch({ name }, { labels: { n: String(n) } });
            if (n % 3 === 0) await clusters.remove({ name });
          }
        }),
      );
      const expected = await stored(api);
      for (const listener of listeners) {
        await until(
          () =>
            listener.state.size === expected.size &&
            [...expected].every(([key, version]) => listener.state.get(key) === version),
          {
            what: 'a listener to have the state of the database',
            deadline: 30_000,
          },
        );
        expect(listener.isOrdered()).to.equal(true);
        expect(new Set(listener.versions).size).to.equal(listener.versions.length);
      }
      stop.abort();
      await Promise.all(listeners.map(listener => listener.ended));
    });
  });

  for (const transport of ['rabbitmq', 'postgres'] as const) {
    it(`lose no write that was answered when the API is killed in the middle of 2,000 (${transport})`, async () => {
      const rabbit: Rabbit | undefined = transport === 'rabbitmq' ? await startRabbit() : undefined;
      const database: TestDatabase = await createDatabase();
      const env = {
        DATABASE_URL: database.url,
        PORT: String(await freePort()),
        ...(rabbit ? { AMQP_URL: rabbit.url } : {}),
      };
      let api: TestProcess = await spawnPlatform('api', env);
      const { url } = api;
      const client = connect({ url, retrySeconds: 60, ...(rabbit ? { amqpUrl: rabbit.url } : {}) });
      const stop = new AbortController();
      const listeners = [1, 2].map(() => new Listener(watch(client.clusters, { since: '0', signal: stop.signal })));
      if (rabbit) listeners.push(new Listener(events(client.clusters, { since: '0', signal: stop.signal })));
      const answered = new Set<string>();
      let next = 0;
      let killed: Promise<void> | undefined;
      let stoppedAt = -Infinity;
      const faults = async () => {
        if (rabbit) await rabbit.stop();
        stoppedAt = performance.now();
        await api.end('SIGKILL');
        api = await spawnPlatform('api', env);
      };
      await Promise.all(
        Array.from({ length: 16 }, async () => {
          while (next < 2_000) {
            const name = `k${next++}`;
            if (next === 700) killed = faults();
            await client.clusters.create({ name }).then(
              () => answered.add(name),
              // A write whose answer was lost may be stored or not; only answered ones are promised.
              (error: unknown) =>
                expect(String(error)).to.match(/ECONN|socket|AlreadyExists|exists already|unavailable/i),
            );
          }
        }),
      );
      await killed;
      if (rabbit) {
        // As long as a node takes to be restarted elsewhere: connections, confirms and the relay's patience all run out.
        await until(() => performance.now() - stoppedAt > 20_000, { what: '20 s without a broker', deadline: 25_000 });
        await rabbit.start();
      }
      const expected = await stored({ url });
      for (const name of answered) expect(expected.has(`default/${name}`), name).to.equal(true);
      for (const listener of listeners) {
        await until(() => listener.state.size === expected.size, {
          what: 'a listener to resume and see all',
          deadline: 60_000,
        });
        expect([...expected].every(([key, version]) => listener.state.get(key) === version)).to.equal(true);
        expect(listener.versions).to.have.length(expected.size);
        expect(listener.isOrdered()).to.equal(true);
      }
      stop.abort();
      await Promise.all(listeners.map(listener => listener.ended));
      await client.close();
      await api.end('SIGTERM');
      await rabbit?.close();
      await database.drop();
    });
  }
});
