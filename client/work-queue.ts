import type { AsyncMessage } from 'rabbitmq-client';
import { workQueue, workQueueArguments } from '../amqp.js';
import { longestTimer, pause } from './backoff.js';
import type { Broker, Fate, Subscription } from './broker.js';
import type { RefusedMessage, WorkKey } from './claims.js';

/** Messages that came for a controller, to be claimed; `WorkQueue` shows how. */
export interface WorkMessages {
  /** What they name, each key once; none where they tell of events to map. */
  keys: WorkKey[];
  /**
   * Takes the messages off the queue; call it once the claim was answered, whatever it gave. What was refused is parked.
   *
   * @example
   * messages.acknowledge(refused);
   */
  acknowledge(refused?: RefusedMessage[]): void;
}

interface Waiting {
  message: AsyncMessage;
  key: WorkKey | undefined;
  since: number;
  settle: (fate: Fate) => void;
}

/** Milliseconds that a message may wait for a free slot; RabbitMQ itself allows 30 minutes. */
const longestWait = 60_000;
/** So often a message may come back; then it is dropped. Brokers before 4.0 set no limit by themselves. */
const mostReturns = 10;
/** Milliseconds before a message that could not be parked goes back. */
const returnPause = 1_000;
/** As long as the names of any object. */
const longest = { type: 63, namespace: 63, name: 253 };

/**
 * The queue `syncsets.work.<controller>`: each message is a key that one listener may claim. The state of work is in the
 * database and the queue only shortens the wait, so nothing is lost with a message: one that is acknowledged without a claim
 * is sent again while its key is queued. A message goes back on the queue only where it waited in vain for a free slot, ten times
 * at most. What is no such message was put there by others; it ends in the queue `syncsets.parked` with the reason.
 *
 * @example
 * const queue = new WorkQueue(client.broker, 'hello', 32);
 * const messages = await queue.take(16, { idleSeconds: 2 });
 * if (messages) {
 *   const request = { worker, max: Math.max(1, messages.keys.length), messages: messages.keys };
 *   const { claims, refused } = await client.controllers.claimForMessages('hello', request);
 *   messages.acknowledge(refused);
 * }
 */
export class WorkQueue {
  readonly #broker: Broker;
  readonly #name: string;
  readonly #subscription: Subscription;
  readonly #sweeper: NodeJS.Timeout;
  #waiting: Waiting[] = [];
  /** Of those who wait for messages. */
  readonly #wakes = new Set<() => void>();
  #closing = false;

