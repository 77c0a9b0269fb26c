import { expect } from 'chai';
import { randomUUID } from 'node:crypto';
import type { QueryResultRow } from 'pg';
import { Connection } from 'rabbitmq-client';
import { parkingQueue, workQueue } from '../amqp.js';
import {
  advanceWork,
  Database,
  enqueueKeys,
  ensureTypes,
  registerController,
  relayPosition,
  type Log,
  type QueueRoom,
} from '../db/index.js';
import { createDatabase, type TestDatabase } from '../test/postgres.js';
import { registrationOf } from '../test/registration.js';
import { startRabbit, type Rabbit } from '../test/rabbitmq.js';
import { until } from '../test/until.js';
import { Way } from '../test/way.js';
import { Feeder } from './feeder.js';
import { RabbitTransport } from './rabbitmq.js';
import { Wakeups } from './wakeups.js';

/** Throws messages away late, as where the broker takes its time. */
class LateTransport extends RabbitTransport {
  beforePurge: (() => Promise<void>) | undefined;

  override async purge(controller: string): Promise<void> {
    const { beforePurge } = this;
    this.beforePurge = undefined;
    await beforePurge?.();
    await super.purge(controller);
  }
}

describe('the feeder of work queues', function () {
  this.timeout(120_000);
  const warnings: string[] = [];
  const log: Log = (level, message) => {
    if (level === 'warn') warnings.push(message);
  };
  const type = 'fed';
  let broker: Rabbit;
  let own: TestDatabase;
  let database: Database;
  let way: Way;
  let rabbit: LateTransport;
  let wakeups: Wakeups;
  let feeder: Feeder;
  let listener: Connection;
  let serial = 0;
  let controller = '';

  before(async () => {
    broker = await startRabbit();
    own = await createDatabase();
    database = new Database({ connection: { connectionString: own.url }, log });
    await ensureTypes(database, [{ type, namespaced: true }]);
  });
  beforeEach(async () => {
    controller = `feeder${++serial}`;
    await registerController(database, registrationOf(controller, type, 15));
    const url = new URL(broker.url);
    way = new Way(new URL(url));
    url.port = String(await way.open());
    rabbit = new LateTransport({ url: url.href, types: [type], instance: 'test', log });
    wakeups = new Wakeups(database, log);
    feeder = new Feeder({ database, rabbit, wakeups, leads: () => true, traceOf: () => undefined, log });
    listener = new Connection({ url: broker.url, retryLow: 100, retryHigh: 500 });
    listener.on('error', () => undefined);
    feeder.start();
    await enqueue(0, 1);
    await until(async () => (await depth()) === 1, { what: 'the first message' });
  });
  afterEach(async () => {
    way.cut();
    await feeder.stop();
    await rabbit.stop();
    way.close();
    await listener.close();
  });
  after(async () => {
    await database.stop();
    await own.drop();
    await broker.close();
  });

  async function enqueue(from: number, to: number): Promise<void> {
    const targets = Array.from({ length: to - from }, (_, i) => ({
      type,
      namespace: 'default',
      name: `key${from + i}`,
    }));
    await enqueueKeys(database, controller, targets, { priority: 0, reason: 'enqueued' });
    wakeups.wake(`work:${controller}`);
  }
  const depth = async () => {
    const { messageCount } = await listener.queueDeclare({ queue: workQueue(controller), passive: true });
    return messageCount;
  };
  const marked = async () => {
    const [row] = await database.query<{ count: number }>({
      text: 'select count(*) from syncsets.work where controller = $1 and sent_at is not null',
      values: [controller],
    });
    return row?.count ?? 0;
  };
  /** Marks three batches as sent, each once the one before is. */
  async function sendThree(): Promise<void> {
    for (const keys of [10, 20, 30]) {
      await enqueue(keys - 9, keys + 1);
      await until(async () => (await marked()) === keys + 1, { what: `${keys + 1} marked keys` });
    }
  }
  /** Takes messages until all of some keys came, and returns how often each did. */
  async function messages(keys: number): Promise<Map<string, number>> {
    const came = new Map<string, number>();
    const consumer = listener.createConsumer(
      { queue: workQueue(controller), queueOptions: { passive: true }, qos: { prefetchCount: 100 } },
      ({ body }: { body: { name: string } }) => {
        came.set(body.name, (came.get(body.name) ?? 0) + 1);
      },
    );
    consumer.on('error', () => undefined);
    try {
      await until(() => came.size === keys, { what: `${keys} keys`, deadline: 20_000 });
    } finally {
      await consumer.close();
    }
    return came;
  }

  it('sends on while messages are unconfirmed, and sends again what is lost with the connection', async () => {
    way.hold('there');
    await sendThree();
    expect(await depth()).to.equal(1);
    way.cut();
    const came = await messages(31);
    expect([...came.values()]).to.deep.equal(Array(31).fill(1));
    expect(await marked()).to.equal(31);
  });

  it('sends again what the broker has, where the confirmations are lost', async () => {
    way.hold('back');
    await sendThree();
    await until(async () => (await depth()) === 31, { what: 'all messages' });
    way.cut();
    await until(async () => (await depth()) === 61, { what: 'the repeats' });
    expect((await messages(31)).get('key0')).to.equal(1);
    expect(await marked()).to.equal(31);
  });

  it('unmarks what the broker refuses, and sends it again until it is taken', async () => {
    const policy = `<<"/">>, <<"full">>`;
    const limit = (most: number) => {
      const definition = `[{<<"max-length">>, ${most}}, {<<"overflow">>, <<"reject-publish">>}]`;
      return `rabbit_policy:set(${policy}, <<"^syncsets">>, ${definition}, 0, <<"queues">>, <<"test">>)`;
    };
    expect(await broker.evaluate(limit(1))).to.equal('{ok, ok}');
    try {
      // The queue knows its limit a moment later.
      const probe = listener.createPublisher({ confirm: true });
      const message = { type, namespace: 'default', name: 'key0' };
      const refused = () =>
        probe.send({ routingKey: workQueue(controller), durable: true }, message).then(
          () => false,
          () => true,
        );
      await until(refused, { what: 'the limit to hold' });
      await probe.close();
      for (const keys of [10, 20, 30]) await enqueue(keys - 9, keys + 1);
      await until(() => warnings.some(line => line.includes('cannot be fed')), { what: 'a refusal' });
      await until(async () => (await marked()) < 31, { what: 'keys to be unmarked' });
      // A quorum queue that loses its limit altogether goes on refusing.
      expect(await broker.evaluate(limit(1_000))).to.equal('{ok, ok}');
      await messages(31);
      await until(async () => (await marked()) === 31, { what: 'all keys to be marked' });
    } finally {
      await broker.evaluate(`rabbit_policy:delete(${policy}, <<"test">>)`);
    }
  });

  /** Puts messages on the queue of keys that were claimed without them, more than it may hold of these. */
  async function leave(): Promise<void> {
    const left = listener.createPublisher({ confirm: true });
    const message = (i: number) => ({ type, namespace: 'default', name: `done${i}` });
    const send = (i: number) => left.send({ routingKey: workQueue(controller), durable: true }, message(i));
    await Promise.all(Array.from({ length: 1_100 }, (_, i) => send(i)));
    await left.close();
  }

  it('sends what a statement makes with that statement, as far as there is room, and the rest with the next', async () => {
    // More than the smallest window, of which one is out.
    const made = 100;
    const keys = Array.from({ length: made }, (_, i) => ({
      ...{ controller, namespace: 'default', name: `made${i}`, uid: randomUUID(), version: i + 1, reason: 'added' },
      priority: i === made - 1 ? 10 : 0,
    }));
    const { registrations } = await relayPosition(database, type);
    const names: string[][] = [];
    const { made: advanced, fed } = await feeder.feedWith(new Map([[controller, made]]), async rooms => {
      const step = { from: 0, to: made, registrations, keys, rooms };
      const one = await advanceWork(database, type, step);
      names.push(one?.sent.map(({ name }) => name) ?? []);
      return one;
    });
    expect(advanced?.woken).to.deep.equal([controller]);
    expect(names).to.deep.equal([[`made${made - 1}`, ...Array.from({ length: 62 }, (_, i) => `made${i}`)]]);
    // There is more to send.
    expect(fed).to.deep.equal([]);
    await until(async () => (await depth()) === 64, { what: 'a full window' });
    // One who lost against another leader makes nothing and sends nothing.
    const late = { from: 0, to: made, registrations, keys, rooms: [{ controller, keys: 10 }] };
    expect(await advanceWork(database, type, late)).to.equal(undefined);
    expect(await marked()).to.equal(64);
    await database.query({
      text: `delete from syncsets.work where controller = $1 and sent_at is not null`,
      values: [controller],
    });
    wakeups.wake(`work:${controller}`);
    await messages(made + 1);
  });

  it('gives room back when the statement fails, and sends nothing of statements that begin after its stop', async () => {
    const one = new Map([[controller, 9]]);
    const rooms: number[] = [];
    const look = (offered: QueueRoom[]) => {
      rooms.push(offered[0]?.keys ?? 0);
      return Promise.resolve({ woken: [], sent: [] });
    };
    const failure: unknown = await feeder
      .feedWith(one, () => Promise.reject(new Error('the database is away')))
      .catch((error: unknown) => error);
    expect(failure).to.have.property('message', 'the database is away');
    expect((await feeder.feedWith(one, look)).fed).to.deep.equal([controller]);
    await feeder.stop();
    expect((await feeder.feedWith(one, look)).fed).to.deep.equal([]);
    expect(rooms).to.deep.equal([10, 0]);
  });

  it('sends other keys while a statement that makes some waits', async () => {
    const sent = await feeder.feedWith(new Map([[controller, 1]]), async () => {
      await enqueue(1, 10);
      await until(async () => (await depth()) === 10, { what: 'the messages of others' });
      return { woken: [controller], sent: [] };
    });
    expect(sent.fed).to.deep.equal([controller]);
  });

  /** Counts how often the table is asked what is out, until the returned function is called. */
  function countLooks(): { looks: () => number; stop: () => void } {
    let looks = 0;
    const query = database.query.bind(database);
    database.query = async <Row extends QueryResultRow>(statement: Parameters<typeof query>[0]) => {
      if (statement.name === 'sent-keys') looks++;
      return query<Row>(statement);
    };
    return { looks: () => looks, stop: () => (database.query = query) };
  }

  it('says that keys wait which found no room while a statement had it', async () => {
    const { looks, stop } = countLooks();
    try {
      const { fed } = await feeder.feedWith(new Map([[controller, 63]]), async () => {
        await enqueue(1, 2);
        const before = looks();
        await until(() => looks() > before + 1, { what: 'a look at the queues' });
        return { woken: [controller], sent: [] };
      });
      expect(fed).to.deep.equal([]);
    } finally {
      stop();
    }
  });

  it('does not count for each new key how full a queue is that nobody reads', async () => {
    await enqueue(1, 70);
    await until(async () => (await depth()) === 64, { what: 'a full window' });
    const { looks, stop } = countLooks();
    try {
      await until(() => looks() >= 2, { what: 'two looks' });
      const [before, begun] = [looks(), performance.now()];
      for (let key = 70; key < 130; key++) await enqueue(key, key + 1);
      const regular = (performance.now() - begun) / 100;
      expect(looks() - before).to.be.at.most(regular + 3);
    } finally {
      stop();
    }
  });

  it('throws away what lies on a queue because its keys were claimed over HTTP, and sends what is queued again', async () => {
    await enqueue(1, 3);
    await until(async () => (await depth()) === 3, { what: 'three messages' });
    await leave();
    wakeups.wake('controllers');
    await until(async () => (await depth()) === 3, { what: 'the messages of queued keys alone', deadline: 20_000 });
    expect([...(await messages(3)).keys()].sort()).to.deep.equal(['key0', 'key1', 'key2']);
  });

  it('sends again at once what it sent between the count of what is out and the throwing away', async () => {
    await database.query({ text: 'delete from syncsets.work where controller = $1', values: [controller] });
    await leave();
    let thrown = false;
    rabbit.beforePurge = async () => {
      await enqueue(1, 3);
      await until(async () => (await depth()) === 1_103, { what: 'two messages among the others' });
      thrown = true;
    };
    wakeups.wake('controllers');
    await until(() => thrown, { what: 'the throwing away', deadline: 20_000 });
    // The next look at the queue, 10 s later, would find them too.
    await until(async () => (await depth()) === 2, { what: 'the messages of queued keys alone', deadline: 9_000 });
  });

  it('sends again what went with a deleted queue, where others have declared the parking queue their way', async () => {
    const { queue } = parkingQueue;
    await listener.queueDelete({ queue });
    await listener.queueDeclare({ queue, durable: true });
    try {
      await enqueue(1, 100);
      await until(async () => (await marked()) === 64, { what: 'a full window' });
      await until(async () => (await depth()) === 64, { what: 'its messages' });
      await listener.queueDelete({ queue: workQueue(controller) });
      // As if they had been out for long.
      await database.query({
        text: `update syncsets.work set sent_at = sent_at - interval '1 minute' where controller = $1`,
        values: [controller],
      });
      wakeups.wake('controllers');
      await until(async () => (await depth()) >= 64, { what: 'the messages again' });
      expect(rabbit.problems).to.deep.equal([queue]);
    } finally {
      await listener.queueDelete({ queue });
    }
  });

  it('loses no key and leaves none marked when the broker is killed with batches on their way', async () => {
    way.hold('there');
    await sendThree();
    await broker.kill();
    await until(() => !rabbit.connected, { what: 'the connection to break' });
    await until(async () => (await marked()) <= 1, { what: 'the keys to be unmarked' });
    way.cut();
    await broker.start();
    const came = await messages(31);
    expect([...came.keys()]).to.have.length(31);
    expect(await marked()).to.equal(31);
  });
});
