import { AMQPError, type Connection } from 'rabbitmq-client';
import { eventExchange, parkingQueue, workQueueArguments } from '../amqp.js';
import type { Log } from '../db/index.js';
import { reasonOf } from '../reason.js';

/** A queue that others keep declaring their way is replaced once in so many ms: nobody is to fight over it all day. */
const replaceAfter = 60_000;

/** On which broker, and for which types. */
export interface TopologyOptions {
  connection: Connection;
  types: string[];
  /** Whether the broker answers now. */
  connected: () => boolean;
  log: Log;
}

/**
 * What we have on the broker: a durable fanout exchange per type, a quorum queue per controller, one for parked messages, nothing else.
 * All of it is ours and is looked after: what is deleted by hand is declared again, a work queue of other arguments is replaced
 * (the truth about work is in Postgres, its messages are hints), an exchange of another kind is reported, for others bind to it.
 */
export class Topology {
  readonly #connection: Connection;
  readonly #types: string[];
  readonly #connected: () => boolean;
  readonly #log: Log;
  readonly #declared = new Set<string>();
  readonly #replacedAt = new Map<string, number>();
  /** What is wrong with an exchange or a queue, by its name. */
  readonly #problems = new Map<string, string>();
  #parked = 0;

  constructor({ connection, types, connected, log }: TopologyOptions) {
    this.#connection = connection;
    this.#types = types;
    this.#connected = connected;
    this.#log = log;
  }

  /** Exchanges and queues that are not as they must be, at the last look. */
  get problems(): string[] {
    return [...this.#problems.keys()];
  }

  /** Messages in the parking queue, at the last look. */
  get parked(): number {
    return this.#parked;
  }

  /** Whether an exchange or a queue was there when it was looked at last. */
  isDeclared(name: string): boolean {
    return this.#declared.has(name);
  }

  /** One of them may be gone, or all: they are declared before they are used again. */
  undeclared(name?: string): void {
    if (name === undefined) this.#declared.clear();
    else this.#declared.delete(name);
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

  /** Declares an exchange unless that was done. Throws when the broker has another one of that name. */
  async declareExchange(exchange: string): Promise<void> {
    if (this.#declared.has(exchange)) return;
    await this.#observed(exchange, () => this.#connection.exchangeDeclare({ exchange, type: 'fanout', durable: true }));
    this.#declared.add(exchange);
  }

  /**
   * Declares a work queue unless that was done, and says how many messages it held; 0 when it was done. Throws when the broker has
   * another one of that name.
   */
  async declareQueue(queue: string): Promise<number> {
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

  /** Messages that wait in a work queue, which is looked after: declared again or replaced where needed. */
  async look(queue: string): Promise<number> {
    if (this.#declared.has(queue)) {
      await this.#connection.queueDeclare({ queue, passive: true }).catch((error: unknown) => {
        if (codeOf(error) !== 'NOT_FOUND') throw error;
        this.#log('warn', 'a queue was deleted by other hands; it is declared again', { queue });
      });
    }
    this.#declared.delete(queue);
    return this.declareQueue(queue);
  }

  /**
   * Looks after what belongs to no controller: the exchanges, and how many messages are parked. What cannot be had is told of by
   * `problems` and holds up nothing.
   */
  async inspect(): Promise<void> {
    for (const type of this.#types) {
      this.#declared.delete(eventExchange(type));
      await this.declareExchange(eventExchange(type)).catch(() => undefined);
    }
    await this.#lookAtParked().catch(() => undefined);
  }

  async #lookAtParked(): Promise<void> {
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

  /** Throws away the messages that wait in a queue; those that consumers hold stay theirs. */
  async purge(queue: string): Promise<void> {
    await this.#connection.queuePurge(queue);
  }

  /** Removes a queue, if it is there. */
  async remove(queue: string): Promise<void> {
    this.#declared.delete(queue);
    this.#problems.delete(queue);
    await this.#connection.queueDelete({ queue });
  }

  /** Does something with an exchange or a queue and keeps account of what is wrong with it. */
  async #observed<T>(name: string, act: () => Promise<T>): Promise<T> {
    try {
      const result = await act();
      if (this.#problems.delete(name)) this.#log('info', 'as it must be on the broker again', { name });
      return result;
    } catch (error) {
      // A broker that is away says nothing about what is on it.
      if (this.#connected() && this.#problems.get(name) !== reasonOf(error)) {
        this.#problems.set(name, reasonOf(error));
        this.#log('error', 'not as it must be on the broker; delete it there, it is then declared anew', {
          name,
          reason: reasonOf(error),
        });
      }
      throw error;
    }
  }
}

/** What the broker calls an error, such as NOT_FOUND. */
function codeOf(error: unknown): string | undefined {
  return error instanceof AMQPError ? error.code : undefined;
}