  /** @param prefetch messages that this process may hold at a time; about twice the keys that it works on at once */
  constructor(broker: Broker, controller: string, prefetch: number) {
    this.#broker = broker;
    this.#name = workQueue(controller);
    this.#subscription = broker.consume(
      {
        queue: this.#name,
        queueOptions: { durable: true, arguments: workQueueArguments },
        qos: { prefetchCount: prefetch },
      },
      ready => {
        // Unacknowledged messages come again on the next connection, which is not made before these are given up.
        if (!ready) this.#giveUp(() => true);
        this.#wake();
      },
      message => {
        // What still comes while the consumer is being cancelled.
        if (this.#closing) return Promise.resolve('returned');
        const { key, problem } = readMessage(message.body);
        if (problem !== undefined) return this.#park(message, problem);
        return new Promise(settle => {
          this.#waiting.push({ message, key, since: performance.now(), settle });
          this.#wake();
        });
      },
    );
    this.#sweeper = setInterval(() => {
      const oldest = performance.now() - longestWait;
      this.#giveUp(({ since }) => since < oldest);
    }, 10_000).unref();
  }

  /** Whether messages arrive at present; otherwise claim by long polls. */
  isReady(): boolean {
    return !this.#closing && this.#subscription.ready;
  }

  /**
   * Waits for messages and takes up to `max` keys of what arrives together. A message about a watched type's events has no
   * key: then `keys` may be empty. Undefined: nothing came in `idleSeconds`, or the queue is lost or closed, or `signal` aborted.
   */
  async take(max: number, options: { idleSeconds: number; signal?: AbortSignal }): Promise<WorkMessages | undefined> {
    if (this.#waiting.length === 0) await this.#arrival(options);
    // Messages that came all the same are for others.
    if (this.#closing || options.signal?.aborted) return undefined;
    const taken: Waiting[] = [];
    const keys = new Map<string, WorkKey>();
    for (const waiting of this.#waiting) {
      if (keys.size === max) break;
      taken.push(waiting);
      const { key } = waiting;
      if (key && !keys.has(nameOf(key))) keys.set(nameOf(key), key);
    }
    this.#waiting.splice(0, taken.length);
    if (taken.length === 0) return undefined;
    return {
      keys: [...keys.values()],
      acknowledge: (refused = []) => {
        const places = [...keys.keys()];
        const reasons = new Map(refused.map(({ index, reason }) => [places[index], reason]));
        for (const { key, message, settle } of taken) {
          const reason = key && reasons.get(nameOf(key));
          if (reason === undefined) settle('taken');
          else void this.#park(message, reason).then(settle);
        }
      },
    };
  }

  /** Stops listening; what waits goes back on the queue, to others, and who waits in `take` gets undefined. */
  async close(): Promise<void> {
    this.#closing = true;
    clearInterval(this.#sweeper);
    this.#giveUp(() => true);
    this.#wake();
    await this.#subscription.close();
  }

  async #arrival({ idleSeconds, signal }: { idleSeconds: number; signal?: AbortSignal }): Promise<void> {
    if (!this.isReady() || signal?.aborted) return;
    const wake = () => this.#wake();
    signal?.addEventListener('abort', wake, { once: true });
    const timer = setTimeout(wake, Math.min(idleSeconds * 1000, longestTimer));
    await new Promise<void>(resolve => this.#wakes.add(resolve));
    clearTimeout(timer);
    signal?.removeEventListener('abort', wake);
    // What came in the same packets is handed over in this turn of the event loop.
    await new Promise<void>(resolve => setImmediate(resolve));
  }

  #wake(): void {
    for (const wake of this.#wakes) wake();
    this.#wakes.clear();
  }

  #giveUp(condition: (waiting: Waiting) => boolean): void {
    const given = this.#waiting.filter(condition);
    if (given.length === 0) return;
    this.#waiting = this.#waiting.filter(waiting => !condition(waiting));
    for (const { message, settle } of given) settle(wasReturnedTooOften(message) ? 'taken' : 'returned');
  }

  async #park(message: AsyncMessage, reason: string): Promise<Fate> {
    if (await this.#broker.park(message, this.#name, reason)) return 'taken';
    // It comes again at once.
    await pause(returnPause);
    return wasReturnedTooOften(message) ? 'taken' : 'returned';
  }
}

/** Quorum queues count how often they have delivered a message. */
function wasReturnedTooOften({ headers }: AsyncMessage): boolean {
  return Number(headers?.['x-delivery-count'] ?? 0) >= mostReturns;
}

const nameOf = ({ type, namespace, name }: WorkKey) => `${type}/${namespace ?? ''}/${name}`;

/** The key that a message names; neither key nor problem: it tells of events to map. */
function readMessage(body: unknown): { key?: WorkKey; problem?: string } {
  if (typeof body !== 'object' || body === null || Buffer.isBuffer(body) || Array.isArray(body))
    return { problem: 'it is no JSON object, sent as application/json' };
  if ('map' in body) return typeof body.map === 'string' ? {} : { problem: 'map is no text' };
  const fields = body as Record<string, unknown>;
  for (const [field, most] of Object.entries(longest)) {
    const value = fields[field];
    if (field === 'namespace' && value === undefined) continue;
    if (typeof value !== 'string' || value === '' || value.length > most)
      return { problem: `${field} is not a text of 1 to ${most} characters` };
    // The server refuses a whole request that holds such a text, with all other messages in it.
    if (value.includes('\0') || !value.isWellFormed())
      return { problem: `${field} holds a NUL character or half of a surrogate pair` };
  }
  const { type, namespace, name } = fields as { type: string; namespace?: string; name: string };
  return { key: { type, ...(namespace !== undefined && { namespace }), name } };
}
