import { eventExchange } from '../amqp.js';
import { Backoff, longestTimer } from './backoff.js';
import type { Broker } from './broker.js';
import { Replay, type WatchEvent } from './replay.js';
import { compareVersions, type Resource } from './resource.js';
import { either, follow, isFinal, type Watchable, type WatchOptions } from './watch.js';

/** Which changes `events` tells, and from where on. */
export interface EventsOptions extends Omit<WatchOptions, 'labelSelector' | 'fieldSelector'> {
  /**
   * Seconds without a message after which the server is asked whether one was missed; default 60. A queue on a node that is cut
   * off from the rest of its cluster says nothing, and of the last change before a quiet time no later one tells.
   */
  quietSeconds?: number;
}

/** An event as RabbitMQ carries it; objects over 64 KB are left out. */
interface Message {
  op: 'ADDED' | 'MODIFIED' | 'DELETED';
  resourceVersion: string;
  previousResourceVersion: string;
  object: unknown;
}

/**
 * Follows the changes of a collection as `watch` does, but over RabbitMQ: a queue of its own bound to the type's fanout
 * exchange, so that ten thousand listeners cost the API nothing. What the queue cannot give comes over HTTP, unnoticed by the
 * consumer: the objects of now, what was missed while the queue was away, large objects, everything while the broker is down.
 *
 * Every listener gets every change of the type; there are no selectors, so use `watch` to see few of many. Bookmarks come with
 * what is read over HTTP alone: of what the queue brings each event tells its version.
 * @throws PlatformError as `watch`; TypeError the client was connected without `amqpUrl`
 * @example
 * for await (const event of events(client.clusters)) {
 *   console.log(event.type, event.object.name);
 * }
 */
export async function* events<T extends Resource>(
  collection: Watchable<T>,
  options: EventsOptions = {},
): AsyncGenerator<WatchEvent<T>, void, undefined> {
  const { broker } = collection;
  if (!broker) throw new TypeError('events() needs a client that was connected with amqpUrl; watch() does not');
  const signal = either(options.signal, collection.signal);
  const replay = new Replay<T>(options.since);
  for await (const event of everything(collection, broker, { ...options, signal }, replay)) {
    // Filtered here and not by the server: whether a version was missed can only be told from all of them.
    if (options.namespace === undefined || event.object.namespace === options.namespace) yield event;
  }
  if (!options.signal?.aborted) collection.signal?.throwIfAborted();
}

async function* everything<T extends Resource>(
  collection: Watchable<T>,
  broker: Broker,
  options: EventsOptions,
  replay: Replay<T>,
): AsyncGenerator<WatchEvent<T>, void, undefined> {
  const { signal } = options;
  if (signal?.aborted) return;
  const inbox = new Inbox(collection.type, broker, (options.quietSeconds ?? 60) * 1_000);
  const fill = (until?: string, stop = signal) =>
    follow(collection, { ...options, namespace: undefined, signal: stop }, replay, until);
  try {
    while (!signal?.aborted) {
      if (!inbox.ready) {
        yield* fill(undefined, either(signal, inbox.becomesReady));
        continue;
      }
      // The queue has all that is published from here on, the log all that was committed before.
      const newest = await newestVersion(collection, options);
      if (newest === undefined) continue;
      yield* fill(newest);
      for (;;) {
        const message = await inbox.next(signal);
        if (!message) break;
        const { op, resourceVersion, previousResourceVersion, object } = message;
        // At least once: the relay may publish a version again.
        if (replay.seen !== undefined && compareVersions(resourceVersion, replay.seen) <= 0) continue;
        // Also where it claims to follow something older: others may publish too, and what they make up is not to be what was seen.
        const missed = replay.seen === undefined || compareVersions(previousResourceVersion, replay.seen) !== 0;
        if (missed) {
          // No further than the server is: until a made-up version came, which may be never, nothing would come over the queue.
          const head = await newestVersion(collection, options);
          if (head === undefined) break;
          yield* fill(compareVersions(head, resourceVersion) < 0 ? head : resourceVersion);
        } else if (object === undefined) yield* fill(resourceVersion);
        else
          yield* replay.accept({
            type: op,
            resourceVersion,
            previousResourceVersion,
            object: collection.parse(object),
          });
      }
    }
  } finally {
    await inbox.close();
  }
}

/** The version of the type now, asked for until the server answers; undefined when `signal` aborts. */
async function newestVersion<T extends Resource>(
  { path, transport }: Watchable<T>,
  { signal, onInterruption }: EventsOptions,
): Promise<string | undefined> {
  const backoff = new Backoff(50, 5000);
  while (!signal?.aborted) {
    try {
      const page = await transport.send({ method: 'GET', path, query: { limit: 1 }, signal });
      if (typeof page === 'object' && page !== null && 'resourceVersion' in page) return String(page.resourceVersion);
      throw new TypeError(`GET ${path} answered no list`);
    } catch (error) {
      if (signal?.aborted) break;
      if (isFinal(error)) throw error;
      onInterruption?.(error);
      await transport.pause(backoff.next(), signal);
    }
  }
  return undefined;
}

