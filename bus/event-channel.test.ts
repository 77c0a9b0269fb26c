import { setImmediate as nextTurn } from 'node:timers/promises';
import { expect } from 'chai';
import { Connection } from 'rabbitmq-client';
import { eventExchange } from '../amqp.js';
import { hear, logEvent, versionOf } from '../test/published.js';
import { sharedRabbit } from '../test/rabbitmq.js';
import { until } from '../test/until.js';
import { Way } from '../test/way.js';
import { RabbitTransport } from './rabbitmq.js';

const type = 'channelled';

const events = (from: number, to: number, object = '{}') =>
  Array.from({ length: to - from + 1 }, (_, at) => logEvent(from + at, { object }));

describe('the channel for events, under faults', () => {
  const exchange = eventExchange(type);
  const never = new AbortController().signal;
  let way: Way;
  let rabbit: RabbitTransport;
  let listener: Connection;
  let heard: number[];

  beforeEach(async () => {
    const broker = new URL((await sharedRabbit()).url);
    listener = new Connection(broker.href);
    way = new Way(new URL(broker));
    broker.port = String(await way.open());
    rabbit = new RabbitTransport({ url: broker.href, types: [type], instance: 'test', log: () => undefined });
    heard = [];
    await hear(listener, exchange, message => void heard.push(versionOf(message)));
  });
  afterEach(async () => {
    await rabbit.stop();
    way.close();
    await listener.exchangeDelete({ exchange });
    listener.unsafeDestroy();
  });

  /** What became of a batch: `confirmed`, or why not. */
  const publish = (from: number, to: number, object?: string) =>
    rabbit.publish(type, events(from, to, object), never).then(
      () => 'confirmed',
      (error: unknown) => String(error),
    );
  const versions = (from: number, to: number) => events(from, to).map(({ version }) => version);

  it('fails a batch of which a queue refuses a part, and takes the next one', async () => {
    const full = 'syncsets.test.full';
    const limit = { 'x-max-length': 1, 'x-overflow': 'reject-publish' } as const;
    await listener.queueDeclare({ queue: full, exclusive: true, arguments: limit });
    await listener.queueBind({ queue: full, exchange });
    expect(await publish(1, 300)).to.match(/rejected by server/);
    await listener.queueDelete({ queue: full });
    expect(await publish(1, 300)).to.equal('confirmed');
    await until(() => heard.length === 600, { what: 'both tries' });
    expect(heard).to.deep.equal([...versions(1, 300), ...versions(1, 300)]);
  });

  it('fails all batches that are on their way when the connection is lost, and publishes on the next one', async () => {
    expect(await publish(1, 1)).to.equal('confirmed');
    way.hold('back');
    // More than the socket takes in one go.
    const underWay = [publish(2, 91, `"${'x'.repeat(60_000)}"`), publish(92, 121)];
    await until(() => heard.length > 1, { what: 'the first of them' });
    way.cut();
    for (const outcome of await Promise.all(underWay)) expect(outcome).to.match(/socket closed|ECONNRESET|EPIPE/);
    expect(await publish(2, 121)).to.equal('confirmed');
    const isRepeated = () => heard.lastIndexOf(2) > 1 && heard.at(-1) === 121;
    await until(isRepeated, { what: 'the events' });
    const again = heard.lastIndexOf(2);
    expect(heard.slice(0, again)).to.deep.equal(versions(1, again));
    expect(heard.slice(again)).to.deep.equal(versions(2, 121));
  });

  it('fails what was never confirmed at a stop, which does not wait for it', async () => {
    expect(await publish(1, 1)).to.equal('confirmed');
    way.hold('there');
    const underWay = publish(2, 301);
    // Exchange and channel are there: it is written by then.
    await nextTurn();
    const since = performance.now();
    await rabbit.stop();
    expect(await underWay).to.match(/closed/);
    expect(performance.now() - since).to.be.below(10_000);
    expect(await publish(2, 3)).to.match(/clos/);
  });
});
