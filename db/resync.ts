import type { Queries } from './database.js';
import type { Key } from './read.js';

/** So many keys are made by one statement: they take a second or two, and a statement is ended after 60 s. */
const page = 10_000;

/** What one step of the work relay did: how many events it passed and which controllers have new keys. */
export interface RelayStep {
  events: number;
  woken: string[];
}

/**
 * Enqueues all keys of a controller, below the priority of any change: every object of a type, or of all (`*`); of a task its
 * one key. In pages, since there may be millions of them; the caller's transaction makes them one. Returns whom to wake.
 */
export async function enqueueAll(
  queries: Queries,
  controller: string,
  type: string,
  reason: string,
): Promise<string[]> {
  if (type === '-') {
    const [row] = await queries.query<{ woken: string[] }>({
      text: `select syncsets.enqueue(array[row($1, '-', '', $1, null, null, -10, $2)::syncsets.key]) as woken`,
      values: [controller, reason],
    });
    return row?.woken ?? [];
  }
  const types =
    type === '*'
      ? await queries.query<{ type: string }>({ text: 'select type from syncsets.types order by type' })
      : [{ type }];
  const woken = new Set<string>();
  for (const { type } of types) {
    let after: Key | null = { namespace: '', name: '' };
    while (after) {
      const [made]: { woken: string[]; last: Key | null }[] = await queries.query({
        text: `with page as materialized (
            select o.type, o.namespace, o.name, o.uid, o.version from syncsets.objects o
            where o.type = $3 and (o.namespace, o.name) > ($4, $5) order by o.namespace, o.name limit $6
          )
          select syncsets.enqueue_in_order(coalesce(array_agg(
              row($1, p.type, p.namespace, p.name, p.uid, p.version, -10, $2)::syncsets.key order by p.namespace, p.name), '{}')) as woken,
            (select jsonb_build_object('namespace', l.namespace, 'name', l.name) from page l
              order by l.namespace desc, l.name desc limit 1) as last
          from page p`,
        values: [controller, reason, type, after.namespace, after.name, page],
      });
      for (const one of made?.woken ?? []) woken.add(one);
      after = made?.last ?? null;
    }
  }
  return [...woken];
}

/**
 * Makes the work of the next events of a type; of all its objects where the log no longer has what the cursor has not seen. Only
 * in a transaction is the type's cursor held until all of that is made. Undefined while another process is at it.
 */
export async function relayStretch(queries: Queries, type: string, limit: number): Promise<RelayStep | undefined> {
  const [step] = await queries.query<{ events: number | null; woken: string[] }>({
    text: 'select events, woken from syncsets.relay_work($1, $2)',
    values: [type, limit],
  });
  if (!step) return undefined;
  const { events, woken } = step;
  return events === null ? { events: 0, woken: await resync(queries, type) } : { events, woken };
}

/**
 * Makes the work of all that was committed until now, of a type or of all (`*`), whose cursors are locked. Returns whom to wake.
 */
export async function relayAll(queries: Queries, wanted: string): Promise<string[]> {
  const types = await queries.query<{ type: string }>({
    text: `select type from syncsets.cursors where $1 = '*' or type = $1 order by type`,
    values: [wanted],
  });
  const woken: string[] = [];
  for (const { type } of types) {
    let step: RelayStep | undefined;
    do {
      step = await relayStretch(queries, type, page);
      woken.push(...(step?.woken ?? []));
    } while (step?.events === page);
  }
  return woken;
}

/** Enqueues every object of a type for all whom it interests, and moves the type's cursor to its newest version. */
async function resync(queries: Queries, type: string): Promise<string[]> {
  // First: what is written from here on is among the objects as well, and its events come after the cursor.
  const [head] = await queries.query<{ version: number }>({
    text: 'select version from syncsets.types where type = $1',
    values: [type],
  });
  const controllers = await queries.query<{ name: string; reconciles: boolean; maps: boolean }>({
    text: `select name, type = any (array[$1, '*']) as reconciles, $1 = any (watches) as maps from syncsets.controllers
      where type = any (array[$1, '*']) or $1 = any (watches) order by name`,
    values: [type],
  });
  const woken: string[] = [];
  for (const { name, reconciles, maps } of controllers) {
    if (reconciles) woken.push(...(await enqueueAll(queries, name, type, 'resync')));
    if (maps) woken.push(name);
  }
  await queries.query({
    text: 'update syncsets.cursors set work = $2 where type = $1',
    values: [type, head?.version ?? 0],
  });
  return woken;
}
