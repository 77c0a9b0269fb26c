import type { Queries } from './database.js';
import type { Key } from './read.js';
import { selectorSql, type Selector } from './selectors.js';

/** Keys to enqueue: named ones, or all of a type that a selector matches. */
export type EnqueueTarget = ({ type: string } & Key) | { type: string; namespace?: string; selector: Selector };

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
