import type { Database } from './database.js';

/** What one step of the work relay did: how many events it passed and which controllers have new keys. */
export interface RelayStep {
  events: number;
  woken: string[];
}

/** Makes work rows of the next events of a type; undefined while another process is at it. */
export async function relayWork(database: Database, type: string, limit: number): Promise<RelayStep | undefined> {
  const [row] = await database.query<RelayStep>({
    name: 'relay-work',
    text: 'select events, woken from syncsets.relay_work($1, $2)',
    values: [type, limit],
  });
  return row;
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
    text: 'update syncsets.cursors set published = $3 where type = $1 and published = $2 returning 1',
    values: [type, from, to],
  });
  return rows.length > 0;
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
      select name, $1, clock_timestamp() + make_interval(secs => $3::double precision / 1000) from unnest($2::text[]) name order by name
      on conflict (name) do update set holder = excluded.holder, expires_at = excluded.expires_at
        where l.holder = excluded.holder or l.expires_at < clock_timestamp()
      returning name`,
    values: [holder, names, milliseconds],
  });
  return rows.map(row => row.name);
}

/** Gives leases back, so that another replica takes them at once. */
export async function dropLeases(database: Database, holder: string): Promise<void> {
  await database.query({ text: 'delete from syncsets.leases where holder = $1', values: [holder] });
}
