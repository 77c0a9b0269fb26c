import { expect } from 'chai';
import { Connection, type AsyncMessage, type Publisher } from 'rabbitmq-client';
import { parkingQueue } from '../amqp.js';
import { sharedRabbit } from '../test/rabbitmq.js';
import { until } from '../test/until.js';
import { Broker } from './broker.js';
import { WorkQueue } from './work-queue.js';

describe('work queue', () => {
  const controller = `queue-${process.pid}`;
  const queue = {
    queue: `syncsets.work.${controller}`,
    durable: true,
    arguments: { 'x-queue-type': 'quorum' as const },
  };
  let connection: Connection;
  let publisher: Publisher;
  let brokers: Broker[];
  let queues: WorkQueue[];

  before(async function () {
    this.timeout(60_000);
    const { url } = await sharedRabbit();
    connection = new Connection(url);
    connection.on('error', () => undefined);
    publisher = connection.createPublisher({ confirm: true, queues: [queue] });
  });

  beforeEach(() => {
    brokers = [];
    queues = [];
  });

  afterEach(async () => {
    await Promise.all(queues.map(one => one.close()));
    await Promise.all(brokers.map(one => one.close()));
    await connection.queuePurge(queue.queue);
  });

  after(async () => {
    await connection.queueDelete(queue.queue);
    await publisher.close();
    await connection.close();
  });

  const listen = async (prefetch = 10) => {
    const { url } = await sharedRabbit();
    const broker = new Broker(url, { info: () => undefined, warn: () => undefined });
    const opened = new WorkQueue(broker, controller, prefetch);
    brokers.push(broker);
    queues.push(opened);
    await until(() => opened.isReady(), { what: 'the queue to be ready' });
    return opened;
  };
  const send = (message: object) => publisher.send({ routingKey: queue.queue, durable: true }, message);
  const key = (name: string) => ({ type: 'clusters', namespace: 'foo', name, uid: 'u', resourceVersion: '1' });
  const names = (messages: { keys: { name: string }[] } | undefined) => messages?.keys.map(({ name }) => name);
  /** Ready messages; those that a consumer holds do not count. */
  const ready = async () => (await connection.queueDeclare({ queue: queue.queue, passive: true })).messageCount;

  it('hands over what came together, each key once, and takes it off the queue when told to', async () => {
    const listener = await listen();
    for (const name of ['a', 'b', 'a', 'c']) await send(key(name));
    await until(async () => (await ready()) === 0, { what: 'the messages to be delivered' });
    const messages = await listener.take(10, { idleSeconds: 5 });
    expect(names(messages)).to.deep.equal(['a', 'b', 'c']);
    expect(messages?.keys[0]).to.deep.equal({ type: 'clusters', namespace: 'foo', name: 'a' });
    messages?.acknowledge();
    await listener.close();
    expect(await ready()).to.equal(0);
  });

  it('lets several wait at once: one gets a message, the others hear of silence', async () => {
    const listener = await listen();
    const taking = [listener.take(10, { idleSeconds: 5 }), listener.take(10, { idleSeconds: 5 })];
    await send(key('a'));
    const taken = await Promise.all(taking);
    expect(taken.map(names)).to.have.deep.members([['a'], undefined]);
    for (const messages of taken) messages?.acknowledge();
  });

  it('tells of events to map by messages without keys, and of silence by nothing', async () => {
    const listener = await listen();
    await send({ map: 'syncsets' });
    const messages = await listener.take(10, { idleSeconds: 5 });
    expect(messages?.keys).to.deep.equal([]);
    messages?.acknowledge();
    expect(await listener.take(10, { idleSeconds: 0.05 })).to.equal(undefined);
    const stop = new AbortController();
    const waiting = listener.take(10, { idleSeconds: 60, signal: stop.signal });
    stop.abort();
    expect(await waiting).to.equal(undefined);
  });

  it('waits for ever if it is to', async () => {
    const listener = await listen();
    const taking = listener.take(10, { idleSeconds: Infinity });
    await send(key('a'));
    const messages = await taking;
    expect(names(messages)).to.deep.equal(['a']);
    messages?.acknowledge();
  });

  it('hands nothing over to those who have given up, and keeps it for the others', async () => {
    const listener = await listen();
    for (const name of ['a', 'b']) await send(key(name));
    await until(async () => (await ready()) === 0, { what: 'the messages to be delivered' });
    (await listener.take(1, { idleSeconds: 5 }))?.acknowledge();
    expect(await listener.take(10, { idleSeconds: 5, signal: AbortSignal.abort() })).to.equal(undefined);
    const messages = await listener.take(10, { idleSeconds: 5 });
    expect(names(messages)).to.deep.equal(['b']);
    messages?.acknowledge();
  });

  it('tells those who wait when it is closed, and is not ready from then on', async () => {
    const listener = await listen();
    const waiting = listener.take(10, { idleSeconds: 3_600 });
    const closed = listener.close();
    expect(listener.isReady()).to.equal(false);
    expect(await waiting).to.equal(undefined);
    await closed;
    expect(await listener.take(10, { idleSeconds: 3_600 })).to.equal(undefined);
  });

  it('parks what the server would refuse together with all that came with it', async () => {
    const parked: { name: unknown; reason: unknown }[] = [];
    const consumer = connection.createConsumer(
      { queue: parkingQueue.queue, queueOptions: parkingQueue },
      ({ body, headers }: AsyncMessage) => {
        const { name } = body as { name: unknown };
        parked.push({ name, reason: headers?.['x-syncsets-reason'] });
      },
    );
    try {
      const listener = await listen();
      for (const name of ['nul\0', 'half\ud800', 'a']) await send(key(name));
      const messages = await listener.take(10, { idleSeconds: 5 });
      expect(names(messages)).to.deep.equal(['a']);
      messages?.acknowledge();
      await until(() => parked.length === 2, { what: 'two parked messages' });
      const reason = 'name holds a NUL character or half of a surrogate pair';
      expect(parked).to.have.deep.members(['nul\0', 'half\ud800'].map(name => ({ name, reason })));
    } finally {
      await consumer.close();
    }
  });

  it('returns what nobody took to other listeners when it is closed', async () => {
    const first = await listen();
    for (const name of ['a', 'b', 'c']) await send(key(name));
    await until(async () => (await ready()) === 0, { what: 'the messages to be delivered' });
    const taken = await first.take(1, { idleSeconds: 5 });
    expect(names(taken)).to.deep.equal(['a']);
    taken?.acknowledge();
    const second = await listen();
    await first.close();
    const rest = new Set<string>();
    while (rest.size < 2) {
      const messages = await second.take(10, { idleSeconds: 5 });
      if (!messages) break;
      for (const name of names(messages) ?? []) rest.add(name);
      messages.acknowledge();
    }
    expect([...rest].sort()).to.deep.equal(['b', 'c']);
  });
});
