import type { TcpSocketConnectOpts } from 'node:net';
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';
import { Connection, type Publisher } from 'rabbitmq-client';
import { brokerAddress, eventExchange, socketOf, workQueue } from '../amqp.js';
import type { Log, LogEvent } from '../db/index.js';
import { reasonOf } from '../reason.js';
import { EventChannel } from './event-channel.js';
import { largestFrame } from './frames.js';
import { workBody, type WorkMessage } from './messages.js';
import { Topology } from './topology.js';

/** What the socket takes in one go, in bytes; beyond it the client waits for each 16 kB to leave, as it does by default. */
const socketBuffer: Partial<TcpSocketConnectOpts> & { highWaterMark: number } = { highWaterMark: 4 * 2 ** 20 };
/** Milliseconds in which a work queue confirms messages. One that does not is left alone until it does. */
const confirmTime = 3_000;
/**
 * Milliseconds without a confirmation of events after which another node of the cluster is tried. Twice as long after each try that
 * did not help, up to five minutes: then it is a queue of others that confirms nothing, and they get repeats each time.
 */
const moveAfter = { first: 10_000, longest: 300_000 };
/** Milliseconds that a stop waits for the broker; one that blocks publishers would never answer. */
const patience = 1_000;

/**
 * Publishes to RabbitMQ 3.10 to 4.x: persistent messages with publisher confirms, events on one channel, which keeps their order,
 * work on another.
 */
export class RabbitTransport {
  /** The exchanges and queues. */
  readonly topology: Topology;
  readonly #connection: Connection;
  readonly #eventChannel: EventChannel;
  /** For work; another one after each queue that got stuck. */
  #worker: Publisher;
  readonly #log: Log;
  /** Batches of events that the broker has not confirmed, when it last confirmed one, and how long that may take. */
  readonly #events = { underway: 0, heardAt: 0, patience: moveAfter.first };
  /** By exchange, whether it was there for the newest batch of events. */
  readonly #preparing = new Map<string, Promise<void>>();
  readonly #watchdog: NodeJS.Timeout | undefined;
  /** How many messages came back because their queue was not there, by queue. */
  readonly #returned = new Map<string, number>();
  /** Queues that have not confirmed what they were sent. */
  readonly #stuck = new Set<string>();
  #blocked: string | undefined;
  #lastReason = '';
  #stopped: Promise<void> | undefined;

