import {
  forgottenControllers,
  queueRemoved,
  reasonOf,
  sentKeys,
  takeUnsent,
  unsend,
  unsendKeys,
  type Database,
  type Key,
  type Log,
  type SentKeys,
} from '../db/index.js';
import { Loop } from './loop.js';
import type { RabbitTransport, WorkMessage } from './rabbitmq.js';
import type { Wakeups } from './wakeups.js';

/** Messages of a controller that are out at least may be this many. */
const smallestWindow = 64;
/** So many more may be out when urgent keys wait, so that one goes out at once behind a full window. */
const urgentRoom = 16;
/** A key whose message has been out this long, in seconds, on a queue that holds fewer than are out, is sent again. */
const sweepAfter = 10;
/** Most keys sent in a step. */
const step = 1_000;

export interface FeederOptions {
  database: Database;
  rabbit: RabbitTransport;
  wakeups: Wakeups;
  /** Whether this replica feeds the queues now. */
  leads: () => boolean;
  /** The trace (`traceparent`) in which a key was changed last, as far as it is known. */
  traceOf: (key: { type: string } & Key, controller: string) => string | undefined;
  log: Log;
}

/** What the feeder remembers of a controller. */
interface Feed {
  /** Messages out after the last look. */
  out: number;
  /** What was taken, by time. */
  taken: { at: number; keys: number }[];
  /** Why its queue could not be fed, how often, and when it is tried again. */
  trouble?: { reason: string; times: number; until: number };
  /** When events to map were announced last, by watched type. */
  announced: Map<string, number>;
}

/**
 * The table feeds the queues: per controller at most max(64, 2 x keys taken in the last second) messages are out, chosen by
 * priority and fairness. A message is a hint that there is work: who takes it claims what is most urgent by then, so a full
 * window delays nothing. A controller whose queue is in trouble does not hold up the others.
 */
export class Feeder {
  readonly #database: Database;
  readonly #rabbit: RabbitTransport;
  readonly #log: Log;
  readonly #leads: () => boolean;
  readonly #traceOf: FeederOptions['traceOf'];
  readonly #loop: Loop;
  readonly #sweeper: Loop;
  readonly #feeds = new Map<string, Feed>();
  readonly #stopListening: (() => void)[];

  constructor(options: FeederOptions) {
    this.#database = options.database;
    this.#rabbit = options.rabbit;
    this.#leads = options.leads;
    this.#traceOf = options.traceOf;
    this.#log = options.log;
    this.#loop = new Loop({ name: 'feeding queues', step: () => this.#feed(), interval: 100, log: options.log });
    this.#stopListening = [
      options.wakeups.on('work:*', () => this.wake()),
      options.wakeups.on('controllers', () => this.#sweeper.wake()),
    ];
    this.#sweeper = new Loop({
      name: 'sweeping queues',
      step: () => this.#sweep(),
      interval: sweepAfter * 1_000,
      log: options.log,
    });
  }

  start(): void {
    this.#loop.start();
    this.#sweeper.start();
  }

  async stop(): Promise<void> {
    for (const stop of this.#stopListening) stop();
    await Promise.all([this.#loop.stop(), this.#sweeper.stop()]);
  }

  /** New keys, or room for more: keys were taken. */
  wake(): void {
    if (this.#leads()) this.#loop.wake();
  }

  async #feed(): Promise<boolean> {
    if (!this.#leads() || !this.#rabbit.connected) return false;
    let more = false;
    const all = await sentKeys(this.#database);
    for (const sent of all) {
      const feed = this.#feedOf(sent);
      if (feed.trouble && performance.now() < feed.trouble.until) continue;
      try {
        more = (await this.#feedOne(sent, feed)) || more;
        delete feed.trouble;
      } catch (error) {
        if (this.#isAway()) throw error;
        this.#troubled(sent.controller, feed, error);
      }
    }
    const names = new Set(all.map(({ controller }) => controller));
    for (const name of this.#feeds.keys()) if (!names.has(name)) this.#feeds.delete(name);
    return more;
  }

  async #feedOne({ controller, out, waiting, maps }: SentKeys, feed: Feed): Promise<boolean> {
    const window = this.#window(feed, out);
    await this.#announceMaps(controller, maps, feed);
    const room = window + (waiting !== null && waiting > 0 ? urgentRoom : 0) - out;
    if (waiting === null || room <= 0) return false;
    // Before keys are marked as sent: a queue that cannot be had costs no writes.
    await this.#rabbit.prepare(controller);
    const keys = await takeUnsent(this.#database, controller, Math.min(room, step));
    try {
      await this.#rabbit.send(
        controller,
        keys.map(key => ({ ...key, traceparent: this.#traceOf(key, controller) })),
      );
    } catch (error) {
      await unsendKeys(this.#database, controller, keys);
      throw error;
    }
    feed.out = out + keys.length;
    return keys.length === step && room > step;
  }

  // A call, because TypeScript takes what it has looked at for settled.
  #isAway(): boolean {
    return !this.#rabbit.connected;
  }

  #feedOf({ controller, out }: SentKeys): Feed {
    const feed = this.#feeds.get(controller) ?? { out, taken: [], announced: new Map<string, number>() };
    this.#feeds.set(controller, feed);
    return feed;
  }

  #window(feed: Feed, out: number): number {
    const now = performance.now();
    if (feed.out > out) feed.taken.push({ at: now, keys: feed.out - out });
    feed.taken = feed.taken.filter(one => one.at > now - 1_000);
    feed.out = out;
    return Math.max(smallestWindow, 2 * feed.taken.reduce((sum, one) => sum + one.keys, 0));
  }

  /** One line for each cause; tried again after 100 ms to 5 s. */
  #troubled(controller: string, feed: Feed, error: unknown): void {
    const reason = reasonOf(error);
    const times = (feed.trouble?.times ?? 0) + 1;
    if (feed.trouble?.reason !== reason)
      this.#log('warn', 'a queue cannot be fed; its workers claim over HTTP meanwhile', { controller, reason });
    feed.trouble = { reason, times, until: performance.now() + Math.min(5_000, 50 * 2 ** Math.min(times, 10)) };
  }

  // A map that nobody takes is announced again each second: losing one message must not stop a secondary watch.
  async #announceMaps(controller: string, types: string[], { announced }: Feed): Promise<void> {
    const now = performance.now();
    const due = types.filter(type => now - (announced.get(type) ?? -Infinity) > 1_000);
    if (due.length === 0) return;
    for (const type of due) announced.set(type, now);
    await this.#rabbit.send(
      controller,
      due.map((map): WorkMessage => ({ map })),
    );
  }

  async #sweep(): Promise<boolean> {
    if (!this.#leads() || !this.#rabbit.connected) return false;
    await this.#rabbit.inspect();
    for (const { controller, out } of await sentKeys(this.#database)) {
      try {
        const depth = await this.#rabbit.depth(controller);
        if (out === 0 || depth >= out) continue;
        const lost = await unsend(this.#database, controller, sweepAfter);
        if (lost > 0) this.#log('debug', 'messages lost, sending again', { controller, keys: lost });
      } catch (error) {
        // Told of by the transport; the queues of the others are looked at all the same.
        if (this.#isAway()) throw error;
      }
    }
    await this.#removeForgotten();
    return false;
  }

  /** Removes the queues of deleted controllers, for a while: a worker that has not noticed yet may declare its queue again. */
  async #removeForgotten(): Promise<void> {
    for (const { controller, settled } of await forgottenControllers(this.#database)) {
      await this.#rabbit.forget(controller);
      if (settled) await queueRemoved(this.#database, controller);
    }
  }
}
