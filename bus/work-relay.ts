import {
  advanceWork,
  namedAsOwners,
  priorityOf,
  relayPosition,
  relayWork,
  type Database,
  type Log,
  type LogEvent,
  type NewKey,
  type QueueRoom,
  type RelayPosition,
} from '../db/index.js';
import type { Feeder } from './feeder.js';
import { Loop } from './loop.js';
import type { Offers } from './offers.js';
import type { Tail } from './tail.js';
import type { Wakeups } from './wakeups.js';

const batch = 500;
/** So long, in ms, or for so many events the cursor stays behind when no controller is interested in what it would pass. */
const idle = { milliseconds: 500, events: 2_000 };

export interface WorkRelayOptions {
  database: Database;
  type: string;
  tail: Tail;
  wakeups: Wakeups;
  offers: Offers;
  /** Feeds the queues of RabbitMQ; undefined: there are none. */
  feeder: Feeder | undefined;
  /** Whether this replica leads the type's relay now. */
  leads: () => boolean;
  log: Log;
}

/**
 * Makes work rows of one type's events, in Postgres alone: from the tail's memory with one statement per batch, a
 * compare-and-set on the cursor and on the registrations that the rows were computed from; where this process feeds the queues, the
 * same statement sends the keys that no worker waits for here. Behind that memory Postgres reads
 * the log itself, at 1 to 3 ms a step.
 */
export class WorkRelay {
  readonly #options: WorkRelayOptions;
  readonly #loop: Loop;
  readonly #stops: (() => void)[];
  #position: RelayPosition | undefined;
  #advancedAt = 0;

  constructor(options: WorkRelayOptions) {
    const { type, tail, wakeups, log } = options;
    this.#options = options;
    this.#loop = new Loop({ name: `work relay ${type}`, step: () => this.#step(), interval: 1_000, log });
    this.#stops = [
      tail.subscribe({
        events: () => this.wake(),
        lost: () => {
          // A database that went back to an older state has an older cursor too.
          this.#position = undefined;
          this.wake();
        },
      }),
      wakeups.on('controllers', () => {
        this.#position = undefined;
        this.wake();
      }),
    ];
  }

  start(): void {
    this.#loop.start();
  }

  async stop(): Promise<void> {
    for (const stop of this.#stops) stop();
    await this.#loop.stop();
  }

  wake(): void {
    if (this.#options.leads()) this.#loop.wake();
  }

  async #step(): Promise<boolean> {
    const { database, type, tail, leads, offers } = this.#options;
    if (!leads()) {
      this.#position = undefined;
      return false;
    }
    const position = (this.#position ??= await relayPosition(database, type));
    const recent = tail.since(position.work);
    if (!recent) return this.#fromLog();
    const events = recent.slice(0, batch);
    const last = events.at(-1);
    if (!last) return false;
    const owners = await this.#owners(events, position);
    const keys = events.flatMap(event => keysOf(event, position, owners));
    if (keys.length === 0 && position.mappers.length === 0 && !this.#isDue(recent.length)) return false;
    const { work: from, registrations } = position;
    const advance = (rooms: QueueRoom[]) =>
      advanceWork(database, type, { from, to: last.version, registrations, keys, rooms });
    const counts = new Map<string, number>();
    for (const { controller } of keys)
      if (!offers.attended(controller)) counts.set(controller, (counts.get(controller) ?? 0) + 1);
    const { made, fed } = this.#options.feeder
      ? await this.#options.feeder.feedWith(counts, advance)
      : { made: await advance([]), fed: [] };
    // Another leader or a registration was faster: look again at what holds now.
    this.#position = made && { ...position, work: last.version };
    if (made)
      this.#wake(
        [...made.woken, ...position.mappers],
        fed.filter(controller => !position.mappers.includes(controller)),
      );
    return made === undefined || recent.length > events.length;
  }

  /**
   * Those of the objects that are gone by these events which others name as their owner, by uid. Most own nothing, and would
   * make a key each for nothing. Asked after their deletion was committed: whoever names one later makes a key of its own.
   */
  async #owners(events: LogEvent[], { interested }: RelayPosition): Promise<Set<string>> {
    if (!interested.some(({ interests }) => interests.includes('owners'))) return new Set();
    const gone = events.flatMap(({ op, uid }) => (op === 'DELETED' ? [uid] : []));
    return gone.length === 0 ? new Set() : namedAsOwners(this.#options.database, gone);
  }

  async #fromLog(): Promise<boolean> {
    const { database, type } = this.#options;
    this.#position = undefined;
    const step = await relayWork(database, type, batch);
    this.#wake(step?.woken ?? []);
    return step?.events === batch;
  }

  #isDue(waiting: number): boolean {
    const now = performance.now();
    if (waiting < idle.events && now - this.#advancedAt < idle.milliseconds) return false;
    this.#advancedAt = now;
    return true;
  }

  /** @param fed those whose queues have been fed with what there was */
  #wake(controllers: string[], fed: string[] = []): void {
    for (const controller of new Set(controllers))
      this.#options.offers.queued(controller, { fed: fed.includes(controller) });
  }
}

/**
 * One key for each controller that an event interests; a controller is not woken by its own changes (`LogEvent.own`).
 *
 * @param owners uids of deleted objects that others name as their owner; what becomes of others interests nobody as `owners`
 */
function keysOf(event: LogEvent, position: RelayPosition, owners: Set<string>): NewKey[] {
  const lonely = event.op === 'DELETED' && !owners.has(event.uid);
  const changed = lonely ? event.changed.filter(part => part !== 'owners') : event.changed;
  return position.interested
    .filter(
      ({ name, interests }) =>
        changed.some(part => interests.includes(part)) && !(event.own && event.actor === `controller:${name}`),
    )
    .map(({ name }) => ({
      controller: name,
      namespace: event.namespace,
      name: event.name,
      uid: event.uid,
      version: event.version,
      priority: priorityOf(event),
      reason: event.op.toLowerCase(),
    }));
}
