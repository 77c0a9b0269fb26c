import { Connection, type Publisher } from 'rabbitmq-client';
import type { Log, LogEvent } from '../db/index.js';

/** A key on its way to a worker, or the news that a watched type has events to map. */
export type WorkMessage =
  { type: string; namespace: string; name: string; uid: string | null; version: number | null } | { map: string };

/** Objects beyond this many bytes stay out of messages, which then say `truncated`: brokers are no object stores. */
const largestObject = 64 * 1024;

/** The exchange that carries every event of a type. */
export const eventExchange = (type: string) => `syncsets.events.${type}`;
/** The queue that carries the keys of a controller; each goes to one of its listeners. */
export const workQueue = (controller: string) => `syncsets.work.${controller}`;

/**
 * Publishes to RabbitMQ 3.10 to 4.x: persistent messages with publisher confirms on one channel, which keeps their order.
 * Topology: a durable fanout exchange per type, a quorum queue per controller, nothing else.
 */
export class RabbitTransport {
  readonly #connection: Connection;
  readonly #publisher: Publisher;
  readonly #log: Log;
  readonly #types: string[];
  readonly #declaredQueues = new Set<string>();
  #connected = false;
  #declared = false;
  #lastReason = '';

  constructor(options: { url: string; types: string[]; instance: string; log: Log }) {
    this.#types = options.types;
    this.#log = options.log;
    this.#connection = new Connection({
      url: options.url,
      connectionName: `syncsets api ${options.instance}`,
      acquireTimeout: 3_000,
      connectionTimeout: 5_000,
      retryLow: 200,
      retryHigh: 5_000,
      heartbeat: 10,
      noDelay: true,
    });
    this.#connection.on('error', error => this.#lost(reason(error)));
    this.#connection.on('connection', () => {
      this.#connected = true;
      this.#lastReason = '';
      options.log('info', 'broker connected');
    });
    this.#connection.on('connection.blocked', why => options.log('warn', 'broker blocks publishers', { reason: why }));
    this.#connection.on('connection.unblocked', () => options.log('info', 'broker accepts messages again'));
    this.#publisher = this.#connection.createPublisher({ confirm: true, maxAttempts: 1 });
  }

  /** Whether the broker answers now. */
  get connected(): boolean {
    return this.#connected && this.#connection.ready;
  }

  async stop(): Promise<void> {
    await this.#publisher.close().catch(() => undefined);
    await this.#connection.close().catch(() => undefined);
  }

  /** Publishes events of a type in their order; returns when the broker has confirmed all. Throws when it has not. */
  async publish(type: string, events: readonly LogEvent[]): Promise<void> {
    await this.#declare();
    await this.#all(
      events.map(event =>
        this.#publisher.send(
          {
            exchange: eventExchange(type),
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
    );
  }

  /** Puts messages on the queue of a controller; returns when the broker has confirmed all. */
  async send(controller: string, messages: WorkMessage[]): Promise<void> {
    const queue = workQueue(controller);
    await this.#declareQueue(queue);
    await this.#all(
      messages.map(message =>
        this.#publisher.send(
          { routingKey: queue, durable: true, contentType: 'application/json' },
          Buffer.from(
            JSON.stringify(
              'map' in message
                ? message
                : {
                    type: message.type,
                    ...(message.namespace === '' ? {} : { namespace: message.namespace }),
                    name: message.name,
                    uid: message.uid,
                    resourceVersion: message.version === null ? null : String(message.version),
                  },
            ),
          ),
        ),
      ),
    );
  }

  /** Messages that wait in the queue of a controller. */
  async depth(controller: string): Promise<number> {
    const queue = workQueue(controller);
    await this.#declareQueue(queue);
    try {
      return (await this.#connection.queueDeclare({ queue, passive: true })).messageCount;
    } catch (error) {
      // Deleted by hand on the broker: the next look declares it again.
      this.#declaredQueues.delete(queue);
      throw error;
    }
  }

  /** Removes the queue of a controller that is forgotten. */
  async forget(controller: string): Promise<void> {
    this.#declaredQueues.delete(workQueue(controller));
    await this.#connection.queueDelete({ queue: workQueue(controller) });
  }

  async #declare(): Promise<void> {
    if (this.#declared) return;
    for (const type of this.#types) {
      await this.#connection.exchangeDeclare({ exchange: eventExchange(type), type: 'fanout', durable: true });
    }
    this.#declared = true;
  }

  async #declareQueue(queue: string): Promise<void> {
    if (this.#declaredQueues.has(queue)) return;
    await this.#connection.queueDeclare({ queue, durable: true, arguments: { 'x-queue-type': 'quorum' } });
    this.#declaredQueues.add(queue);
  }

  async #all(sends: Promise<void>[]): Promise<void> {
    const results = await Promise.allSettled(sends);
    const failed = results.find(result => result.status === 'rejected');
    if (!failed) return;
    // What was declared may be gone with a broker that was replaced: declare it again before the next try.
    this.#declared = false;
    this.#declaredQueues.clear();
    throw failed.reason instanceof Error ? failed.reason : new Error(String(failed.reason));
  }

  // The client retries by itself for ever; one line a cause is enough.
  #lost(why: string): void {
    this.#connected = false;
    this.#declared = false;
    this.#declaredQueues.clear();
    if (why === this.#lastReason) return;
    this.#lastReason = why;
    this.#log(
      'warn',
      'broker away; check AMQP_URL and that it runs; writes, watches and work go on, publishing catches up later',
      { reason: why },
    );
  }
}

function eventBody(type: string, event: LogEvent): Buffer {
  const { op, version, previous, object } = event;
  const large = Buffer.byteLength(object) > largestObject;
  const head = `{"op":"${op}","type":"${type}","resourceVersion":"${version}","previousResourceVersion":"${previous}",`;
  return Buffer.from(head + (large ? '"truncated":true}' : `"object":${object}}`));
}

function reason(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
