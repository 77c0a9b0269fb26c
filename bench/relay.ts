import { Connection, type Consumer } from 'rabbitmq-client';
import { now } from './clock.js';
import type { Message } from './load.js';
import type { Program } from './program.js';
import { store } from './store.js';

/** Events that wait for the broker. */
const events = 50_000;
const queue = 'bench-watcher';

/**
 * Events of 1 KB from the log to RabbitMQ, in order and confirmed, after a time without an API process: from the first message
 * that a bound queue hands out to the last. Beside it as many of the same messages, headers and all, published as fast as the
 * same client can.
 */
export const relay: Program = {
  name: 'relay',
  about: 'events that are published to RabbitMQ after a break',
  async run(stage) {
    const amqpUrl = await stage.broker();
    // It makes the exchange, and takes note from where on events are to be published.
    const first = await stage.api(amqpUrl);
    const arrivals = await Arrivals.open(amqpUrl);
    stage.own(() => arrivals);
    await arrivals.bind('syncsets.events.clusters');
    await first.stop();
    stage.say(`storing ${events} objects`);
    const numbered = (number: number) => ({ namespace: 'bench', name: `published-${number}` });
    await store(await stage.database(), 'clusters', events, numbered);

    stage.say('publishing their events');
    const counted = arrivals.count(events);
    const api = await stage.api(amqpUrl);
    const ours = await counted;
    stage.windows.push(ours);
    await api.stop();

    stage.say('publishing as many without a log');
    await arrivals.bind('bench-plain');
    const again = arrivals.count(events);
    await stage.load().publish({ amqpUrl, exchange: 'bench-plain', count: events, message: arrivals.sample });
    const plain = await again;
    const rate = ({ from, to }: { from: number; to: number }) => ({ value: ((events - 1) * 1000) / (to - from) });
    return [
      {
        what: 'events of 1 KB',
        unit: '1/s',
        ours: rate(ours),
        references: [{ name: 'confirmed publishes, 500 at once', figure: rate(plain), atLeast: 0.8 }],
      },
    ];
  },
};

/** A queue that hears of everything. */
class Arrivals {
  readonly #connection: Connection;
  #consumer: Consumer | undefined;
  #sample: Message | undefined;
  #heard: () => void = () => undefined;

  private constructor(connection: Connection) {
    this.#connection = connection;
  }

  static async open(amqpUrl: string): Promise<Arrivals> {
    const connection = new Connection(amqpUrl);
    await connection.queueDeclare({ queue, exclusive: false, durable: false, autoDelete: false });
    const arrivals = new Arrivals(connection);
    const options = { queue, noAck: true, qos: { prefetchCount: 0 } };
    const consumer = connection.createConsumer(options, ({ headers, body }) => {
      arrivals.#sample ??= { headers: headers ?? {}, body: JSON.stringify(body) };
      arrivals.#heard();
      return Promise.resolve();
    });
    consumer.on('error', error => console.error(error));
    arrivals.#consumer = consumer;
    return arrivals;
  }

  /** One of the messages that came. */
  get sample(): Message {
    if (!this.#sample) throw new Error('nothing has come');
    return this.#sample;
  }

  async bind(exchange: string): Promise<void> {
    await this.#connection.exchangeDeclare({ exchange, type: 'fanout', durable: true });
    await this.#connection.queueBind({ exchange, queue });
  }

  /** When the first and the last of so many messages came from now on. */
  count(count: number): Promise<{ from: number; to: number }> {
    let left = count;
    let from = 0;
    return new Promise(resolve => {
      this.#heard = () => {
        if (left-- === count) from = now();
        if (left === 0) resolve({ from, to: now() });
      };
    });
  }

  async stop(): Promise<void> {
    // A connection waits for its consumers, and does not close them.
    await this.#consumer?.close();
    await this.#connection.close();
  }
}
