import { setImmediate as nextTurn } from 'node:timers/promises';
import { expect } from 'chai';
import { Connection, type AsyncMessage } from 'rabbitmq-client';
import { eventExchange } from '../amqp.js';
import type { LogEvent } from '../db/index.js';
import { hear, logEvent } from '../test/published.js';
import { sharedRabbit } from '../test/rabbitmq.js';
import { until } from '../test/until.js';
import { largestFrame } from './frames.js';
import { RabbitTransport } from './rabbitmq.js';

const type = 'framed';

const event = (version: number, object: string, rest: Partial<LogEvent> = {}) =>
  logEvent(version, { name: `thing-${version}`, object, ...rest });

describe('the messages of events', () => {
  const exchange = eventExchange(type);
  const messages: AsyncMessage[] = [];
  const never = new AbortController().signal;
  let rabbit: RabbitTransport;
  let listener: Connection;

  before(async () => {
    const { url } = await sharedRabbit();
    rabbit = new RabbitTransport({ url, types: [type], instance: 'test', log: () => undefined });
    listener = new Connection(url);
    await hear(listener, exchange, message => void messages.push(message));
  });
  beforeEach(() => messages.splice(0));
  after(async () => {
    await rabbit.stop();
    await listener.exchangeDelete({ exchange });
    listener.unsafeDestroy();
  });

  /** What the broker hands out of what is published in one call. */
  async function published(events: LogEvent[]): Promise<AsyncMessage[]> {
    await rabbit.publish(type, events, never);
    await until(() => messages.length === events.length, { what: 'all messages' });
    return messages;
  }

  it('are persistent JSON with the documented headers', async () => {
    const before = Math.floor(Date.now() / 1000);
    const [message] = await published([event(7, '{"name":"thing-7"}')]);
    expect(message).to.include({ contentType: 'application/json', durable: true, exchange, routingKey: '' });
    expect(message?.timestamp).to.be.within(before, Date.now() / 1000);
    expect(message?.headers).to.deep.equal({
      op: 'MODIFIED',
      type,
      namespace: 'default',
      name: 'thing-7',
      uid: '0b9a3e0e-3f7d-4a55-9a8b-2f6f3f1f4f10',
      resourceVersion: '7',
    });
    expect(message?.body).to.deep.equal({
      op: 'MODIFIED',
      type,
      resourceVersion: '7',
      previousResourceVersion: '6',
      object: { name: 'thing-7' },
    });
  });

  it('carry the trace of a change that has one, and text of more than one byte a character', async () => {
    const traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
    const name = '漢字🙂'.repeat(60);
    const note = 'ü漢🙂'.repeat(1_000);
    const sent = event(8, JSON.stringify({ note }), { traceparent, name, namespace: '' });
    const [message] = await published([sent]);
    expect(message?.headers).to.include({ traceparent, name, namespace: '' });
    expect(message?.body).to.have.deep.property('object', { note });
  });

  it('hold bodies of every size around the ends of frames, and leave out objects above 64 KiB', async () => {
    const most = largestFrame - 8;
    // Of the whole body: what is around the object's JSON is 89 bytes where versions have two digits.
    const around = Buffer.byteLength(
      `{"op":"MODIFIED","type":"${type}","resourceVersion":"10","previousResourceVersion":"10","object":}`,
    );
    const sizes = [most - 1, most, most + 1, 2 * most - 1, 2 * most, 2 * most + 1].map(size => size - around);
    const objects = [...sizes, 64 * 1024, 64 * 1024 + 1].map(size => `"${'x'.repeat(size - 2)}"`);
    const all = await published(objects.map((object, at) => event(11 + at, object)));
    expect(all.map(({ headers }) => headers?.['resourceVersion'])).to.deep.equal(
      objects.map((_, at) => String(11 + at)),
    );
    for (const [at, object] of objects.entries())
      if (object.length <= 64 * 1024) expect(all[at]?.body).to.have.property('object', object.slice(1, -1));
    expect(all.at(-1)?.body).to.deep.equal({
      op: 'MODIFIED',
      type,
      resourceVersion: '18',
      previousResourceVersion: '17',
      truncated: true,
    });
  });

  it('are confirmed in batches, one after the other, on one channel', async () => {
    const batches = Array.from({ length: 8 }, (_, batch) =>
      Array.from({ length: 300 }, (_, at) => event(1 + 300 * batch + at, '{}')),
    );
    await Promise.all(batches.map(batch => rabbit.publish(type, batch, never)));
    await until(() => messages.length === 2_400, { what: 'all messages' });
    expect(messages.map(({ headers }) => Number(headers?.['resourceVersion']))).to.deep.equal(
      Array.from({ length: 2_400 }, (_, at) => at + 1),
    );
  });

  it('go in the order in which they were given, also while their exchange is being declared', async () => {
    rabbit.topology.undeclared();
    const sent = [rabbit.publish(type, [event(1, '{}')], never), rabbit.publish(type, [event(2, '{}')], never)];
    // The first look at the exchange is over, the second one is not.
    while (!rabbit.topology.isDeclared(exchange)) await nextTurn();
    sent.push(rabbit.publish(type, [event(3, '{}')], never));
    await Promise.all(sent);
    await until(() => messages.length === 3, { what: 'all messages' });
    expect(messages.map(({ headers }) => headers?.['resourceVersion'])).to.deep.equal(['1', '2', '3']);
  });

  it('fail as a whole when the exchange is gone, and come with the next try, which declares it again', async () => {
    await listener.exchangeDelete({ exchange });
    const batch = Array.from({ length: 100 }, (_, at) => event(1 + at, '{}'));
    const failure = await rabbit.publish(type, batch, never).then(
      () => undefined,
      (error: unknown) => error,
    );
    expect(failure)
      .to.be.an('error')
      .with.property('message')
      .that.matches(/no exchange/);
    await rabbit.publish(type, batch, never);
    await listener.exchangeDeclare({ exchange, type: 'fanout', durable: true, passive: true });
  });

  it('are not sent when those before them were not published', async () => {
    const failed = new AbortController();
    failed.abort(new Error('what came before was not published'));
    const failure = await rabbit.publish(type, [event(1, '{}')], failed.signal).catch((error: unknown) => error);
    expect(failure).to.have.property('message', 'what came before was not published');
  });
});
