import { sentKeys, takeUnsent, unsend, type Database, type Log } from '../db/index.js';
import { Loop } from './loop.js';
import type { RabbitTransport, WorkMessage } from './rabbitmq.js';
import type { Wakeups } from './wakeups.js';

/** Messages of a controller that are out at least may be this many. */
const smallestWindow = 64;
/** A key whose message has been out this long, in seconds, on a queue that holds fewer than are out, is sent again. */
const sweepAfter = 10;

/**
 * The table feeds the queues: per controller at most max(64, 2 x keys taken in the last second) messages are out, chosen by
 * priority and fairness, so that what waits in the broker is never an old order. An urgent key goes out at once.
 */
export class Feeder {
  readonly #database: Database;
  readonly #rabbit: RabbitTransport;
  readonly #log: Log;
  readonly #leads: () => boolean;
  readonly #loop: Loop;
  readonly #sweeper: Loop;
  /** Per controller: messages out after the last look, and what was taken, by time. */
  readonly #seen = new Map<string, { out: number; taken: { at: number; keys: number }[] }>();
  readonly #stopListening: () => void;
  readonly #mapsSent = new Map<string, number>();

  constructor(options: {
    database: Database;
    rabbit: RabbitTransport;
    wakeups: Wakeups;
    leads: () => boolean;
    log: Log;
  }) {
    this.#database = options.database;
    this.#rabbit = options.rabbit;
    this.#leads = options.leads;
    this.#log = options.log;
    this.#loop = new Loop({ name: 'feeding queues', step: () => this.#feed(), interval: 100, log: options.log });
    this.#stopListening = options.wakeups.on('work:*', () => this.wake());
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
    this.#stopListening();
    await Promise.all([this.#loop.stop(), this.#sweeper.stop()]);
  }

  /** New keys, or room for more: keys were taken. */
  wake(): void {
    if (this.#leads()) this.#loop.wake();
  }

  async #feed(): Promise<boolean> {
    if (!this.#leads() || !this.#rabbit.connected) return false;
    let more = false;
    for (const { controller, out, unsent, urgent, maps } of await sentKeys(this.#database)) {
      await this.#announceMaps(controller, maps);
      const window = this.#window(controller, out);
      const room = Math.max(window - out, urgent ? 16 : 0);
      if (!unsent || room <= 0) continue;
      const keys = await takeUnsent(this.#database, controller, Math.min(room, 1_000));
      try {
        await this.#rabbit.send(controller, keys);
      } catch (error) {
        await unsend(this.#database, controller, 0);
        throw error;
      }
      const seen = this.#seen.get(controller);
      if (seen) seen.out = out + keys.length;
      more ||= keys.length > 0 && keys.length === Math.min(room, 1_000) && room > 1_000;
    }
    return more;
  }

  #window(controller: string, out: number): number {
    const now = performance.now();
    const seen = this.#seen.get(controller) ?? { out, taken: [] };
    this.#seen.set(controller, seen);
    if (seen.out > out) seen.taken.push({ at: now, keys: seen.out - out });
    seen.taken = seen.taken.filter(one => one.at > now - 1_000);
    seen.out = out;
    return Math.max(smallestWindow, 2 * seen.taken.reduce((sum, one) => sum + one.keys, 0));
  }

  // A map that nobody takes is announced again each second: losing one message must not stop a secondary watch.
  async #announceMaps(controller: string, types: string[]): Promise<void> {
    const now = performance.now();
    const due = types.filter(type => now - (this.#mapsSent.get(`${controller} ${type}`) ?? -Infinity) > 1_000);
    if (due.length === 0) return;
    for (const type of due) this.#mapsSent.set(`${controller} ${type}`, now);
    await this.#rabbit.send(
      controller,
      due.map((map): WorkMessage => ({ map })),
    );
  }

  async #sweep(): Promise<boolean> {
    if (!this.#leads() || !this.#rabbit.connected) return false;
    for (const { controller, out } of await sentKeys(this.#database)) {
      if (out === 0) continue;
      // A queue that is gone holds nothing, and must not keep the others from being looked at.
      const depth = await this.#rabbit.depth(controller).catch(() => 0);
      if (depth >= out) continue;
      const lost = await unsend(this.#database, controller, sweepAfter);
      if (lost > 0) this.#log('debug', 'messages lost, sending again', { controller, keys: lost });
    }
    return false;
  }
}
