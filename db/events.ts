import type { Database } from './database.js';
import type { Key } from './read.js';
import type { ChangedPart } from './write.js';

/** One committed change. `before` holds the changed top-level fields with their old values; JSON is kept as text. */
export interface LogEvent extends Key {
  version: number;
  previous: number;
  op: 'ADDED' | 'MODIFIED' | 'DELETED';
  uid: string;
  object: string;
  before: string | null;
  changed: ChangedPart[];
  actor: string;
  /** The writer held the claim of this very key and needs no further run for the change, as it does for the mark of a deletion. */
  own: boolean;
  traceparent: string | null;
  /** When it was committed, in ms since 1970. */
  at: number;
}

/** At which priority the keys are queued that an event leads to: a user's change goes before what controllers write. */
export function priorityOf({ actor }: Pick<LogEvent, 'actor'>): number {
  return actor === 'client' ? 10 : 0;
}

/** Whether something that came from another process is an event. */
export function isLogEvent(value: object): value is LogEvent {
  const event: Partial<Record<keyof LogEvent, unknown>> = value;
  const { version, previous, at, own, changed, before, traceparent } = event;
  return (
    [version, previous, at].every(Number.isFinite) &&
    [event.namespace, event.name, event.uid, event.object, event.actor].every(text => typeof text === 'string') &&
    [before, traceparent].every(text => text === null || typeof text === 'string') &&
    (event.op === 'ADDED' || event.op === 'MODIFIED' || event.op === 'DELETED') &&
    typeof own === 'boolean' &&
    Array.isArray(changed)
  );
}

/** Where the log of a type begins and ends: versions in (start, head] can be read. */
export interface LogRange {
  start: number;
  head: number;
}

/** Which versions of a type the event log holds. */
export async function logRange(database: Database, type: string): Promise<LogRange> {
  const [row] = await database.query<LogRange>({
    name: 'log-range',
    text: 'select log_start as start, version as head from syncsets.types where type = $1',
    values: [type],
  });
  if (!row) throw new Error(`type ${type} has no counter row`);
  return row;
}

/** What a look at the log may bring, so that memory stays bounded whatever the objects weigh. */
export interface ReadLimits {
  events: number;
  /** Of JSON, objects and former states together; one event comes whatever it weighs. */
  bytes: number;
  /**
   * A lower bound on the events' time, in ms since 1970: it lets Postgres skip the partitions of earlier hours, where it
   * otherwise looks into each.
   */
  since?: number | undefined;
}

/** The events after a version, in order, as many as the limits allow; `more`: there are others behind them. */
export async function readEvents(
  database: Database,
  type: string,
  after: number,
  { events: limit, bytes, since = 0 }: ReadLimits,
): Promise<{ events: LogEvent[]; more: boolean }> {
  const events = await database.query<LogEvent & { next: number | null }>({
    name: 'read-events',
    // The inner limit keeps the JSON from being made twice, once for its length. One window, and bytes instead of characters: 500
    // events of 1 KB cost Postgres 5 ms; a count over all of them, which keeps every row twice, and `length` made it 9.
    text: `select s.version, s.previous, s.op, s.namespace, s.name, s.uid, s.object, s.before, s.changed, s.actor, s.own,
        s.traceparent, s.at, s.next
      from (
        select b.*, row_number() over w as place, lead(b.version) over w as next,
          sum(octet_length(b.object) + coalesce(octet_length(b.before), 0)) over w as weight
        from (
          select e.version, e.previous, e.op, e.namespace, e.name, e.uid, e.object::text as object, e.before::text as before,
            e.changed, e.actor, e.own, e.traceparent, (extract(epoch from e.at) * 1000)::double precision as at
          from syncsets.events e where e.type = $1 and e.version > $2 and e.at >= to_timestamp($4::double precision / 1000)
          order by e.version limit $3
        ) b window w as (order by b.version rows unbounded preceding)
      ) s where s.place = 1 or s.weight <= $5 order by s.version`,
    values: [type, after, limit, since, bytes],
  });
  const last = events.at(-1);
  return { events, more: events.length === limit || (last !== undefined && last.next !== null) };
}
