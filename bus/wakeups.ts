import { randomUUID } from 'node:crypto';
import type { Database, Log } from '../db/index.js';
import { Loop } from './loop.js';

/** What a wake-up is about: new events of a type, new keys of a controller (`work:*`: of any), who is registered, or leases
 * that a replica gave back. */
export type Topic = `events:${string}` | `work:${string}` | 'controllers' | 'leases';

const channel = 'syncsets';
/** What a process says when it begins to listen; no topic. */
const greeting = 'listening';

/**
 * The Postgres transport: LISTEN/NOTIFY as wake-up only, the event log and the work table are the source. A wake-up may be
 * lost or come twice, so whoever listens also looks by itself about once a second.
 * Notifications leave outside of the writes, one statement at a time for all that gathered meanwhile; none leave while nobody
 * else listens: a notification wakes three processes, which cost a lone write half a millisecond.
 */
export class Wakeups {
  readonly #database: Database;
  readonly #log: Log;
  readonly #sender = randomUUID().slice(0, 8);
  readonly #listeners = new Map<Topic, Set<() => void>>();
  #pending = new Set<Topic | typeof greeting>();
  #sending: Promise<void> | undefined;
  readonly #company: Loop;
  #alone = false;
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
  on(topic: Topic, listener: () => void): () => void {
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
    if (!this.#alone) this.#send(topic);
  }

  #send(word: Topic | typeof greeting): void {
    if (this.#stopped) return;
    this.#pending.add(word);
    this.#sending ??= this.#sendPending().finally(() => (this.#sending = undefined));
  }

  // A newcomer greets at once; who has left is noticed here.
  async #look(): Promise<boolean> {
    this.#alone = (await this.#database.listeners(channel)) <= 1;
    return false;
  }

  async #sendPending(): Promise<void> {
    while (this.#pending.size > 0) {
      // A payload holds 8,000 bytes; a topic at most 70.
      const topics = [...this.#pending].slice(0, 100);
      for (const topic of topics) this.#pending.delete(topic);
      try {
        await this.#database.notify(channel, [this.#sender, ...topics].join(' '));
      } catch (error) {
        this.#log('debug', 'wake-up not sent', { reason: error instanceof Error ? error.message : String(error) });
      }
    }
  }

  #received(payload: string): void {
    const [sender, ...topics] = payload.split(' ');
    if (sender === this.#sender) return;
    this.#alone = false;
    for (const topic of topics) if (isTopic(topic)) this.#wakeHere(topic);
  }

  #wakeHere(topic: Topic): void {
    for (const listener of this.#listeners.get(topic) ?? []) listener();
    if (topic.startsWith('work:')) for (const listener of this.#listeners.get('work:*') ?? []) listener();
  }

  #wakeAll(): void {
    for (const listeners of this.#listeners.values()) for (const listener of listeners) listener();
  }
}

function isTopic(text: string): text is Topic {
  return text.startsWith('events:') || text.startsWith('work:') || text === 'controllers' || text === 'leases';
}
