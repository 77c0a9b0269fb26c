import type { Broker, Fate, Subscription } from './broker.js';
import type { WorkKey } from './claims.js';

/** Messages that came for a controller, to be claimed. */
export interface WorkMessages {
  keys: WorkKey[];
  /** Takes the messages off the queue; call it once the claim was answered, whatever it gave. */
  acknowledge(): void;
}

interface Waiting {
  key: WorkKey | undefined;
  since: number;
  settle: (fate: Fate) => void;
}

/** Milliseconds that a message may wait for a free slot; RabbitMQ itself allows 30 minutes. */
const longestWait = 60_000;

/**
 * The queue `syncsets.work.<controller>`: each message is a key that one listener may claim. The state of work is in the
 * database and the queue only shortens the wait, so nothing is lost with a message: one that is acknowledged without a claim
 * is sent again while its key is queued. A message goes back on the queue only where it waited in vain for a free slot.
 *
 * @example
 * const queue = new WorkQueue(client.broker, 'hello', 32);
 * const messages = await queue.take(16, { idleSeconds: 5 });
 * const claims = await client.controllers.claim('hello', { worker, max: 16, keys: messages?.keys ?? [] });
 * messages?.acknowledge();
 */
export class WorkQueue {
  readonly #subscription: Subscription;
  readonly #sweeper: NodeJS.Timeout;
  #waiting: Waiting[] = [];
  #wake: () => void = () => undefined;
  #closing = false;

  /** @param prefetch messages that this process may hold at a time; about twice the keys that it works on at once */
  constructor(broker: Broker, controller: string, prefetch: number) {
    this.#subscription = broker.consume(
      {
        queue: `syncsets.work.${controller}`,
        // Exactly as the API declares it; the broker refuses a second opinion.
        queueOptions: { durable: true, arguments: { 'x-queue-type': 'quorum' } },
        qos: { prefetchCount: prefetch },
      },
      ready => {
        // Unacknowledged messages come again on the next connection, which is not made before these are given up.
        if (!ready) this.#giveUp(() => true);
        this.#wake();
      },
      ({ body }) =>
        new Promise(settle => {
          // What still comes while the consumer is being cancelled.
          if (this.#closing) settle('returned');
          this.#waiting.push({ key: readKey(body), since: performance.now(), settle });
          this.#wake();
        }),
    );
    this.#sweeper = setInterval(() => {
      const oldest = performance.now() - longestWait;
      this.#giveUp(({ since }) => since < oldest);
    }, 10_000).unref();
  }

  /** Whether messages arrive at present; otherwise claim by long polls. */
  isReady(): boolean {
    return this.#subscription.ready;
  }

  /**
   * Waits for messages and takes up to `max` keys of what arrives together. A message about a watched type's events has no
   * key: then `keys` may be empty. Undefined: nothing came in `idleSeconds`, or the queue is lost, or `signal` aborted.
   */
  async take(max: number, options: { idleSeconds: number; signal?: AbortSignal }): Promise<WorkMessages | undefined> {
    if (this.#waiting.length === 0) await this.#arrival(options);
    const taken: Waiting[] = [];
    const keys = new Map<string, WorkKey>();
    for (const waiting of this.#waiting) {
      if (keys.size === max) break;
      taken.push(waiting);
      const { key } = waiting;
      if (key) keys.set(`${key.type}/${key.namespace ?? ''}/${key.name}`, key);
    }
    this.#waiting.splice(0, taken.length);
    if (taken.length === 0) return undefined;
    return {
      keys: [...keys.values()],
      acknowledge: () => {
        for (const { settle } of taken) settle('taken');
      },
    };
  }

  /** Stops listening; what waits goes back on the queue, to others. */
  async close(): Promise<void> {
    this.#closing = true;
    clearInterval(this.#sweeper);
    this.#giveUp(() => true);
    await this.#subscription.close();
  }

  async #arrival({ idleSeconds, signal }: { idleSeconds: number; signal?: AbortSignal }): Promise<void> {
    if (!this.isReady() || signal?.aborted) return;
    const wake = () => this.#wake();
    signal?.addEventListener('abort', wake, { once: true });
    const timer = setTimeout(wake, idleSeconds * 1000);
    await new Promise<void>(resolve => (this.#wake = resolve));
    clearTimeout(timer);
    signal?.removeEventListener('abort', wake);
    // What came in the same packets is handed over in this turn of the event loop.
    await new Promise<void>(resolve => setImmediate(resolve));
  }

  #giveUp(condition: (waiting: Waiting) => boolean): void {
    const given = this.#waiting.filter(condition);
    if (given.length === 0) return;
    this.#waiting = this.#waiting.filter(waiting => !condition(waiting));
    for (const { settle } of given) settle('returned');
  }
}

function readKey(body: unknown): WorkKey | undefined {
  if (typeof body !== 'object' || body === null || !('type' in body && 'name' in body)) return undefined;
  const { type, name } = body;
  if (typeof type !== 'string' || typeof name !== 'string') return undefined;
  const namespace = 'namespace' in body && typeof body.namespace === 'string' ? body.namespace : undefined;
  return { type, ...(namespace !== undefined && { namespace }), name };
}
