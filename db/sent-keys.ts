import { unsynced, type Database, type Queries } from './database.js';
import type { Key } from './read.js';

/** A queued key that was marked as sent. */
export interface SentKey extends Key {
  controller: string;
  type: string;
  uid: string | null;
  version: number | null;
  /** When, by the database's clock: tells this mark from a later one. */
  sentAt: string;
}

/** How many keys of a controller may be sent to its queue. */
export interface QueueRoom {
  controller: string;
  keys: number;
}

/**
 * Marks queued keys as sent to the queues of their controllers, as many as there is room for, and returns them, the most urgent of
 * each controller first. The mark does not wait for the disk: a crash that undoes it has the key sent twice.
 */
export async function takeUnsent(database: Queries, rooms: QueueRoom[]): Promise<SentKey[]> {
  return database.query<SentKey>({
    name: 'take-unsent',
    text: `select s.controller, s.type, s.namespace, s.name, s.uid, s.version, s.sent_at::text as "sentAt"
      from syncsets.take_unsent($1, $2) s where ${unsynced}`,
    values: [rooms.map(({ controller }) => controller), rooms.map(({ keys }) => keys)],
  });
}

/** What a controller has out on its RabbitMQ queue, and what waits to be sent there. */
export interface SentKeys {
  controller: string;
  /** Queued keys whose message is out, counted up to 50,000. */
  out: number;
  /** The highest priority among those that are not; null when there are none. */
  waiting: number | null;
  /** Whether it watches other types. */
  watches: boolean;
  /** Watched types with events that nobody maps at present. */
  maps: string[];
}

/** Of all controllers, or of those of some names that there are. */
export async function sentKeys(database: Database, only?: string[]): Promise<SentKeys[]> {
  return database.query<SentKeys>({
    name: 'sent-keys',
    text: `select c.name as controller,
        (select count(*) from (select from syncsets.work w where w.controller = c.name and w.state = 'queued'
          and w.sent_at is not null limit 50000) o)::integer as out,
        (select w.priority from syncsets.work w where w.controller = c.name and w.state = 'queued' and w.sent_at is null
          order by w.priority desc, w.rank limit 1) as waiting,
        cardinality(c.watches) > 0 as watches,
        array(select m.type from syncsets.maps m join syncsets.types t on t.type = m.type
          where m.controller = c.name and m.version < t.version and m.nonce is null and m.not_before <= clock_timestamp()) as maps
      from syncsets.controllers c where $1::text[] is null or c.name = any ($1)`,
    values: [only ?? null],
  });
}

/** Forgets that keys were sent more than `seconds` ago: their messages are lost and will be sent again. */
export async function unsend(database: Database, controller: string, seconds: number): Promise<number> {
  const rows = await database.query({
    // What others have locked is about to change anyway; waiting for it in any order but the keys' would deadlock.
    text: `with lost as materialized (
        select w.ctid as row from syncsets.work w where w.controller = $1 and w.state = 'queued'
          and w.sent_at < clock_timestamp() - make_interval(secs => $2) for update skip locked
      )
      update syncsets.work w set sent_at = null where w.ctid = any (array(select l.row from lost l)) returning 1`,
    values: [controller, seconds],
  });
  return rows.length;
}

/**
 * Forgets that these keys were sent: the broker has not taken their messages. One that was sent again meanwhile, after it had been
 * claimed in another way, stays so.
 */
export async function unsendKeys(
  database: Database,
  controller: string,
  keys: Pick<SentKey, 'type' | 'namespace' | 'name' | 'sentAt'>[],
): Promise<void> {
  await database.query({
    text: `with lost as materialized (
        select w.type, w.namespace, w.name from unnest($2::text[], $3::text[], $4::text[], $5::timestamptz[]) as k(type, namespace, name, sent_at)
        join syncsets.work w on w.controller = $1 and w.type = k.type and w.namespace = k.namespace and w.name = k.name
        where w.state = 'queued' and w.sent_at = k.sent_at for update of w skip locked
      )
      update syncsets.work w set sent_at = null from lost l
      where w.controller = $1 and w.type = l.type and w.namespace = l.namespace and w.name = l.name`,
    values: [
      controller,
      keys.map(key => key.type),
      keys.map(key => key.namespace),
      keys.map(key => key.name),
      keys.map(key => key.sentAt),
    ],
  });
}
