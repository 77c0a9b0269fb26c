import { Socket, type TcpSocketConnectOpts } from 'node:net';
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';
import { AMQPError, Connection, type Publisher } from 'rabbitmq-client';
import { brokerAddress, eventExchange, parkingQueue, workQueue, workQueueArguments } from '../amqp.js';
import type { Log, LogEvent } from '../db/index.js';
import { reasonOf } from '../reason.js';

/** A key on its way to a worker, or the news that a watched type has events to map. */
export type WorkMessage =
  | {
      type: string;
      namespace: string;
      name: string;
      uid: string | null;
      version: number | null;
      /** The trace of the change that it was queued for, where that is traced; a header, as of events. */
      traceparent?: string | undefined;
    }
  | { map: string };

/** Objects beyond this many bytes stay out of messages, which then say `truncated`: brokers are no object stores. */
const largestObject = 64 * 1024;
/** A queue that others keep declaring their way is replaced once in so many ms: nobody is to fight over it all day. */
const replaceAfter = 60_000;
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
 * Topology: a durable fanout exchange per type, a quorum queue per controller, one for parked messages, nothing else.
 * All of it is ours and is looked after: what is deleted by hand is declared again, a work queue of other arguments is replaced
 * (the truth about work is in Postgres, its messages are hints), an exchange of another kind is reported, for others bind to it.
 */
export class RabbitTransport {
  readonly #connection: Connection;
  readonly #publisher: Publisher;
  /** For work; another one after each queue that got stuck. */
  #worker: Publisher;
  readonly #log: Log;
  readonly #types: string[];
  /** Batches of events that the broker has not confirmed, when it last confirmed one, and how long that may take. */
  readonly #events = { underway: 0, heardAt: 0, patience: moveAfter.first };
  readonly #watchdog: NodeJS.Timeout | undefined;
  readonly #declared = new Set<string>();
  readonly #replacedAt = new Map<string, number>();
  /** How many messages came back because their queue was not there, by queue. */
  readonly #returned = new Map<string, number>();
  /** Queues that have not confirmed what they were sent. */
  readonly #stuck = new Set<string>();
  /** What is wrong with an exchange or a queue, by its name. */
  readonly #problems = new Map<string, string>();
  #blocked: string | undefined;
  #parked = 0;
  #lastReason = '';
  #stopped: Promise<void> | undefined;

