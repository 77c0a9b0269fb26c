import type { Database } from './database.js';
import type { Key } from './objects.js';
import { selectorSql, type Selector } from './selectors.js';

/** One page of a list, all of it the state at `version`. */
export interface Page {
  version: number;
  objects: { namespace: string; name: string; version: number; object: string }[];
  /** Whether more objects follow. */
  more: boolean;
}

export interface ListRequest {
  namespace?: string;
  selector: Selector;
  limit: number;
  /** Continue after this key, in the state of this version. */
  after?: Key;
  at?: number;
}

/** The version asked for is older than the event log reaches back. */
export class VersionGone extends Error {
  constructor(readonly version: number) {
    super(`version ${version} is no longer in the event log`);
  }
}

/**
 * One page of objects in the order (namespace, name). Without `at` it shows the newest state; with `at` the state at that
 * version: rows not changed since, and for changed keys what they were before their first later event.
 * Throws VersionGone when the log does not reach back to `at`.
 */
export async function readPage(database: Database, type: string, request: ListRequest): Promise<Page> {
  const values: unknown[] = [type];
  const bind = (value: unknown) => `$${values.push(value)}`;
  const conditions = selectorSql(request.selector, 'o', values);
  if (request.namespace !== undefined) conditions.push(`o.namespace = ${bind(request.namespace)}`);
  if (request.after)
    conditions.push(`(o.namespace, o.name) > (${bind(request.after.namespace)}, ${bind(request.after.name)})`);
  const where = conditions.map(condition => `and ${condition}`).join(' ');
  const limit = bind(request.limit + 1);
  const current = `select o.namespace, o.name, o.version, o.object::text as object from syncsets.objects o
    where o.type = $1 ${request.at === undefined ? '' : `and o.version <= ${bind(request.at)}`} ${where}
    order by o.namespace, o.name limit ${limit}`;
  const page =
    request.at === undefined
      ? current
      : `with former as (
          select distinct on (e.namespace, e.name) e.namespace, e.name, e.op, e.uid, e.object, e.before
          from syncsets.events e where e.type = $1 and e.version > ${bind(request.at)}
          order by e.namespace, e.name, e.version
        ), restored as (
          select f.namespace, f.name, f.uid,
            (f.object || f.before) - array(select b.key from jsonb_each(f.before) b where b.value = 'null'::jsonb) as object
          from former f where f.op <> 'ADDED'
        )
        (${current}) union all (
          select o.namespace, o.name, (o.object->>'resourceVersion')::bigint, o.object::text
          from (select r.*, coalesce(r.object->'labels', '{}') as labels from restored r) o
          where true ${where} order by o.namespace, o.name limit ${limit})
        order by namespace, name limit ${limit}`;
  const rows = await database.query<{
    head: number;
    log_start: number;
    namespace: string | null;
    name: string | null;
    version: number | null;
    object: string | null;
  }>({
    text: `select t.version as head, t.log_start, p.namespace, p.name, p.version, p.object
      from syncsets.types t left join lateral (${page}) p on true where t.type = $1 order by p.namespace, p.name`,
    values,
  });
  const first = rows[0];
  if (!first) throw new Error(`type ${type} has no counter row`);
  if (request.at !== undefined && request.at < first.log_start) throw new VersionGone(request.at);
  const objects = rows.flatMap(({ namespace, name, version, object }) =>
    namespace === null || name === null || version === null || object === null
      ? []
      : [{ namespace, name, version, object }],
  );
  return {
    version: request.at ?? first.head,
    objects: objects.slice(0, request.limit),
    more: objects.length > request.limit,
  };
}