  /** @throws TypeError the URL is none of a broker */
  constructor(options: { url: string; types: string[]; instance: string; log: Log }) {
    this.#log = options.log;
    const address = brokerAddress(options.url);
    if (address.hosts) this.#watchdog = setInterval(() => this.#moveOn(), 1_000).unref();
    this.#connection = new Connection({
      ...address,
      connectionName: `syncsets api ${options.instance}`,
      acquireTimeout: 3_000,
      connectionTimeout: 5_000,
      retryLow: 200,
      retryHigh: 5_000,
      heartbeat: 10,
      noDelay: true,
      frameMax: largestFrame,
      // Typed as if host and port were not the URL's: passed on to `net.connect` or `tls.connect` with those.
      socket: socketBuffer as TcpSocketConnectOpts,
    });
    this.topology = new Topology({
      connection: this.#connection,
      types: options.types,
      connected: () => this.connected,
      log: options.log,
    });
    this.#connection.on('error', error => {
      // One that dies while it blocks says nothing of that any more.
      this.#blocked = undefined;
      this.#failed(reasonOf(error));
    });
    this.#connection.on('connection', () => {
      this.#lastReason = '';
      this.#blocked = undefined;
      this.topology.undeclared();
      options.log('info', 'broker connected');
    });
    this.#connection.on('connection.blocked', (why: unknown) => {
      this.#blocked = String(why);
      options.log(
        'warn',
        'broker blocks publishers until it has memory and disk again; writes, watches and work go on, publishing catches up later',
        { reason: this.#blocked },
      );
    });
    this.#connection.on('connection.unblocked', () => {
      this.#blocked = undefined;
      options.log('info', 'broker accepts messages again');
    });
    this.#eventChannel = new EventChannel(this.#connection);
    this.#worker = this.#createWorker();
  }

  /** Whether the broker answers and takes messages now. */
  get connected(): boolean {
    return this.#connection.ready;
  }

  /** Why the broker takes no messages (its memory or disk is low), while it is so. */
  get blocked(): string | undefined {
    return this.#blocked;
  }

  /** Exchanges and queues that are not as they must be, at the last look, and queues that are stuck. */
  get problems(): string[] {
    return [...this.topology.problems, ...this.#stuck];
  }

  /** Closes the connection, within a second; what the broker has not confirmed then fails. May be called again. */
  stop(): Promise<void> {
    clearInterval(this.#watchdog);
    return (this.#stopped ??= (async () => {
      const publishers = [this.#eventChannel, this.#worker].map(publisher => publisher.close());
      const closed = Promise.all(publishers).then(() => this.#connection.close());
      const late = new AbortController();
      await Promise.race([closed.catch(() => undefined), sleep(patience, undefined, late).catch(() => undefined)]);
      late.abort();
      this.#connection.unsafeDestroy();
    })());
  }

  /**
   * Publishes events of a type in their order; returns when the broker has confirmed all. Throws when it has not, and, with
   * nothing sent, when `failed` says that those before them were not published.
   */
  async publish(type: string, events: readonly LogEvent[], failed: AbortSignal): Promise<void> {
    const exchange = eventExchange(type);
    if (this.#events.underway++ === 0) this.#events.heardAt = performance.now();
    try {
      await this.#prepared(exchange);
      await this.#eventChannel.publish(exchange, type, events, failed).catch((error: unknown) => this.#refused(error));
      this.#events.heardAt = performance.now();
      this.#events.patience = moveAfter.first;
    } finally {
      this.#events.underway--;
    }
  }

  /**
   * Declares an exchange where that is needed, for one call after the other: without that, of three batches the third went before
   * the second when it came while the second asked for what the first had just declared. Those behind one that fails fail too.
   */
  #prepared(exchange: string): Promise<void> {
    const before = this.#preparing.get(exchange) ?? Promise.resolve();
    const prepared = before.then(() => this.topology.declareExchange(exchange));
    this.#preparing.set(exchange, prepared);
    prepared.catch(() => {
      if (this.#preparing.get(exchange) === prepared) this.#preparing.delete(exchange);
    });
    return prepared;
  }

  /** Whether the queue of a controller was there when it was looked at last. */
  isPrepared(controller: string): boolean {
    return this.topology.isDeclared(workQueue(controller));
  }

  /** Makes sure that the queue of a controller is there. Throws when the broker has another one of that name, or it is stuck. */
  async prepare(controller: string): Promise<void> {
    const queue = workQueue(controller);
    this.#refuseStuck(queue);
    await this.topology.declareQueue(queue);
  }

  /**
   * Puts messages on the queue of a controller; returns when the broker has confirmed all. The next ones may be sent meanwhile.
   * Throws when it has refused them, when the queue is gone, and with it whatever else was on its way there, and after 3 s without
   * a confirmation: messages that are confirmed later were sent in vain, not wrongly.
   */
  async send(controller: string, messages: WorkMessage[]): Promise<void> {
    await this.prepare(controller);
    const queue = workQueue(controller);
    const publisher = this.#worker;
    // Several may be on their way when one comes back: each of them learns of it.
    const returned = this.#returned.get(queue);
    // Without `mandatory` the broker confirms what it throws away.
    const envelope = { routingKey: queue, durable: true, mandatory: true, contentType: 'application/json' };
    const sends = this.#together(() =>
      messages.map(message => {
        const traced = 'traceparent' in message && message.traceparent !== undefined;
        return publisher.send(
          traced ? { ...envelope, headers: { traceparent: message.traceparent } } : envelope,
          workBody(message),
        );
      }),
    );
    await this.#inTime(queue, publisher, this.#all(sends));
    // What comes back comes before its confirmation, but is told a turn of the event loop later.
    await nextTurn();
    if (this.#returned.get(queue) === returned) return;
    this.topology.undeclared(queue);
    throw new Error(`the queue ${queue} was deleted by other hands; it is declared again`);
  }

  /** Messages that wait in the queue of a controller, which is looked after: declared again or replaced where needed. */
  async depth(controller: string): Promise<number> {
    const queue = workQueue(controller);
    this.#refuseStuck(queue);
    return this.topology.look(queue);
  }

  /** Throws away the messages that wait in the queue of a controller. */
  async purge(controller: string): Promise<void> {
    await this.topology.purge(workQueue(controller));
  }

  /** Removes the queue of a controller that is forgotten, if it is there. */
  async forget(controller: string): Promise<void> {
    await this.topology.remove(workQueue(controller));
  }

  #createWorker(): Publisher {
    const publisher = this.#connection.createPublisher({ confirm: true, maxAttempts: 1 });
    publisher.on('basic.return', ({ routingKey: queue }) =>
      this.#returned.set(queue, (this.#returned.get(queue) ?? 0) + 1),
    );
    return publisher;
  }

  #refuseStuck(queue: string): void {
    if (this.#stuck.has(queue)) throw new Error(`the queue ${queue} does not confirm messages`);
  }

  /**
   * Waits for the confirmations of a queue, not for ever: a quorum queue without a majority of its members confirms nothing, and
   * whoever waits for it would feed no other. What was sent stays on its way and tells by its confirmation that the queue is well.
   * The others get a new channel: RabbitMQ stops reading from a connection after 400 further messages on a channel with a queue
   * that is slow, events too.
   */
  async #inTime(queue: string, publisher: Publisher, confirmed: Promise<void>): Promise<void> {
    const settled = new AbortController();
    const late = sleep(confirmTime, 'late' as const, settled).catch(() => undefined);
    const first = await Promise.race([confirmed, late]).finally(() => settled.abort());
    if (first !== 'late') return;
    // Unless another batch on the same channel was late before this one.
    if (this.#worker === publisher) this.#worker = this.#createWorker();
    this.#stuck.add(queue);
    void confirmed
      .catch(() => undefined)
      .then(() => {
        if (this.#stuck.delete(queue) && this.connected)
          this.#log('info', 'a queue confirms messages again', { queue });
        return publisher.close();
      })
      .catch(() => undefined);
    this.#refuseStuck(queue);
  }

  /**
   * Leaves a node that answers and confirms nothing: one that is cut off from the others of its cluster (where RabbitMQ does not
   * pause it by itself, so with Khepri or without `pause_minority`) waits for the quorum queues on the other side.
   */
  #moveOn(): void {
    const { underway, heardAt, patience } = this.#events;
    // One that blocks publishers is left to itself: its alarm is the whole cluster's.
    if (!this.connected) this.#events.heardAt = performance.now();
    if (!this.connected || underway === 0 || performance.now() - heardAt < patience) return;
    this.#events.heardAt = performance.now();
    this.#events.patience = Math.min(2 * patience, moveAfter.longest);
    this.#log('warn', 'broker confirms no events; another of its nodes is tried', { seconds: patience / 1_000 });
    socketOf(this.#connection)?.destroy(new Error('the broker confirmed no events'));
  }

  /**
   * Lets everything that is sent without a wait leave with one system call instead of one a message: 34 instead of 44 µs of
   * CPU for a message of 1 KB, and the broker reads it in as large pieces.
   */
  #together<T>(send: () => T): T {
    const socket = socketOf(this.#connection);
    if (!socket) return send();
    socket.cork();
    try {
      return send();
    } finally {
      socket.uncork();
    }
  }

  async #all(sends: Promise<void>[]): Promise<void> {
    const results = await Promise.allSettled(sends);
    const failed = results.find(result => result.status === 'rejected');
    if (failed) this.#refused(failed.reason);
  }

  /** Throws why messages were not taken. What was declared may be gone with a broker that was replaced: it is declared again first. */
  #refused(reason: unknown): never {
    this.topology.undeclared();
    throw reason instanceof Error ? reason : new Error(String(reason));
  }

  // The client retries by itself for ever; one line a cause is enough.
  #failed(why: string): void {
    if (why === this.#lastReason || this.#stopped) return;
    this.#lastReason = why;
    this.topology.undeclared();
    this.#log(
      'warn',
      'broker away; check AMQP_URL and that it runs; writes, watches and work go on, publishing catches up later',
      { reason: why },
    );
  }
}
