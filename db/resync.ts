import type { Queries } from './database.js';
import { enqueueAll, page } from './enqueue.js';

/** What one step of the work relay did: how many events it passed and which controllers have new keys. */
export interface RelayStep {
  events: number;
  woken: string[];
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
