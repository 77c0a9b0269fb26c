import type { Channel, Connection } from 'rabbitmq-client';
import type { LogEvent } from '../db/index.js';
import { eventFrames } from './frames.js';

/** What waits for the broker's word on a message; the client calls it. */
interface Waiting {
  resolve: () => void;
  reject: (error: unknown) => void;
}

/** What the client knows of a channel that its API does not show: it is checked before it is used. */
interface Inside {
  /** Writes frames to the socket, as far as that takes them, then calls back. */
  stream: { write: (frames: Iterator<Buffer>, done: (error?: Error | null) => void) => boolean };
  /** Messages by their number that the broker has not confirmed. */
  unconfirmed: Map<number, Waiting>;
  /** The number of the next message. */
  deliveryCount: number;
}

/**
 * A channel for events, confirmed, opened again after it was lost. It hands whole batches of encoded messages to the client and has
 * one promise for all of them, where the client's `send` makes buffers, generators and promises for each: 10 µs of CPU for an
 * event of 1 KB instead of 32. All else (connecting, back-pressure, reading confirmations) stays with the client.
 */
export class EventChannel {
  readonly #connection: Connection;
  #channel: Channel | undefined;
  #opening: Promise<Channel> | undefined;
  #closed = false;

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  /**
   * Publishes events of a type to a fanout exchange, in their order and after those of earlier calls; returns when the broker has
   * confirmed all. Throws when it has not, and, with nothing sent, when `failed` aborts before there is a channel.
   *
   * @param events one at least
   */
  async publish(exchange: string, type: string, events: readonly LogEvent[], failed: AbortSignal): Promise<void> {
    const channel = await this.#opened();
    failed.throwIfAborted();
    if (!channel.active) throw new Error('the channel for events was lost');
    const inside = insideOf(channel);
    await new Promise<void>((resolve, reject) => {
      const frames = eventFrames(channel.id, exchange, type, events);
      let left = events.length;
      const waiting: Waiting = {
        resolve: () => {
          if (--left === 0) resolve();
        },
        reject,
      };
      // Before they are sent: with a slow socket the first confirmations come before the last frame has left.
      for (let count = 0; count < events.length; count++) inside.unconfirmed.set(inside.deliveryCount++, waiting);
      inside.stream.write([frames].values(), error => {
        if (error) reject(error);
      });
    });
  }

  /** Closes the channel; what the broker has not confirmed fails. */
  async close(): Promise<void> {
    this.#closed = true;
    const channel = await this.#opening?.catch(() => undefined);
    await channel?.close();
  }

  /** All that call it meanwhile go on in the order in which they called. */
  #opened(): Promise<Channel> {
    if (this.#closed) return Promise.reject(new Error('the channel for events is closed'));
    if (this.#channel?.active === false) this.#channel = this.#opening = undefined;
    this.#opening ??= this.#open().catch((error: unknown) => {
      this.#opening = undefined;
      throw error;
    });
    return this.#opening;
  }

  async #open(): Promise<Channel> {
    const channel = await this.#connection.acquire();
    await channel.confirmSelect();
    this.#channel = channel;
    return channel;
  }
}

/** @throws Error the client is another one than this was written for: its version is pinned */
function insideOf(channel: Channel): Inside {
  const state: unknown = Reflect.get(channel, '_state');
  if (!isInside(state)) throw new Error('rabbitmq-client keeps its channels otherwise: events cannot be published');
  return state;
}

function isInside(state: unknown): state is Inside {
  const { stream, unconfirmed, deliveryCount }: Partial<Record<keyof Inside, unknown>> = state ?? {};
  return (
    typeof stream === 'object' &&
    stream !== null &&
    'write' in stream &&
    typeof stream.write === 'function' &&
    unconfirmed instanceof Map &&
    typeof deliveryCount === 'number'
  );
}
