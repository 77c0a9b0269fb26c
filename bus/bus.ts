import { eventExchange } from '../amqp.js';
import type { Database, Log, LogEvent } from '../db/index.js';
import { Feeder } from './feeder.js';
import { Housekeeping } from './housekeeping.js';
import { Leadership } from './leadership.js';
import { Offers, type OfferListener } from './offers.js';
import { RabbitTransport } from './rabbitmq.js';
import { Relay } from './relay.js';
import { Tail } from './tail.js';
import { Traces, type TracedKey } from './traces.js';
import { Wakeups } from './wakeups.js';

/** The part of the bus that feeds queues and does what happens by time. */
const work = 'work';
/** The part of the bus that relays the events of a type. */
const relayOf = (type: string) => `relay:${type}`;

/** How long, in ms, a replica that stops keeps its parts from the others for what it has in hand. */
const handOver = 300;

/** What a process carries on its bus. */
export interface BusOptions {
  database: Database;
  types: string[];
  /** undefined: the Postgres transport alone. */
  amqpUrl: string | undefined;
  /** Largest event log of a type, in bytes. */
  eventLogMax: number;
  /** Names this process to the broker. */
  instance: string;
  log: Log;
}

/** How the broker is, as far as this process knows. */
export interface BrokerState {
  /** `blocked`: it has too little memory or disk and takes no messages. */
  state: 'ok' | 'away' | 'blocked';
  /** Messages that are none of ours, parked by workers; counted by the replica that leads the work, 0 at the others. */
  parked: number;
  /** Exchanges and queues that are not as they must be, of those that this replica looks after now. */
  problems: number;
}

/**
 * The way from a committed change to whoever waits for it, in one API process: the tails that feed HTTP watches, the relay
 * that makes work and publishes, the wake-ups between the replicas.
 */
export class Bus {
  readonly #options: BusOptions;
  readonly #wakeups: Wakeups;
  readonly #offers: Offers;
  readonly #rabbit: RabbitTransport | undefined;
  readonly #leadership: Leadership;
  readonly #relays: Relay[] = [];
  readonly #tails = new Map<string, Tail>();
  readonly #traces = new Map<string, Traces>();
  readonly #feeder: Feeder | undefined;
  readonly #housekeeping: Housekeeping;
  #stopped = false;

