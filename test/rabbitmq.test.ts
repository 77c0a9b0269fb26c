import { expect } from 'chai';
import { readdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename } from 'node:path';
import { Connection } from 'rabbitmq-client';
import { sharedRabbit, startRabbit, type Rabbit } from './rabbitmq.js';
import { until } from './until.js';

describe('a private RabbitMQ node', function () {
  this.timeout(90_000);
  let rabbit: Rabbit;
  let connection: Connection;
  const queue = 'durable';
  const queueOptions = { queue, durable: true, arguments: { 'x-queue-type': 'quorum' as const } };

  before(async () => {
    rabbit = await startRabbit();
    connection = new Connection({ url: rabbit.url, retryLow: 50, retryHigh: 200, acquireTimeout: 60_000 });
    connection.on('error', () => undefined);
    await connection.queueDeclare(queueOptions);
  });
  after(async () => {
    connection.unsafeDestroy();
    await rabbit.close();
  });

  async function publish(body: string): Promise<void> {
    const publisher = connection.createPublisher({ confirm: true, maxAttempts: 1 });
    await publisher.send({ routingKey: queue, durable: true }, body);
    await publisher.close();
  }

  async function take(): Promise<string | undefined> {
    const message = await connection.basicGet({ queue, noAck: true });
    return message === undefined ? undefined : String(message.body);
  }

  it('keeps what it confirmed through kill -9', async () => {
    await publish('before kill -9');
    await rabbit.kill();
    await rabbit.start();
    expect(await until(take, { what: 'the message', deadline: 30_000 })).to.equal('before kill -9');
  });

  it('confirms nothing while it is frozen, and everything afterwards', async () => {
    rabbit.pause();
    let confirmed = false;
    const sent = publish('while frozen').then(() => (confirmed = true));
    const other = new Connection({ url: rabbit.url, connectionTimeout: 300 });
    const failed = new Promise(resolve => other.once('error', resolve));
    expect(await failed).to.be.instanceOf(Error);
    other.unsafeDestroy();
    expect(confirmed).to.equal(false);
    rabbit.resume();
    await sent;
    expect(await until(take, { what: 'the message' })).to.equal('while frozen');
  });

  it('closes its connections when it is stopped, and leaves nothing behind when it is closed', async () => {
    const closed = new Promise<Error>(resolve => connection.once('error', resolve));
    await rabbit.stop();
    expect((await closed).message).to.match(/CONNECTION_FORCED/);
    connection.unsafeDestroy();
    await rabbit.close();
    await rabbit.close();
    expect(await readdir(tmpdir())).not.to.contain(basename(rabbit.directory));
  });
});

describe('the shared RabbitMQ', function () {
  this.timeout(60_000);

  it('is one broker for everyone who asks', async () => {
    const [one, two] = await Promise.all([sharedRabbit(), sharedRabbit()]);
    expect(one.url).to.equal(two.url);
    const connection = new Connection(one.url);
    await connection.onConnect(5_000);
    await connection.close();
  });
});
