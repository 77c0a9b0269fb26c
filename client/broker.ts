import { Connection, ConsumerStatus, type AsyncMessage, type ConsumerProps } from 'rabbitmq-client';
import { pause } from './backoff.js';

/** Where the client reports what goes on in the background; pino's loggers fit. */
export interface Log {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
}

/** What becomes of a message: off the queue, or back on it for another consumer. */
export type Fate = 'taken' | 'returned';

/** A consumer whose queue comes and goes with the broker. */
export interface Subscription {
  /** Whether messages arrive at present. */
  readonly ready: boolean;
  /** Stops consuming; handlers that still run must have settled or settle soon. */
  close(): Promise<void>;
}

/** One connection to RabbitMQ, opened when it is first needed and kept open through restarts of the broker. */
export class Broker {
  readonly #url: string;
  readonly #log: Log;
  #connection: Connection | undefined;
  #down = false;
  readonly #onDown = new Set<() => void>();

  /** @throws TypeError the URL is not amqp(s) */
  constructor(url: string, log: Log) {
    if (!/^amqps?:$/.test(URL.canParse(url) ? new URL(url).protocol : '')) {
      throw new TypeError('The URL of RabbitMQ must begin with amqp:// or amqps://');
    }
    this.#url = url;
    this.#log = log;
  }

  /**
   * Consumes a queue, again after each reconnect.
   * @param onChange told when messages begin to arrive (true) and when they no longer do (false); what was unacknowledged
   *   then comes again
   */
  consume(
    props: ConsumerProps,
    onChange: (ready: boolean) => void,
    handle: (message: AsyncMessage) => Promise<Fate>,
  ): Subscription {
    const consumer = this.#connect().createConsumer({ requeue: false, ...props }, async message =>
      (await handle(message)) === 'taken' ? ConsumerStatus.ACK : ConsumerStatus.REQUEUE,
    );
    let ready = false;
    const change = (now: boolean) => {
      if (now === ready) return;
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
    return {
      get ready() {
        return ready;
      },
      close: async () => {
        this.#onDown.delete(onDown);
        // While the broker is away, closing waits for a channel that does not come.
        await Promise.race([consumer.close().catch((error: unknown) => this.#report(error)), pause(1000)]);
      },
    };
  }

  /** Closes the connection, at once if the broker does not answer. */
  async close(): Promise<void> {
    const connection = this.#connection;
    this.#connection = undefined;
    if (!connection) return;
    await Promise.race([connection.close().catch((error: unknown) => this.#report(error)), pause(1000)]);
    connection.unsafeDestroy();
  }

  #connect(): Connection {
    if (this.#connection) return this.#connection;
    const connection = new Connection({
      url: this.#url,
      connectionName: 'syncsets client',
      noDelay: true,
      // A broker that froze is noticed after four missed beats of 3 s; one that stopped, at once.
      heartbeat: 6,
      retryLow: 200,
      retryHigh: 2000,
      acquireTimeout: 2000,
      connectionTimeout: 5000,
    });
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
    if (this.#down) return;
    this.#down = true;
    this.#log.warn(
      { error: error instanceof Error ? error.message : String(error) },
      'RabbitMQ is away; going on over HTTP',
    );
  }
}