  /** @throws TypeError the URL is none of a broker */
  constructor(options: { url: string; types: string[]; instance: string; log: Log }) {
    this.#types = options.types;
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
      // Typed as if host and port were not the URL's: passed on to `net.connect` or `tls.connect` with those.
      socket: socketBuffer as TcpSocketConnectOpts,
    });
    this.#connection.on('error', error => this.#failed(reasonOf(error)));
    this.#connection.on('connection', () => {
      this.#lastReason = '';
      this.#blocked = undefined;
      this.#declared.clear();
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
    this.#publisher = this.#connection.createPublisher({ confirm: true, maxAttempts: 1 });
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
    return [...this.#problems.keys(), ...this.#stuck];
  }

  /** Messages in the parking queue, at the last look. */
  get parked(): number {
    return this.#parked;
  }

  /** Forgets what the last look found: of one exchange or queue, or all of it. */
  lookAnew(name?: string): void {
    if (name !== undefined) {
      this.#problems.delete(name);
      return;
    }
    this.#problems.clear();
    this.#parked = 0;
  }

  /** Closes the connection, within a second; what the broker has not confirmed then fails. May be called again. */
  stop(): Promise<void> {
    clearInterval(this.#watchdog);
    return (this.#stopped ??= (async () => {
      const publishers = [this.#publisher, this.#worker].map(publisher => publisher.close());
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
      await this.#declareExchange(exchange);
      failed.throwIfAborted();
      await this.#all(
        this.#together(() =>
          events.map(event =>
            this.#publisher.send(
              {
                exchange,
                durable: true,
                contentType: 'application/json',
                headers: {
                  op: event.op,
                  type,
                  namespace: event.namespace,
                  name: event.name,
                  uid: event.uid,
                  resourceVersion: String(event.version),
                  ...(event.traceparent ? { traceparent: event.traceparent } : {}),
                },
              },
              eventBody(type, event),
            ),
          ),
        ),
      );
      this.#events.heardAt = performance.now();
      this.#events.patience = moveAfter.first;
    } finally {
      this.#events.underway--;
    }
  }

  /** Whether the queue of a controller was there when it was looked at last. */
  isPrepared(controller: string): boolean {
    return this.#declared.has(workQueue(controller));
  }

  /** Makes sure that the queue of a controller is there. Throws when the broker has another one of that name, or it is stuck. */
  async prepare(controller: string): Promise<void> {
    const queue = workQueue(controller);
    this.#refuseStuck(queue);
    await this.#declareQueue(queue);
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
    this.#declared.delete(queue);
    throw new Error(`the queue ${queue} was deleted by other hands; it is declared again`);
  }

  /** Messages that wait in the queue of a controller, which is looked after: declared again or replaced where needed. */
  async depth(controller: string): Promise<number> {
    const queue = workQueue(controller);
    this.#refuseStuck(queue);
    if (this.#declared.has(queue)) {
      await this.#connection.queueDeclare({ queue, passive: true }).catch((error: unknown) => {
        if (codeOf(error) !== 'NOT_FOUND') throw error;
        this.#log('warn', 'a queue was deleted by other hands; it is declared again', { queue });
      });
    }
    this.#declared.delete(queue);
    return this.#declareQueue(queue);
  }

  /** Looks after what belongs to no controller: the exchanges, and how many messages are parked. */
  async inspect(): Promise<void> {
    for (const type of this.#types) {
      this.#declared.delete(eventExchange(type));
      await this.#declareExchange(eventExchange(type)).catch(() => undefined);
    }
    const { messageCount } = await this.#observed(parkingQueue.queue, () =>
      this.#connection.queueDeclare(parkingQueue),
    );
    if (messageCount > this.#parked) {
      this.#log('warn', 'messages that are none of ours were parked; their headers say why', {
        queue: parkingQueue.queue,
        messages: messageCount,
      });
    }
    this.#parked = messageCount;
  }

  /** Removes the queue of a controller that is forgotten, if it is there. */
  async forget(controller: string): Promise<void> {
    const queue = workQueue(controller);
    this.#declared.delete(queue);
    this.#problems.delete(queue);
    await this.#connection.queueDelete({ queue });
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
    this.#socket?.destroy(new Error('the broker confirmed no events'));
  }

  /** The client's socket, which is no part of its API. */
  get #socket(): Socket | undefined {
    const socket: unknown = Reflect.get(this.#connection, '_socket');
    return socket instanceof Socket ? socket : undefined;
  }

  async #declareExchange(exchange: string): Promise<void> {
    if (this.#declared.has(exchange)) return;
    await this.#observed(exchange, () => this.#connection.exchangeDeclare({ exchange, type: 'fanout', durable: true }));
    this.#declared.add(exchange);
  }

  /** Declares a queue unless that was done, and says how many messages it held; 0 when it was done. */
  async #declareQueue(queue: string): Promise<number> {
    if (this.#declared.has(queue)) return 0;
    const declare = () => this.#connection.queueDeclare({ queue, durable: true, arguments: workQueueArguments });
    const { messageCount } = await this.#observed(queue, async () => {
      try {
        return await declare();
      } catch (error) {
        const replaced = this.#replacedAt.get(queue);
        const recently = replaced !== undefined && performance.now() - replaced < replaceAfter;
        if (codeOf(error) !== 'PRECONDITION_FAILED' || recently) throw error;
        this.#replacedAt.set(queue, performance.now());
        this.#log('warn', 'a queue was declared differently by other hands; it is replaced', {
          queue,
          reason: reasonOf(error),
        });
        await this.#connection.queueDelete({ queue });
        return declare();
      }
    });
    this.#declared.add(queue);
    return messageCount;
  }

  /**
   * Lets everything that is sent without a wait leave with one system call instead of one a message: 34 instead of 44 µs of
   * CPU for an event of 1 KB, and the broker reads it in as large pieces. Without the socket all goes as well, only slower.
   */
  #together<T>(send: () => T): T {
    const socket = this.#socket;
    if (!socket) return send();
    socket.cork();
    try {
      return send();
    } finally {
      socket.uncork();
    }
  }

  /** Does something with an exchange or a queue and keeps account of what is wrong with it. */
  async #observed<T>(name: string, act: () => Promise<T>): Promise<T> {
    try {
      const result = await act();
      if (this.#problems.delete(name)) this.#log('info', 'as it must be on the broker again', { name });
      return result;
    } catch (error) {
      // A broker that is away says nothing about what is on it.
      if (this.connected && this.#problems.get(name) !== reasonOf(error)) {
        this.#problems.set(name, reasonOf(error));
        this.#log('error', 'not as it must be on the broker; delete it there, it is then declared anew', {
          name,
          reason: reasonOf(error),
        });
      }
      throw error;
    }
  }

  async #all(sends: Promise<void>[]): Promise<void> {
    const results = await Promise.allSettled(sends);
    const failed = results.find(result => result.status === 'rejected');
    if (!failed) return;
    // What was declared may be gone with a broker that was replaced: declare it again before the next try.
    this.#declared.clear();
    throw failed.reason instanceof Error ? failed.reason : new Error(String(failed.reason));
  }

  // The client retries by itself for ever; one line a cause is enough.
  #failed(why: string): void {
    if (why === this.#lastReason || this.#stopped) return;
    this.#lastReason = why;
    this.#declared.clear();
    this.#log(
      'warn',
      'broker away; check AMQP_URL and that it runs; writes, watches and work go on, publishing catches up later',
      { reason: why },
    );
  }
}

function workBody(message: WorkMessage): Buffer {
  if ('map' in message) return Buffer.from(JSON.stringify(message));
  const { type, namespace, name, uid, version } = message;
  return Buffer.from(
    JSON.stringify({
      type,
      ...(namespace === '' ? {} : { namespace }),
      name,
      uid,
      resourceVersion: version === null ? null : String(version),
    }),
  );
}

function eventBody(type: string, event: LogEvent): Buffer {
  const { op, version, previous, object } = event;
  const large = Buffer.byteLength(object) > largestObject;
  const head = `{"op":"${op}","type":"${type}","resourceVersion":"${version}","previousResourceVersion":"${previous}",`;
  return Buffer.from(head + (large ? '"truncated":true}' : `"object":${object}}`));
}

/** What the broker calls an error, such as NOT_FOUND. */
function codeOf(error: unknown): string | undefined {
  return error instanceof AMQPError ? error.code : undefined;
}
