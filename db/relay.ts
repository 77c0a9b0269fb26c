import { unsynced, type Database } from './database.js';
import { insistOn } from './races.js';
import { relayStretch, type RelayStep } from './resync.js';
import type { QueueRoom, SentKey } from './sent-keys.js';

/** Where the work cursor of a type is and whom its events concern; valid as long as `registrations` stays the same. */
export interface RelayPosition {
  work: number;
  registrations: number;
  /** Controllers that reconcile the type, and which parts of a change make a key for them. */
  interested: { name: string; interests: string[] }[];
  /** Controllers that map the type's events to keys of their own. */
  mappers: string[];
}

/** A key that an event made. */
export interface NewKey {
  controller: string;
  namespace: string;
  name: string;
  uid: string;
  version: number;
  priority: number;
  reason: string;
}

export async function relayPosition(database: Database, type: string): Promise<RelayPosition> {
  const [row] = await database.query<RelayPosition>({
    name: 'relay-position',
    text: `select c.work, c.registrations,
        coalesce((select jsonb_agg(jsonb_build_object('name', k.name, 'interests', k.interests)) from syncsets.controllers k
          where k.type = c.type or k.type = '*'), '[]') as interested,
        array(select k.name from syncsets.controllers k where c.type = any (k.watches)) as mappers
      from syncsets.cursors c where c.type = $1`,
    values: [type],
  });
  if (!row) throw new Error(`type ${type} has no cursor row`);
  return row;
}

/** What a step of the work cursor made. */
export interface AdvancedWork {
  /** Controllers that have new keys. */
  woken: string[];
  /** Keys that were marked as sent to the queues of their controllers, of those that there was room for. */
  sent: SentKey[];
}

/**
 * Moves the work cursor of a type and enqueues the keys that its events made, in one transaction, in which queued keys are marked
 * as sent too (`takeUnsent`). Undefined when the cursor or the registrations are no longer those that the keys were computed from.
 */
export async function advanceWork(
  database: Database,
  type: string,
  step: { from: number; to: number; registrations: number; keys: NewKey[]; rooms: QueueRoom[] },
): Promise<AdvancedWork | undefined> {
  const { from, to, registrations, keys, rooms } = step;
  const values = [type, from, to, registrations, JSON.stringify(keys)];
  if (rooms.length === 0) {
    const [row] = await database.query<{ woken: string[] | null }>({
      name: 'advance-work',
      text: `select syncsets.advance_work($1, $2, $3, $4, $5) as woken where ${unsynced}`,
      values,
    });
    return row?.woken ? { woken: row.woken, sent: [] } : undefined;
  }
  const [row] = await database.query<{ woken: string[] | null; sent: SentKey[] }>({
    name: 'advance-and-send',
    // Sent after what is made: the second function takes what the first gives.
    text: `select a.woken, coalesce((
        select jsonb_agg(jsonb_build_object('controller', s.controller, 'type', s.type, 'namespace', s.namespace, 'name', s.name,
          'uid', s.uid, 'version', s.version, 'sentAt', s.sent_at::text))
        from syncsets.take_unsent(case when a.woken is not null then $6::text[] end, $7::integer[]) s
      ), '[]') as sent
      from (select syncsets.advance_work($1, $2, $3, $4, $5) as woken) a where ${unsynced}`,
    values: [...values, rooms.map(({ controller }) => controller), rooms.map(room => room.keys)],
  });
  return row?.woken ? { woken: row.woken, sent: row.sent } : undefined;
}

/** Makes work rows of the next events of a type; undefined while another process is at it. */
export async function relayWork(database: Database, type: string, limit: number): Promise<RelayStep | undefined> {
  const [row] = await database.query<{ events: number | null; woken: string[] }>({
    name: 'relay-work',
    text: `select events, woken from syncsets.relay_work($1, $2) where ${unsynced}`,
    values: [type, limit],
  });
  if (!row) return undefined;
  const { events, woken } = row;
  // The log has been cut: all objects take several statements.
  return events === null ? insistOn(database, queries => relayStretch(queries, type, limit)) : { events, woken };
}

/** The version up to which the events of a type have been published. */
export async function publishedUpTo(database: Database, type: string): Promise<number> {
  const [row] = await database.query<{ published: number }>({
    name: 'published',
    text: 'select published from syncsets.cursors where type = $1',
    values: [type],
  });
  return row?.published ?? 0;
}

/** Moves the publishing cursor; false when another process has moved it meanwhile, so that it never goes back. */
export async function advancePublished(database: Database, type: string, from: number, to: number): Promise<boolean> {
  const rows = await database.query({
    name: 'advance-published',
    text: `update syncsets.cursors set published = $3 where type = $1 and published = $2 and ${unsynced} returning 1`,
    values: [type, from, to],
  });
  return rows.length > 0;
}

/** Who holds what, and for how many more ms; 0 or less: it has run out. */
export interface Lease {
  name: string;
  holder: string;
  left: number;
}

/** Renews the lease by which a replica says that it is there, and returns all other leases. */
export async function attend(database: Database, holder: string, name: string, milliseconds: number): Promise<Lease[]> {
  return database.query<Lease>({
    name: 'attend',
    // Those of replicas that went away without a word are removed after a while; one of them by one only.
    text: `with present as (
        insert into syncsets.leases (name, holder, expires_at)
        values ($2, $1, clock_timestamp() + make_interval(secs => $3::double precision / 1000))
        on conflict (name) do update set expires_at = excluded.expires_at
      ), gone as (
        delete from syncsets.leases l using (
          select name from syncsets.leases where name like 'replica:%' and expires_at < clock_timestamp() - interval '1 minute'
          order by name for update skip locked
        ) old where l.name = old.name
      )
      select name, holder, (extract(epoch from expires_at - clock_timestamp()) * 1000)::double precision as left
      from syncsets.leases where name <> $2 and ${unsynced}`,
    values: [holder, name, milliseconds],
  });
}

/** Takes or renews leases by name for some milliseconds; returns those that the holder now has. */
export async function takeLeases(
  database: Database,
  holder: string,
  names: string[],
  milliseconds: number,
): Promise<string[]> {
  const rows = await database.query<{ name: string }>({
    name: 'take-leases',
    text: `insert into syncsets.leases as l (name, holder, expires_at)
      select name, $1, clock_timestamp() + make_interval(secs => $3::double precision / 1000)
      from unnest($2::text[]) name where ${unsynced} order by name
      on conflict (name) do update set holder = excluded.holder, expires_at = excluded.expires_at
        where l.holder = excluded.holder or l.expires_at < clock_timestamp()
      returning name`,
    values: [holder, names, milliseconds],
  });
  return rows.map(row => row.name);
}

/** Gives leases back, all or some, so that another replica takes them at once. */
export async function dropLeases(database: Database, holder: string, names?: string[]): Promise<void> {
  await database.query({
    // In the order in which others take them: two of these statements never wait for each other.
    text: `delete from syncsets.leases l using (
        select name from syncsets.leases where holder = $1 and ($2::text[] is null or name = any ($2)) order by name for update
      ) mine where l.name = mine.name`,
    values: [holder, names ?? null],
  });
}
