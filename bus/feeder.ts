import {
  forgottenControllers,
  queueRemoved,
  sentKeys,
  takeUnsent,
  unsend,
  unsendKeys,
  type AdvancedWork,
  type Database,
  type Key,
  type Log,
  type QueueRoom,
  type SentKey,
} from '../db/index.js';
import { reasonOf } from '../reason.js';
import { Feed } from './feed.js';
import { Loop } from './loop.js';
import type { WorkMessage } from './messages.js';
import type { RabbitTransport } from './rabbitmq.js';
import type { Wakeups } from './wakeups.js';

/** Milliseconds between looks at all controllers: for wake-ups that were missed, and for what other replicas handed out. */
const lookEvery = 100;
/** A key whose message has been out this long, in seconds, on a queue that holds fewer than are out, is sent again. */
const sweepAfter = 10;
/** So many messages more than twice those that are out lie on a queue because their keys were claimed without them. */
const mostStale = 1_000;

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

/**
 * The table feeds the queues: per controller at most max(64, 2 x keys taken in the last second) messages are out, chosen by
 * priority and fairness. A message is a hint that there is work: who takes it claims what is most urgent by then, so a full
 * window delays nothing. A controller whose queue is in trouble does not hold up the others.
 *
 * A key that is queued costs one statement, which marks it, and its message; the broker's confirmations, each of which waits for
 * its disk, are not waited for. What is refused, or lost with the connection, is unmarked and sent again. Messages out are
 * counted ten times a second, and where the window seems full, unless nobody reads the queue. Of keys that are claimed over HTTP
 * alone the messages stay: a queue that nobody reads is emptied before it grows for ever.
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
  /** Controllers that may have new keys. */
  readonly #woken = new Set<string>();
  #lookedAt = -Infinity;
  /** What is on its way to the broker; none of these rejects. */
  readonly #unconfirmed = new Set<Promise<void>>();
  /** Statements that make keys and may send some of them. */
  readonly #making = new Set<Promise<unknown>>();
  #stopped = false;
  /** What the broker did not take and the table still calls sent. */
  readonly #refused: { controller: string; keys: SentKey[] }[] = [];
  readonly #stopListening: (() => void)[];

  constructor(options: FeederOptions) {
    this.#database = options.database;
    this.#rabbit = options.rabbit;
    this.#leads = options.leads;
    this.#traceOf = options.traceOf;
    this.#log = options.log;
    this.#loop = new Loop({ name: 'feeding queues', step: () => this.#feed(), interval: lookEvery, log: options.log });
    this.#stopListening = [
      options.wakeups.on('work:*', (_, controller) => this.#wake(controller)),
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

  /** Waits for what is on its way to the broker. */
  async stop(): Promise<void> {
    for (const stop of this.#stopListening) stop();
    this.#stopped = true;
    await Promise.all([this.#loop.stop(), this.#sweeper.stop(), Promise.allSettled(this.#making)]);
    await Promise.all(this.#unconfirmed);
    await this.#unsendRefused().catch((error: unknown) =>
      this.#log('warn', 'messages were not taken and are sent again by the next sweep', { reason: reasonOf(error) }),
    );
  }

  /** A controller has new keys. */
  queued(controller: string): void {
    this.#wake(controller);
  }

  /** Keys of a controller were taken: there may be room for more. */
  claimed(controller: string): void {
    const feed = this.#feeds.get(controller);
    if (!feed?.limited) return;
    feed.stalled = false;
    this.#wake(controller);
  }

  /** @param controller undefined: look at all */
  #wake(controller: string | undefined): void {
    if (!this.#leads()) return;
    if (controller === undefined) this.#lookedAt = -Infinity;
    else this.#woken.add(controller);
    this.#loop.wake();
  }

  /**
   * Lets a statement that makes keys mark as sent what there is room for, and sends that: one statement less for each handful of
   * keys.
   *
   * @param counts how many it makes for each controller
   * @param make carries it out
   * @returns what it gave, and the controllers that had no more to send then
   */
  async feedWith(
    counts: ReadonlyMap<string, number>,
    make: (rooms: QueueRoom[]) => Promise<AdvancedWork | undefined>,
  ): Promise<{ made: AdvancedWork | undefined; fed: string[] }> {
    const reserved = this.#reserve(counts);
    const making = make(reserved).finally(() => {
      for (const { feed, keys } of reserved) feed.reserve(-keys);
    });
    this.#making.add(making);
    try {
      const made = await making;
      if (!made) return { made, fed: [] };
      for (const { controller, feed, keys: room } of reserved) {
        const sent = made.sent.filter(key => key.controller === controller);
        // Or others found no room while this was under way.
        feed.limited ||= sent.length === room;
        this.#sendKeys(controller, feed, sent);
      }
      return { made, fed: reserved.filter(({ feed }) => !feed.limited).map(({ controller }) => controller) };
    } finally {
      this.#making.delete(making);
    }
  }

  /**
   * The room of those of these controllers whose queues are fed here and well. No more than a statement can fill, which may wait for
   * a lock for long; one more than it makes, to learn whether other keys wait.
   */
  #reserve(counts: ReadonlyMap<string, number>): (QueueRoom & { feed: Feed })[] {
    if (this.#stopped || !this.#leads() || !this.#rabbit.connected) return [];
    return [...counts].flatMap(([controller, count]) => {
      const feed = this.#feeds.get(controller);
      if (!feed || feed.waits() || !this.#rabbit.isPrepared(controller)) return [];
      const keys = Math.min(feed.room(false), count + 1);
      if (keys === 0) return [];
      feed.reserve(keys);
      return [{ controller, keys, feed }];
    });
  }

  async #feed(): Promise<boolean> {
    const woken = [...this.#woken];
    this.#woken.clear();
    await this.#unsendRefused();
    if (!this.#leads()) this.#feeds.clear();
    if (!this.#leads() || !this.#rabbit.connected) return false;
    const unclear: string[] = [];
    for (const controller of woken) {
      const feed = this.#feeds.get(controller);
      const prepared = this.#rabbit.isPrepared(controller);
      const filled = feed && prepared && (await this.#fill(controller, feed, false));
      // A full queue that nobody reads: it had 440 counts a second where its type was written 500 times.
      if (feed?.stalled && prepared && !filled && !feed.watches) feed.limited = true;
      else if (!filled || feed.watches) unclear.push(controller);
    }
    if (performance.now() - this.#lookedAt >= lookEvery) await this.#look();
    else if (unclear.length > 0) await this.#look(unclear);
    return this.#woken.size > 0;
  }

  /** Counts what is out and sends what there is room for. */
  async #look(only?: string[]): Promise<void> {
    if (!only) this.#lookedAt = performance.now();
    for (const feed of this.#feeds.values()) feed.counting();
    const all = await sentKeys(this.#database, only);
    for (const { controller, out, waiting, watches, maps } of all) {
      const feed = this.#feeds.get(controller) ?? new Feed();
      this.#feeds.set(controller, feed);
      feed.counted(out, !only);
      feed.watches = watches;
      if (maps.length > 0) this.#announce(controller, feed, maps);
      if (waiting === null) feed.limited = false;
      else if (!(await this.#fill(controller, feed, waiting > 0))) feed.limited = true;
    }
    if (only) return;
    const names = new Set(all.map(({ controller }) => controller));
    for (const name of this.#feeds.keys()) if (!names.has(name)) this.#feeds.delete(name);
  }

  /** Sends what there is room for; false when there is none, as far as known. */
  async #fill(controller: string, feed: Feed, urgent: boolean): Promise<boolean> {
    if (feed.waits()) {
      feed.limited = true;
      return true;
    }
    const room = feed.room(urgent);
    if (room === 0) return false;
    try {
      // Before keys are marked as sent: a queue that cannot be had costs no writes.
      await this.#rabbit.prepare(controller);
      const keys = await takeUnsent(this.#database, [{ controller, keys: room }]);
      // Where they fill it, more may wait.
      feed.limited = keys.length === room;
      this.#sendKeys(controller, feed, keys);
      // There may be more than one batch holds.
      if (feed.limited && feed.room(urgent) > 0) this.#woken.add(controller);
    } catch (error) {
      if (this.#isAway()) throw error;
      this.#troubled(controller, feed, error);
    }
    return true;
  }

  #sendKeys(controller: string, feed: Feed, keys: SentKey[]): void {
    if (keys.length === 0) return;
    feed.sent(keys.length);
    const messages = keys.map(key => ({ ...key, traceparent: this.#traceOf(key, controller) }));
    this.#send(controller, feed, messages, {
      confirmed: sentAt => feed.confirmed(keys.length, sentAt),
      refused: () => {
        feed.refused(keys.length);
        this.#refused.push({ controller, keys });
      },
    });
  }

  #announce(controller: string, feed: Feed, types: string[]): void {
    const due = feed.announce(types);
    if (due.length === 0) return;
    this.#send(
      controller,
      feed,
      due.map(map => ({ map })),
      { confirmed: () => feed.announced(due, false), refused: () => feed.announced(due, true) },
    );
  }

  #send(
    controller: string,
    feed: Feed,
    messages: WorkMessage[],
    { confirmed, refused }: { confirmed: (sentAt: number) => void; refused: () => void },
  ): void {
    const sentAt = performance.now();
    const settled = this.#rabbit.send(controller, messages).then(
      () => settle(() => confirmed(sentAt)),
      (error: unknown) =>
        settle(() => {
          refused();
          // Of a broker that is away the transport tells, once.
          if (!this.#isAway()) this.#troubled(controller, feed, error);
          this.#loop.wake();
        }),
    );
    const settle = (act: () => void) => {
      this.#unconfirmed.delete(settled);
      const waited = feed.waits();
      act();
      if (waited && feed.limited && !feed.waits()) this.#wake(controller);
    };
    this.#unconfirmed.add(settled);
  }

  /** Also where another replica feeds the queues by now, and while the broker is away: nobody else knows of these. */
  async #unsendRefused(): Promise<void> {
    for (let batch = this.#refused[0]; batch; batch = this.#refused[0]) {
      await unsendKeys(this.#database, batch.controller, batch.keys);
      this.#refused.shift();
    }
  }

  // A call, because TypeScript takes what it has looked at for settled.
  #isAway(): boolean {
    return !this.#rabbit.connected;
  }

  /** One line for each cause. */
  #troubled(controller: string, feed: Feed, error: unknown): void {
    const reason = reasonOf(error);
    if (feed.troubled(reason))
      this.#log('warn', 'a queue cannot be fed; its workers claim over HTTP meanwhile', { controller, reason });
  }

  async #sweep(): Promise<boolean> {
    if (!this.#leads() || !this.#rabbit.connected) return false;
    await this.#rabbit.topology.inspect();
    const failures: unknown[] = [];
    for (const { controller, out } of await sentKeys(this.#database)) {
      const depth = await this.#rabbit.depth(controller).catch((error: unknown) => {
        // Told of by the transport; the queues of the others are looked at all the same.
        if (this.#isAway()) throw error;
      });
      if (depth === undefined) continue;
      await this.#resend(controller, out, depth).catch((error: unknown) => failures.push(error));
    }
    await this.#removeForgotten();
    if (failures.length > 0) throw failures[0];
    return false;
  }

  /** Unmarks the keys whose messages are lost, or thrown away here because most of what lies on the queue is stale. */
  async #resend(controller: string, out: number, depth: number): Promise<void> {
    const isStale = depth > 2 * out + mostStale;
    if (isStale) {
      // First, so that nothing that is sent again goes with it.
      await this.#rabbit.purge(controller);
      this.#log('debug', 'threw away messages of keys that were claimed without them', { controller, messages: depth });
    } else if (depth >= out) return;
    // Also where none was out: what was sent since then went with the others.
    const lost = await unsend(this.#database, controller, isStale ? 0 : sweepAfter);
    if (lost > 0) this.#log('debug', 'messages lost, sending again', { controller, keys: lost });
  }

  /** Removes the queues of deleted controllers, for a while: a worker that has not noticed yet may declare its queue again. */
  async #removeForgotten(): Promise<void> {
    for (const { controller, settled } of await forgottenControllers(this.#database)) {
      await this.#rabbit.forget(controller);
      if (settled) await queueRemoved(this.#database, controller);
    }
  }
}
