import { randomUUID } from 'node:crypto';
import { expect } from 'chai';
import pg from 'pg';
import { Connection } from 'rabbitmq-client';
import { eventExchange, parkingQueue } from '../amqp.js';
import { Database, ensureTypes, ObjectStore, registerController } from '../db/index.js';
import { createDatabase, type TestDatabase } from '../test/postgres.js';
import { registrationOf } from '../test/registration.js';
import { sharedRabbit, startRabbit, type Rabbit } from '../test/rabbitmq.js';
import { until } from '../test/until.js';
import { Bus } from './bus.js';

const types = ['curious', 'others'];

describe('what a replica tells of the broker', function () {
  this.timeout(90_000);
  let own: TestDatabase;
  let database: Database;
  let broker: Connection;
  let bus: Bus;
  before(async () => {
    const { url } = await sharedRabbit();
    own = await createDatabase();
    database = new Database({ connection: { connectionString: own.url }, log: () => undefined });
    await ensureTypes(
      database,
      types.map(type => ({ type, namespaced: true })),
    );
    broker = new Connection({ url: url });
    const options = { database, types, amqpUrl: url, eventLogMax: 2 ** 32, log: () => undefined };
    bus = new Bus({ ...options, instance: 'one' });
  });
  after(async () => {
    await bus.stop();
    await broker.close();
    await database.stop();
    await own.drop();
  });

  it('is what they look after now: who lost the lead tells no old number, nor does it when it comes back', async () => {
    const exchange = eventExchange('curious');
    await broker.exchangeDeclare({ exchange, type: 'direct', durable: true });
    await broker.queueDeclare(parkingQueue);
    await broker.queuePurge(parkingQueue);
    const publisher = broker.createPublisher({ confirm: true });
    await publisher.send({ routingKey: parkingQueue.queue, durable: true }, 'not ours');
    await publisher.close();
    await bus.start();
    const told = (parked: number, problems: number) => () =>
      bus.broker?.parked === parked && bus.broker.problems === problems;
    // Each registration makes the leader look at the broker, which it does every 10 s besides.
    const look = () => (bus.registered(), told(1, 1)());
    await until(look, { what: 'both findings', deadline: 30_000 });

    // Another one leads the work, then the relays too.
    const give = (names: string) =>
      database.query({
        text: `update syncsets.leases set holder = gen_random_uuid(), expires_at = clock_timestamp() + interval '1 hour'
          where name like $1 and not name like 'replica:%'`,
        values: [names],
      });
    await give('work');
    await until(told(0, 1), { what: 'only what the relay found' });
    await give('relay:%');
    await until(told(0, 0), { what: 'nothing that others look after now' });
    await broker.queuePurge(parkingQueue);
    await broker.exchangeDelete({ exchange });
    await database.query({ text: `delete from syncsets.leases where not name like 'replica:%'` });
    await until(() => bus.relays('curious'), { what: 'the relay to be back' });
    expect(told(0, 0)()).to.equal(true);
  });
});

describe('what a replica tells of a broker that dies', function () {
  this.timeout(90_000);
  let own: TestDatabase;
  let database: Database;
  let rabbit: Rabbit;
  let bus: Bus;
  before(async () => {
    rabbit = await startRabbit();
    own = await createDatabase();
    database = new Database({ connection: { connectionString: own.url }, log: () => undefined });
    await ensureTypes(database, [{ type: 'curious', namespaced: true }]);
    const options = { database, types: ['curious'], amqpUrl: rabbit.url, eventLogMax: 2 ** 32, log: () => undefined };
    bus = new Bus({ ...options, instance: 'one' });
    await bus.start();
  });
  after(async () => {
    await bus.stop();
    await database.stop();
    await own.drop();
    await rabbit.close();
  });

  it('is that it is away, also where it took no messages before', async () => {
    await until(() => bus.broker?.state === 'ok', { what: 'the broker', deadline: 30_000 });
    await rabbit.evaluate('vm_memory_monitor:set_vm_memory_high_watermark(0.00001)');
    // It blocks those who publish.
    const [uid, name] = [randomUUID(), 'unpublished'];
    const object = JSON.stringify({ name, uid });
    const item = { op: 'create', namespace: 'a', name, uid, object, labels: {}, actor: 'client' } as const;
    await new ObjectStore(database).write('curious', { ...item, changed: ['spec'], own: false });
    await until(() => bus.broker?.state === 'blocked', { what: 'the broker to block', deadline: 30_000 });
    await rabbit.kill();
    await until(() => bus.broker?.state === 'away', { what: 'the broker to be away' });
  });
});

describe('a replica that stops', () => {
  it('leaves the lead to others although one of its statements waits for a lock', async () => {
    const own = await createDatabase();
    const database = new Database({ connection: { connectionString: own.url }, log: () => undefined });
    const other = new pg.Client({ connectionString: own.url });
    const { url } = await sharedRabbit();
    const options = { database, types, amqpUrl: url, eventLogMax: 2 ** 32, log: () => undefined };
    const bus = new Bus({ ...options, instance: 'stopping' });
    try {
      await ensureTypes(
        database,
        types.map(type => ({ type, namespaced: true })),
      );
      await registerController(database, registrationOf('waiting', 'curious', 15));
      await bus.start();
      await until(() => bus.relays('curious'), { what: 'the lead' });
      const store = new ObjectStore(database);
      const write = async (name: string) => {
        const key = { namespace: 'default', name };
        const uid = randomUUID();
        const object = JSON.stringify({ type: 'curious', ...key, uid, generation: 1 });
        const written = { op: 'create', uid, object, labels: {}, actor: 'client', own: false } as const;
        await store.write('curious', { ...key, ...written, changed: ['spec'] });
        bus.wrote('curious');
      };
      const states = async () =>
        database.query<{ sent: boolean }>({
          text: `select sent_at is not null as sent from syncsets.work where controller = 'waiting'`,
        });
      await write('first');
      await until(async () => (await states())[0]?.sent === true, { what: 'the first message' });
      await other.connect();
      await other.query('begin');
      await other.query(`select from syncsets.cursors where type = 'curious' for update`);
      await write('second');
      const waiting = 'select from pg_locks where not granted and transactionid is not null';
      await until(async () => (await other.query(waiting)).rows.length > 0, { what: 'the relay to wait' });
      const stopped = bus.stop();
      const leads = `select from syncsets.leases where not name like 'replica:%' and expires_at > clock_timestamp()`;
      await until(async () => (await other.query(leads)).rows.length === 0, { what: 'the lead to be free' });
      await other.query('rollback');
      await stopped;
      expect(await states()).to.have.length(2);
    } finally {
      await other.end();
      await bus.stop();
      await database.stop();
      await own.drop();
    }
  });
});
