import { expect } from 'chai';
import { Connection } from 'rabbitmq-client';
import { connect, type Client } from '../../client/index.js';
import { startApi, type TestApi } from '../../test/platform.js';
import { startRabbit, type Rabbit } from '../../test/rabbitmq.js';
import { until } from '../../test/until.js';
import type { Controller } from './controller.js';
import { run, type Running } from './runtime.js';
import { quiet } from './testing/quiet.js';

describe('controller runtime with RabbitMQ', () => {
  let rabbit: Rabbit;
  let api: TestApi;
  let client: Client;
  let broker: Connection;
  const running: Running[] = [];

  before(async function () {
    this.timeout(60_000);
    rabbit = await startRabbit();
    api = await startApi({ amqpUrl: rabbit.url });
    client = connect({ url: api.url });
    broker = new Connection({ url: rabbit.url, retryLow: 100, retryHigh: 500 });
    broker.on('error', () => undefined);
  });

  after(async () => {
    await Promise.all(running.map(one => one.stop()));
    await client.close();
    await api.stop();
    await broker.close();
    await rabbit.close();
  });

  it('gets keys without a message from the replica that it waits at, and others by messages', async function () {
    this.timeout(60_000);
    const { controllers } = client;
    await controllers.register('direct', { type: 'syncsets' });
    const queue = 'syncsets.work.direct';
    await until(() => broker.queueDeclare({ queue, passive: true }).catch(() => false), { what: 'its queue' });
    const sent: string[] = [];
    const consumer = broker.createConsumer(
      { queue, queueOptions: { passive: true } },
      ({ body }: { body: { name: string } }) => void sent.push(body.name),
    );
    consumer.on('error', () => undefined);
    let attempts = 0;
    const direct = async () => {
      const name = `direct${attempts++}`;
      const worker = 'w';
      const polled = controllers.claimForMessages('direct', { worker, max: 10, messages: [], waitSeconds: 20 });
      await client.syncsets.create({ name, namespace: 'direct', clusterRefs: [] });
      const { claims } = await polled;
      const [claim] = claims;
      expect(claims).to.have.length(1);
      expect(claim).to.include({ kind: 'key', name });
      // Nobody waits any more: the next one comes as a message, after that of this one if there is one.
      const next = `next${attempts}`;
      await until(
        async () => {
          await controllers.enqueue('direct', { keys: [{ namespace: 'direct', name: next }] });
          return sent.includes(next);
        },
        { what: 'a message' },
      );
      await controllers.claim('direct', { worker, max: 10 });
      return !sent.includes(name);
    };
    // The call may come after the key was made, or a look of the feeder, ten times a second, in between.
    await until(direct, { what: 'a key without a message', deadline: 20_000 });
    await consumer.close();
    await controllers.remove('direct');
  });

  it('shares keys among replicas, goes on within 2 s without the broker, and returns to it', async function () {
    this.timeout(60_000);
    const runs = new Map<string, number>();
    const current = new Set<string>();
    const replicas = [0, 0, 0];
    let open: () => void = () => undefined;
    let gate = Promise.resolve();
    const close = () => {
      gate = new Promise(resolve => (open = resolve));
    };
    const controller = (replica: number): Controller => ({
      name: 'shared',
      type: 'clusters',
      watches: [{ type: 'syncsets', enqueue: set => ({ names: set.clusterRefs }) }],
      async reconcile(_, { key, client: own }) {
        if (current.has(key.name)) throw new Error('two at once');
        current.add(key.name);
        await own.clusters.read({ namespace: 'foo', name: key.name });
        await gate;
        current.delete(key.name);
        replicas[replica] = (replicas[replica] ?? 0) + 1;
        runs.set(key.name, (runs.get(key.name) ?? 0) + 1);
      },
    });
    const options = { url: api.url, amqpUrl: rabbit.url, log: quiet, handleSignals: false, concurrency: 8 };
    for (const replica of replicas.keys()) running.push(await run([controller(replica)], options));
    const queue = { queue: 'syncsets.work.shared', passive: true };
    const consumers = async () => (await broker.queueDeclare(queue)).consumerCount;
    await until(async () => (await consumers()) === 3, { what: 'three consumers' });

    // Nobody goes on before all have as much as they can take.
    close();
    const names = Array.from({ length: 150 }, (_, i) => `c${i}`);
    await Promise.all(names.map(name => client.clusters.create({ name, namespace: 'foo' })));
    await until(() => current.size === 24, { what: 'full slots of all replicas' });
    open();
    await until(() => runs.size === 150, { what: 'all keys' });
    expect([...runs.values()].every(count => count === 1)).to.equal(true);
    expect(Math.min(...replicas)).to.be.at.least(8);
    await until(async () => (await broker.queueDeclare(queue)).messageCount === 0, { what: 'an empty queue' });

    await client.syncsets.create({ name: 's', namespace: 'foo', clusterRefs: ['c1', 'c2'], allowMissing: true });
    await until(() => runs.get('c1') === 2 && runs.get('c2') === 2, { what: 'the keys of the watched object' });

    // The broker stops while all slots are taken and messages wait for one.
    close();
    const more = Array.from({ length: 60 }, (_, i) => `m${i}`);
    await Promise.all(more.map(name => client.clusters.create({ name, namespace: 'foo' })));
    await until(() => current.size === 24, { what: 'full slots' });
    await rabbit.stop();
    open();
    await until(() => more.every(name => runs.has(name)), { what: 'what had waited' });
    const stopped = performance.now();
    await client.clusters.create({ name: 'meanwhile', namespace: 'foo' });
    await until(() => runs.has('meanwhile'), { what: 'work without the broker' });
    expect(performance.now() - stopped).to.be.lessThan(2500);

    await rabbit.start();
    await until(async () => (await consumers()) === 3, { what: 'three consumers again' });
    await client.clusters.create({ name: 'afterwards', namespace: 'foo' });
    await until(() => runs.has('afterwards'), { what: 'work with the broker again' });
    await until(async () => (await client.controllers.read('shared')).claimed === 0, { what: 'the last result' });
    expect((await client.controllers.read('shared')).failing).to.equal(0);
  });
});
