import { randomUUID } from 'node:crypto';
import type { Database, Log, LogEvent } from '../db/index.js';
import { reasonOf } from '../reason.js';
import { disclose, enclose } from './enclosure.js';
import { Loop } from './loop.js';

/** What a wake-up is about: new events of a type, new keys of a controller (`work:*`: of any), who is registered, or leases
 * that a replica gave back. */
export type Topic = `events:${string}` | `work:${string}` | 'controllers' | 'leases';

const channel = 'syncsets';
/** What a process says when it begins to listen; no topic. */
const greeting = 'listening';
/** Bytes that a notification holds in Postgres; a topic has at most 70. */
const largest = 7_999;
const mostTopics = 100;

/**
 * Hears of a topic; of new events of a type it gets these, stretch by stretch, when all of them came with the notification. Who
 * listens to all keys hears whose they are, unless some wake-ups may have been missed.
 */
export type Listener = (stretches?: LogEvent[][], controller?: string) => void;

/**
 * The Postgres transport: LISTEN/NOTIFY as wake-up only, the event log and the work table are the source. A wake-up may be
 * lost or come twice, so whoever listens also looks by itself about once a second. Few and small events are enclosed, which saves
 * each other replica a look at the log: 0.25 ms of CPU there and 0.1 to 0.2 ms in the database. A release before reads the topics
 * alone: the enclosure begins after a space and a line's end. Whoever may connect to the database can send and hear notifications,
 * so it has to be the platform's own; secrets are not in them.
 * Notifications leave outside of the writes, one statement at a time for all that gathered meanwhile; none leave while nobody
 * else listens: a notification wakes three processes, which cost a lone write half a millisecond.
 */
export class Wakeups {
  readonly #database: Database;
  readonly #log: Log;
  readonly #sender = randomUUID().slice(0, 8);
  readonly #listeners = new Map<Topic, Set<Listener>>();
  #pending = new Set<Topic | typeof greeting>();
  /** All that is to be told of a topic, as far as it fits. */
  readonly #enclosed = new Map<Topic | typeof greeting, string>();
  #sending: Promise<void> | undefined;
  readonly #company: Loop;
  #alone = false;
  /** Notifications of others so far. */
  #heard = 0;
  #stopped = false;

  constructor(database: Database, log: Log) {
    this.#database = database;
    this.#log = log;
    this.#company = new Loop({ name: 'looking for other listeners', step: () => this.#look(), interval: 1_000, log });
  }

  async start(): Promise<void> {
    await this.#database.listen(
      channel,
      payload => this.#received(payload),
      () => {
        this.#wakeAll();
        this.#send(greeting);
      },
    );
    this.#send(greeting);
    this.#company.start();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#company.stop();
    await this.#sending;
  }

  /** Calls `listener` at each wake-up of a topic until the returned function is called. */
  on(topic: Topic, listener: Listener): () => void {
    const listeners = this.#listeners.get(topic) ?? new Set();
    this.#listeners.set(topic, listeners.add(listener));
    return () => {
      listeners.delete(listener);
      if (listeners.size === 0 && this.#listeners.get(topic) === listeners) this.#listeners.delete(topic);
    };
  }

  /** Wakes the listeners in this process now and those in the others soon after. */
  wake(topic: Topic): void {
    this.#wakeHere(topic);
    this.tell(topic);
  }

  /** Wakes the listeners in the other processes alone. */
  tell(topic: Topic): void {
    if (this.#isAlone) return;
    this.#enclosed.delete(topic);
    this.#send(topic);
  }

  /** Tells the listeners in the other processes of events that were committed. */
  tellEvents(type: string, events: readonly LogEvent[]): void {
    if (this.#isAlone) return;
    const topic: Topic = `events:${type}`;
    const before = this.#enclosed.get(topic);
    // Who is to look for some of them finds all of them.
    const isToLook = this.#pending.has(topic) && before === undefined;
    const text = isToLook ? undefined : enclose(type, events, largest - (before?.length ?? 0));
    if (text === undefined) this.#enclosed.delete(topic);
    else this.#enclosed.set(topic, before === undefined ? text : `${before}\n${text}`);
    this.#send(topic);
  }

  #send(word: Topic | typeof greeting): void {
    if (this.#stopped) return;
    this.#pending.add(word);
    this.#sending ??= this.#sendPending();
  }

  /** Whether nobody else listens. Not known while this process does not listen itself: a newcomer's greeting is not heard. */
  get #isAlone(): boolean {
    return this.#alone && this.#database.listening;
  }

  // A newcomer greets at once; who has left is noticed here.
  async #look(): Promise<boolean> {
    const heard = this.#heard;
    // Else the one that is counted is another's.
    const { listening } = this.#database;
    const alone = (await this.#database.listeners(channel)) <= 1 && listening;
    // Who greeted meanwhile may have come after the count.
    if (heard === this.#heard) this.#alone = alone;
    return false;
  }

  async #sendPending(): Promise<void> {
    while (this.#pending.size > 0) {
      const topics = [...this.#pending].slice(0, mostTopics);
      let payload = [this.#sender, ...topics].join(' ');
      let separator = ' \n';
      for (const topic of topics) {
        this.#pending.delete(topic);
        const text = this.#enclosed.get(topic);
        this.#enclosed.delete(topic);
        if (text === undefined) continue;
        const longer = payload + separator + text;
        if (Buffer.byteLength(longer) > largest) continue;
        payload = longer;
        separator = '\n';
      }
      try {
        await this.#database.notify(channel, payload);
      } catch (error) {
        this.#log('debug', 'wake-up not sent', { reason: reasonOf(error) });
      }
    }
    // In the same turn as the look above: a word that comes in between would lie there until the next one.
    this.#sending = undefined;
  }

  #received(payload: string): void {
    const end = payload.indexOf('\n');
    const [sender, ...topics] = (end < 0 ? payload : payload.slice(0, end)).split(' ');
    if (sender === this.#sender) return;
    this.#heard++;
    this.#alone = false;
    const enclosed = end < 0 ? undefined : disclose(payload.slice(end + 1));
    for (const topic of topics) {
      if (!isTopic(topic)) continue;
      const stretches = topic.startsWith('events:') ? enclosed?.get(topic.slice('events:'.length)) : undefined;
      this.#wakeHere(topic, stretches);
    }
  }

  #wakeHere(topic: Topic, stretches?: LogEvent[][]): void {
    for (const listener of this.#listeners.get(topic) ?? []) listener(stretches);
    if (!topic.startsWith('work:')) return;
    const controller = topic.slice('work:'.length);
    for (const listener of this.#listeners.get('work:*') ?? []) listener(undefined, controller);
  }

  #wakeAll(): void {
    for (const listeners of this.#listeners.values()) for (const listener of listeners) listener();
  }
}

function isTopic(text: string): text is Topic {
  return text.startsWith('events:') || text.startsWith('work:') || text === 'controllers' || text === 'leases';
}