/** The messages of a queue bound to a type's exchange, in order. The broker keeps what is beyond the prefetch limit. */
class Inbox {
  readonly #subscription;
  readonly #messages: { message: Message; acknowledge: () => void }[] = [];
  readonly #quiet: number;
  #isQuiet = false;
  #wake: () => void = () => undefined;
  #becomesReady = new AbortController();
  #taken: (() => void) | undefined;

  /** @param quiet milliseconds */
  constructor(type: string, broker: Broker, quiet: number) {
    this.#quiet = quiet;
    const exchange = eventExchange(type);
    this.#subscription = broker.consume(
      {
        queue: '',
        // A listener that is far behind loses the oldest messages, notices the gap and reads it from the log.
        queueOptions: { exclusive: true, autoDelete: true, arguments: { 'x-max-length': 100_000 } },
        exchanges: [{ exchange, type: 'fanout', durable: true }],
        queueBindings: [{ exchange }],
        qos: { prefetchCount: 500 },
      },
      ready => {
        if (ready) this.#becomesReady.abort();
        else {
          this.#becomesReady = new AbortController();
          // The next connection has a new, empty queue; the client waits for these before it makes one.
          this.#acknowledgeAll();
        }
        this.#wake();
      },
      ({ body }) => {
        const message = readMessage(body);
        // While the queue is not ready nobody takes it, and after that the server is asked for the newest version.
        if (!message || !this.ready) return Promise.resolve('taken');
        return new Promise(settle => {
          this.#messages.push({ message, acknowledge: () => settle('taken') });
          this.#wake();
        });
      },
    );
  }

  get ready(): boolean {
    return this.#subscription.ready;
  }

  get becomesReady(): AbortSignal {
    return this.#becomesReady.signal;
  }

  /** The next message; acknowledges the one before. Undefined when the queue is lost or quiet, or `signal` aborts. */
  async next(signal?: AbortSignal): Promise<Message | undefined> {
    this.#taken?.();
    this.#taken = undefined;
    const onAbort = () => this.#wake();
    signal?.addEventListener('abort', onAbort, { once: true });
    this.#isQuiet = false;
    let timer: NodeJS.Timeout | undefined;
    const onQuiet = () => {
      this.#isQuiet = true;
      this.#wake();
    };
    try {
      while (this.ready && !signal?.aborted) {
        const next = this.#messages.shift();
        if (next) {
          this.#taken = next.acknowledge;
          return next.message;
        }
        if (this.#wasQuiet()) break;
        timer ??= setTimeout(onQuiet, Math.min(this.#quiet, longestTimer));
        await new Promise<void>(resolve => (this.#wake = resolve));
      }
      return undefined;
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
    }
  }

  async close(): Promise<void> {
    this.#acknowledgeAll();
    await this.#subscription.close();
  }

  // A call, because TypeScript takes a flag that it has looked at for settled.
  #wasQuiet(): boolean {
    return this.#isQuiet;
  }

  #acknowledgeAll(): void {
    this.#taken?.();
    this.#taken = undefined;
    for (const { acknowledge } of this.#messages.splice(0)) acknowledge();
  }
}

function readMessage(body: unknown): Message | undefined {
  if (typeof body !== 'object' || body === null) return undefined;
  if (!('op' in body && 'resourceVersion' in body && 'previousResourceVersion' in body)) return undefined;
  const { op, resourceVersion, previousResourceVersion } = body;
  if (op !== 'ADDED' && op !== 'MODIFIED' && op !== 'DELETED') return undefined;
  // Others may publish too: what is no version must not become the one that was seen last.
  const isVersion = (value: unknown): value is string => typeof value === 'string' && /^\d{1,19}$/.test(value);
  if (!isVersion(resourceVersion) || !isVersion(previousResourceVersion)) return undefined;
  const whole = 'object' in body && !('truncated' in body && body.truncated === true);
  if (whole && !isObjectAt(body.object, resourceVersion)) return undefined;
  return { op, resourceVersion, previousResourceVersion, object: whole ? body.object : undefined };
}

function isObjectAt(object: unknown, resourceVersion: string): boolean {
  if (typeof object !== 'object' || object === null || !('name' in object && 'uid' in object)) return false;
  const texts = typeof object.name === 'string' && typeof object.uid === 'string';
  return texts && 'resourceVersion' in object && object.resourceVersion === resourceVersion;
}