  constructor(options: BusOptions) {
    const { database, types, log } = options;
    this.#options = options;
    this.#wakeups = new Wakeups(database, log);
    const rabbit =
      options.amqpUrl === undefined
        ? undefined
        : new RabbitTransport({ url: options.amqpUrl, types, instance: options.instance, log });
    this.#rabbit = rabbit;
    const leads = (name: string) => () => this.#leadership.leads(name);
    this.#feeder =
      rabbit &&
      new Feeder({
        database,
        rabbit,
        wakeups: this.#wakeups,
        leads: leads(work),
        traceOf: (key, controller) => this.#traces.get(key.type)?.known(key, controller),
        log,
      });
    this.#offers = new Offers({ wakeups: this.#wakeups, feeder: this.#feeder });
    // What a replica does with a part that it gains. What it found on the broker when it led the part last is out of date.
    const parts = new Map([[work, () => rabbit?.topology.lookAnew()]]);
    for (const type of types) {
      const part = relayOf(type);
      const relay = new Relay({
        database,
        type,
        tail: this.tail(type),
        wakeups: this.#wakeups,
        offers: this.#offers,
        rabbit,
        feeder: this.#feeder,
        leads: leads(part),
        log,
      });
      this.#relays.push(relay);
      parts.set(part, () => {
        rabbit?.topology.lookAnew(eventExchange(type));
        relay.wake();
      });
      this.#traces.set(type, new Traces(this.tail(type)));
    }
    this.#leadership = new Leadership({
      database,
      wakeups: this.#wakeups,
      names: [...parts.keys()],
      onGain: part => parts.get(part)?.(),
      log,
    });
    this.#housekeeping = new Housekeeping({
      database,
      types,
      offers: this.#offers,
      leads: leads(work),
      eventLogMax: options.eventLogMax,
      log,
    });
  }

  async start(): Promise<void> {
    await this.#wakeups.start();
    this.#leadership.start();
    for (const tail of this.#tails.values()) tail.start();
    for (const relay of this.#relays) relay.start();
    this.#feeder?.start();
    this.#housekeeping.start();
  }

  async stop(): Promise<void> {
    if (this.#stopped) return;
    this.#stopped = true;
    // What waits for a broker that blocks or hangs would wait for ever: given up, and published by the next leader.
    const impatience = setTimeout(() => void this.#rabbit?.stop(), 1_000);
    const parts = [this.#housekeeping, ...(this.#feeder ? [this.#feeder] : []), ...this.#relays];
    const stopped = Promise.all(parts.map(part => part.stop()));
    // What is in hand is finished first, so that the next leader does not begin with it again; a broker that hangs, or a statement
    // that waits for a lock, is not waited for.
    await Promise.race([stopped, new Promise(resolve => setTimeout(resolve, handOver).unref())]);
    await this.#leadership.stop();
    await stopped;
    for (const traces of this.#traces.values()) traces.stop();
    await Promise.all([...this.#tails.values()].map(tail => tail.stop()));
    this.#offers.stop();
    await this.#wakeups.stop();
    clearTimeout(impatience);
    await this.#rabbit?.stop();
  }

  /** How the broker is; undefined when there is none. */
  get broker(): BrokerState | undefined {
    const rabbit = this.#rabbit;
    if (!rabbit) return undefined;
    const { blocked, connected } = rabbit;
    const state = blocked !== undefined ? 'blocked' : connected ? 'ok' : 'away';
    const leadsWork = this.#leadership.leads(work);
    // A replica looks after what it leads: what another one has mended or emptied since would stand here for ever.
    const own = this.#options.types.filter(type => this.relays(type)).map(eventExchange);
    const problems = rabbit.problems.filter(name => leadsWork || own.includes(name));
    return { state, parked: leadsWork ? rabbit.topology.parked : 0, problems: problems.length };
  }

  /** Whether this replica relays the events of a type now. */
  relays(type: string): boolean {
    return this.#leadership.leads(relayOf(type));
  }

  /** Largest event log of a type, in bytes. */
  get eventLogMax(): number {
    return this.#options.eventLogMax;
  }

  /** Says that changes of a type were committed: the events themselves, as far as the writer knows all of them. */
  wrote(type: string, events?: LogEvent[]): void {
    if (!events) {
      this.#wakeups.wake(`events:${type}`);
      return;
    }
    this.tail(type).offer(events);
    this.#wakeups.tellEvents(type, events);
  }

  /** Says that a controller was registered, changed or forgotten. */
  registered(): void {
    this.#wakeups.wake('controllers');
  }

  /** Says that a controller has new keys, which this process has queued. */
  queued(controller: string): void {
    this.#offers.queued(controller);
  }

  /**
   * Says that workers which wait here took all keys of a controller that were queued until their look began; `all`: since then none
   * was.
   */
  taken(controller: string, all: boolean): void {
    this.#offers.taken(controller, all);
  }

  /** The trace (`traceparent`) in which a key that a controller runs was changed, as far as it is remembered. */
  async traceOf(key: TracedKey, controller: string): Promise<string | undefined> {
    return this.#traces.get(key.type)?.of(key, controller);
  }

  /** Says that workers took keys of a controller, so that its queue has room for more. */
  claimed(controller: string): void {
    this.#feeder?.claimed(controller);
  }

  /**
   * Calls `listener` whenever a controller may have new keys, until the returned function is called. Those that this process has
   * queued are its workers' first; see `taken`.
   */
  onWork(controller: string, listener: OfferListener): () => void {
    return this.#offers.attend(controller, listener);
  }

  /** The tail of a type's log in this process. */
  tail(type: string): Tail {
    let tail = this.#tails.get(type);
    if (!tail) {
      tail = new Tail({ database: this.#options.database, type, wakeups: this.#wakeups, log: this.#options.log });
      this.#tails.set(type, tail);
    }
    return tail;
  }

  /** Removes what the broker holds for a controller that is forgotten; later, when it does not answer now. */
  async forget(controller: string): Promise<void> {
    if (this.#rabbit?.connected) await this.#rabbit.forget(controller);
  }
}
