import { Connection, ConsumerStatus, type AsyncMessage, type ConsumerProps, type Publisher } from 'rabbitmq-client';
import { brokerAddress, parkingQueue, socketOf, type BrokerAddress } from '../amqp.js';
import { reasonOf } from '../reason.js';
import { pause } from './backoff.js';

/**
 * Where the client reports what goes on in the background; pino's loggers fit.
 *
 * @example
 * const client = connect({ amqpUrl, log: pino() });
 */
export interface Log {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
}

/** What becomes of a message: off the queue, or back on it for another consumer. */
export type Fate = 'taken' | 'returned';

/** A consumer whose queue comes and goes with the broker. */
export interface Subscription {
  /** Whether messages arrive at present; false from `close` on, though some still come. */
  readonly ready: boolean;
  /** Stops consuming; handlers that still run must have settled or settle soon. */
  close(): Promise<void>;
}

/** Milliseconds after which bindings are declared again: they go with an exchange that others delete, and nobody says so. */
const rebindAfter = 10_000;
/** Of a message that is parked so much is kept, in bytes. */
const keptOfMessage = 64 * 1024;
/** Milliseconds in which a parked message must be confirmed. */
const parkTime = 5_000;

/**
 * One connection to RabbitMQ, opened when it is first needed and kept open through restarts of the broker. `client.broker` is
 * one, for `events` and work queues; the client closes it.
 *
 * @example
 * const queue = client.broker && new WorkQueue(client.broker, 'hello', 32);
 */
export class Broker {
  readonly #address: BrokerAddress;
  readonly #log: Log;
  #connection: Connection | undefined;
  /** Of its own: a broker that is low on memory stops reading from connections that publish, and acknowledgements with it. */
  #parking: { connection: Connection; publisher: Publisher } | undefined;
  readonly #told = new Map<string, number>();
  #down = false;
  /** The socket keeps what is written to it until this turn of the event loop ends. */
  #corked = false;
  #closed = false;
  #end: Promise<void> | undefined;
  readonly #onDown = new Set<() => void>();

  /** @throws TypeError the URL is none of RabbitMQ */
  constructor(url: string, log: Log) {
    try {
      this.#address = brokerAddress(url);
    } catch (error) {
      throw error instanceof TypeError ? new TypeError(`The URL of RabbitMQ ${error.message}`) : error;
    }
    this.#log = log;
  }

