import type { Queries } from './database.js';
import type { Key } from './read.js';
import { selectorSql, type Selector } from './selectors.js';

/** Keys to enqueue: named ones, or all of a type that a selector matches. */
export type EnqueueTarget = ({ type: string } & Key) | { type: string; namespace?: string; selector: Selector };

/** So many keys are made by one statement at most: they take a second or two, and a statement is ended after 60 s. */
export const page = 10_000;

/**
 * Enqueues keys for a controller at a priority, after some seconds if given. Returns how many keys that are, and whether
 * workers should be woken. Nothing is enqueued for a controller that is deleted meanwhile: its rows would stay for ever.
 */
export async function enqueueKeys(
  queries: Queries,
  controller: string,
  targets: EnqueueTarget[],
  options: { priority: number; afterSeconds?: number; reason: string },
): Promise<{ count: number; woken: boolean }> {
  let count = 0;
  let woken = false;
  const named = targets.flatMap(target => ('name' in target ? [target] : []));
  const delay = options.afterSeconds ?? null;
  const enqueued = (rows: { count: number; woken: boolean }[]) => {
    count += rows[0]?.count ?? 0;
    woken ||= rows[0]?.woken ?? false;
  };
  if (named.length > 0) {
    enqueued(
      await queries.query<{ count: number; woken: boolean }>({
        name: 'enqueue-named',
        text: `select e.count, cardinality(e.woken) > 0 as woken
          from (select from syncsets.controllers c where c.name = $1 for key share) registered
          cross join lateral syncsets.enqueue_named($1, $2, $3, $4, $5, $6, clock_timestamp() + make_interval(secs => $7)) e`,
        values: [
          controller,
          named.map(key => key.type),
          named.map(key => key.namespace),
          named.map(key => key.name),
          options.priority,
          options.reason,
          delay,
        ],
      }),
    );
  }
  for (const target of targets) {
    if ('name' in target) continue;
    const values: unknown[] = [controller, target.type, options.priority, options.reason, delay];
    const conditions = selectorSql(target.selector, 'o', values);
    if (target.namespace !== undefined) conditions.push(`o.namespace = $${values.push(target.namespace)}`);
    enqueued(
      await queries.query<{ count: number; woken: boolean }>({
        text: `with registered as materialized (select from syncsets.controllers c where c.name = $1 for key share)
          select count(*), syncsets.enqueue_objects($1, $2,
            array_agg(o.namespace order by o.namespace, o.name), array_agg(o.name order by o.namespace, o.name),
            array_agg(o.uid order by o.namespace, o.name), array_agg(o.version order by o.namespace, o.name),
            $3, $4, clock_timestamp() + make_interval(secs => $5)) as woken
          from syncsets.objects o where o.type = $2 and exists (select from registered) ${conditions.map(condition => `and ${condition}`).join(' ')}`,
        values,
      }),
    );
  }
  return { count, woken };
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
  let queued = false;
  for (const { type } of types) {
    let after: Key | null = { namespace: '', name: '' };
    while (after) {
      const [made]: { woken: boolean; last: Key | null }[] = await queries.query({
        text: `with page as materialized (
            select o.namespace, o.name, o.uid, o.version from syncsets.objects o
            where o.type = $3 and (o.namespace, o.name) > ($4, $5) order by o.namespace, o.name limit $6
          )
          select syncsets.enqueue_objects($1, $3,
              array_agg(p.namespace order by p.namespace, p.name), array_agg(p.name order by p.namespace, p.name),
              array_agg(p.uid order by p.namespace, p.name), array_agg(p.version order by p.namespace, p.name), -10, $2) as woken,
            (select jsonb_build_object('namespace', l.namespace, 'name', l.name) from page l
              order by l.namespace desc, l.name desc limit 1) as last
          from page p`,
        values: [controller, reason, type, after.namespace, after.name, page],
      });
      queued ||= made?.woken ?? false;
      after = made?.last ?? null;
    }
  }
  return queued ? [controller] : [];
}
