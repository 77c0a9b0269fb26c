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
  /** The writer held the claim of this very key. */
  own: boolean;
  traceparent: string | null;
  /** When it was committed, in ms since 1970. */
  at: number;
}

/** Where the log of a type begins and ends: versions in (start, head] can be read. */
export interface LogRange {
  start: number;
  head: number;
}

export async function logRange(database: Database, type: string): Promise<LogRange> {
  const [row] = await database.query<LogRange>({
    name: 'log-range',
    text: 'select log_start as start, version as head from syncsets.types where type = $1',
    values: [type],
  });
  if (!row) throw new Error(`type ${type} has no counter row`);
  return row;
}

/**
 * The events after a version, in order, at most `limit`. `since` (ms) is a lower bound on their time: it lets Postgres skip
 * the partitions of earlier hours, where it otherwise looks into each.
 */
export async function readEvents(
  database: Database,
  type: string,
  after: number,
  limit: number,
  since?: number,
): Promise<LogEvent[]> {
  return database.query<LogEvent>({
    name: 'read-events',
    text: `select e.version, e.previous, e.op, e.namespace, e.name, e.uid, e.object::text as object, e.before::text as before,
        e.changed, e.actor, e.own, e.traceparent, (extract(epoch from e.at) * 1000)::double precision as at
      from syncsets.events e where e.type = $1 and e.version > $2 and e.at >= to_timestamp($4::double precision / 1000)
      order by e.version limit $3`,
    values: [type, after, limit, since ?? 0],
  });
}