  /**
   * Consumes a queue, again after each reconnect. Its bindings are declared again every 10 s.
   * @internal
   * @throws Error the client is closed
   * @param onChange told when messages begin to arrive (true) and when they no longer do (false); what was unacknowledged
   *   then comes again
   */
  consume(
    props: ConsumerProps,
    onChange: (ready: boolean) => void,
    handle: (message: AsyncMessage) => Promise<Fate>,
  ): Subscription {
    const consumer = this.#connect().createConsumer({ requeue: false, ...props }, async message => {
      const fate = await handle(message);
      this.#together();
      return fate === 'taken' ? ConsumerStatus.ACK : ConsumerStatus.REQUEUE;
    });
    let ready = false;
    let closed = false;
    const change = (now: boolean) => {
      if (now === ready || closed) return;
      ready = now;
      onChange(now);
    };
    const onDown = () => change(false);
    this.#onDown.add(onDown);
    consumer.on('ready', () => {
      this.#down = false;
      change(true);
    });
    consumer.on('error', (error: unknown) => {
      this.#report(error);
      change(false);
    });
    const { exchanges = [], queueBindings = [] } = props;
    const rebind = async () => {
      if (!ready) return;
      const connection = this.#connect();
      for (const exchange of exchanges) await connection.exchangeDeclare(exchange);
      for (const binding of queueBindings) await connection.queueBind({ ...binding, queue: consumer.queue });
    };
    const renewal = setInterval(() => {
      rebind().catch((error: unknown) => {
        this.#log.warn({ error: reasonOf(error) }, 'a queue cannot be bound');
      });
    }, rebindAfter).unref();
    if (queueBindings.length === 0) clearInterval(renewal);
    return {
      get ready() {
        return ready;
      },
      close: async () => {
        // First: messages come until the broker has confirmed, and whoever keeps one from here on is waited for.
        closed = true;
        ready = false;
        clearInterval(renewal);
        this.#onDown.delete(onDown);
        // While the broker is away, closing waits for a channel that does not come.
        await this.#patiently(consumer.close());
      },
    };
  }

  /**
   * Puts a message that is none of ours on the queue `syncsets.parked`, with the reason in its headers, and says so.
   * @internal
   * @returns whether the broker has it now
   */
  async park({ body, contentType, routingKey }: AsyncMessage, queue: string, reason: string): Promise<boolean> {
    const bytes = Buffer.isBuffer(body) ? body : Buffer.from(typeof body === 'string' ? body : JSON.stringify(body));
    this.#tellOfParked(queue, reason, bytes.length);
    if (this.#closed) return false;
    const about = { reason, queue, routingKey, bytes: bytes.length, truncated: bytes.length > keptOfMessage };
    const { connection, publisher } = this.#parker();
    // One that blocks publishers counts as not connected: nothing is to gather here meanwhile.
    const connected = await connection.onConnect(parkTime, true).then(
      () => true,
      () => false,
    );
    if (!connected) return false;
    const sent = publisher
      .send(
        {
          routingKey: parkingQueue.queue,
          durable: true,
          contentType: about.truncated ? 'application/octet-stream' : contentType,
          headers: Object.fromEntries(Object.entries(about).map(([name, value]) => [`x-syncsets-${name}`, value])),
        },
        bytes.subarray(0, keptOfMessage),
      )
      .then(() => true);
    return (await within(parkTime, sent).catch(() => false)) ?? false;
  }

  /** Closes the connections, at once if the broker does not answer; no others are opened. May be called more than once. */
  close(): Promise<void> {
    return (this.#end ??= this.#close());
  }

  async #close(): Promise<void> {
    this.#closed = true;
    // Who consumes is not told by the connection that it was closed here.
    for (const onDown of this.#onDown) onDown();
    const connections = [this.#connection, this.#parking?.connection];
    const publisher = this.#parking?.publisher;
    this.#connection = undefined;
    this.#parking = undefined;
    if (publisher) await this.#patiently(publisher.close());
    await Promise.all(
      connections.map(async connection => {
        if (!connection) return;
        await this.#patiently(connection.close());
        connection.unsafeDestroy();
      }),
    );
  }

  /** Waits for what is being closed, but not for a broker that does not answer. */
  async #patiently(closing: Promise<void>): Promise<void> {
    const closed = closing.catch((error: unknown) => this.#report(error));
    await within(1_000, closed);
  }

  /**
   * Lets what is acknowledged in this turn of the event loop leave with one system call instead of one a message; the broker reads
   * it in one piece.
   */
  #together(): void {
    if (this.#corked) return;
    const socket = this.#connection && socketOf(this.#connection);
    if (!socket) return;
    this.#corked = true;
    socket.cork();
    setImmediate(() => {
      this.#corked = false;
      socket.uncork();
    });
  }

  #parker(): { connection: Connection; publisher: Publisher } {
    if (this.#parking) return this.#parking;
    const connection = this.#open('syncsets client, parking');
    connection.on('error', error => this.#report(error));
    const publisher = connection.createPublisher({ confirm: true, queues: [parkingQueue] });
    return (this.#parking = { connection, publisher });
  }

  /** One line a minute for each reason: others may send a million of them. */
  #tellOfParked(queue: string, reason: string, bytes: number): void {
    const cause = `${queue} ${reason}`;
    const now = performance.now();
    if (now - (this.#told.get(cause) ?? -Infinity) < 60_000) return;
    // Reasons hold what others wrote, without end.
    if (this.#told.size >= 100) this.#told.clear();
    this.#told.set(cause, now);
    this.#log.warn({ queue, reason, bytes, parked: parkingQueue.queue }, 'parked a message that is none of ours');
  }

  #open(connectionName: string): Connection {
    return new Connection({
      ...this.#address,
      connectionName,
      noDelay: true,
      // A broker that froze is noticed after four missed beats of 3 s; one that stopped, at once.
      heartbeat: 6,
      retryLow: 200,
      retryHigh: 2000,
      acquireTimeout: 2000,
      connectionTimeout: 5000,
    });
  }

  #connect(): Connection {
    if (this.#connection) return this.#connection;
    if (this.#closed) throw new Error('The client is closed');
    const connection = this.#open('syncsets client');
    connection.on('error', error => {
      this.#report(error);
      for (const onDown of this.#onDown) onDown();
    });
    connection.on('connection', () => this.#log.info({}, 'connected to RabbitMQ'));
    this.#connection = connection;
    return connection;
  }

  /** One line for each outage, not for each attempt to end it. */
  #report(error: unknown): void {
    if (this.#down || this.#closed) return;
    this.#down = true;
    this.#log.warn({ error: reasonOf(error) }, 'RabbitMQ is away; going on over HTTP');
  }
}

/** What a promise gives within some milliseconds, else undefined. Leaves no timer, which would keep the process alive. */
async function within<T>(milliseconds: number, promise: Promise<T>): Promise<T | undefined> {
  const settled = new AbortController();
  try {
    return await Promise.race([promise, pause(milliseconds, settled.signal).then(() => undefined)]);
  } finally {
    settled.abort();
  }
}
