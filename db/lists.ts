import type { Queries } from './database.js';
import { indexedValue, type IndexedField } from './field-index.js';
import type { Key } from './read.js';
import { projectionSql } from './projection.js';
import { selectorParts, type Selector } from './selectors.js';

/** By an indexed field, then by key; both the other way round with `descending`. */
export interface Order {
  index: IndexedField;
  descending: boolean;
}

/** The place of an object in a list; `value` is what an ordered list has in its index, as text. */
export interface Place extends Key {
  value?: string;
}

/** Which objects of a type to read, and in which order. */
export interface ListRequest {
  namespace?: string;
  selector: Selector;
  limit: number;
  /** Default: by namespace and name. */
  order?: Order;
  /** Continue after this place. */
  after?: Place;
  /** In the state of this version; left out: of now. */
  at?: number;
  /** The paths to keep of each object; left out: all. */
  fields?: string[][];
  /** Whether to count what matches, where that is cheap. Only without `after` and `at`. */
  count?: boolean;
}

/** One page of a list, all of it the state at `version`. */
export interface Page {
  version: number;
  objects: (Place & { version: number; object: string })[];
  /** Whether more objects follow. Fewer than `limit` may come before them when objects are large. */
  more: boolean;
  /** How many objects match; undefined when it was not asked for or is not cheap to know. */
  count?: number;
}

/** The version asked for is not in the event log: older than its beginning, or newer than its end. */
export class VersionGone extends Error {
  constructor(readonly version: number) {
    super(`version ${version} is not in the event log`);
  }
}

/** A page ends when its objects have this many bytes of JSON together, so that large ones do not fill the memory. */
const pageBytes = 4_000_000;
/** Objects without any selector are counted up to here: 10,000 entries of the primary key are read in 2 ms. */
const countedAtMost = 10_000;

/**
 * How the objects that match are found. `walk` goes along the order and looks at each object, `budget` of them at most, and
 * `find` takes all that match from the index and sorts them. Neither is good for every selector: of a million objects, a label
 * that a third of them have fills a page of 500 within 1,500 steps, where the index gives 333,333 rows to sort (160 ms); of a
 * label that 100 have, a walk reads them all (1.2 s) and the index a hundred (2 ms). The planner cannot tell: its statistics of jsonb
 * are 100 samples, and it takes matches for evenly spread.
 */
type Plan = { how: 'walk'; budget: number } | { how: 'find' };

/** So many steps tell apart what fills a page by walking and what does not, and cost what is rare 0.5 ms. */
const firstWalk = 200;

interface Row {
  head: number;
  log_start: number;
  total: number | null;
  objects: number | null;
  namespace: string | null;
  name: string | null;
  value: string | null;
  version: number | null;
  object: string | null;
  /** Of rows that were walked to. */
  step: number | null;
  hit: boolean | null;
}

/**
 * One page of objects in order. Without `at` it shows the newest state; with `at` the state at that version: rows not changed
 * since, and for changed keys what they were before their first later event.
 * Throws VersionGone when the log does not hold what followed `at`.
 */
export async function readPage(database: Queries, type: string, request: ListRequest): Promise<Page> {
  const { limit } = request;
  // A selector without an index leaves no choice, and one without conditions stops at its page's end anyway.
  const isFree = !selectorParts(request.selector, 'o', []).indexed;
  let plan: Plan = { how: 'walk', budget: isFree ? Infinity : firstWalk };
  for (;;) {
    const budget: number = plan.how === 'walk' ? plan.budget : Infinity;
    const rows: Row[] = await database.query<Row>(pageSql(type, request, plan));
    const [first] = rows;
    if (!first) throw new Error(`type ${type} has no counter row`);
    if (request.at !== undefined && (request.at < first.log_start || request.at > first.head)) {
      throw new VersionGone(request.at);
    }
    const hits = rows.filter(row => row.hit && row.step !== null).length;
    if (budget === Infinity || hits > limit || !rows.some(row => row.step === budget)) {
      return pageOf(rows, first, request);
    }
    // Matches are `share` of what was walked over. To walk on costs limit / share steps, to find share * all rows, about.
    const share: number = hits / budget;
    const all = Math.max(first.objects ?? 0, 10_000);
    const isDense: boolean = share > 0 && limit / share < share * all;
    plan =
      isDense && budget < limit / share ? { how: 'walk', budget: Math.ceil((3 * limit) / share) } : { how: 'find' };
  }
}

function pageOf(rows: Row[], { head, total }: Row, { at, limit }: ListRequest): Page {
  const found = rows.flatMap(({ namespace, name, value, version, object, hit }) =>
    hit && namespace !== null && name !== null && version !== null
      ? [{ namespace, name, version, object, ...(value === null ? {} : { value }) }]
      : [],
  );
  const objects: Page['objects'] = [];
  for (const { object, ...rest } of found.slice(0, limit)) {
    // From here on it was too much for one page.
    if (object === null) break;
    objects.push({ ...rest, object });
  }
  return {
    version: at ?? head,
    objects,
    more: found.length > objects.length,
    ...(total !== null ? { count: total } : {}),
  };
}

function pageSql(type: string, request: ListRequest, plan: Plan): { text: string; values: unknown[] } {
  const { namespace, selector, limit, order, after, at, fields, count } = request;
  const values: unknown[] = [type];
  const bind = (value: unknown) => `$${values.push(value)}`;
  const value = (alias: string) => (order ? indexedValue(order.index, `${alias}.object`) : 'null::text');
  const direction = order?.descending ? ' desc' : '';
  const ordered = (alias: string, valueOf = `${alias}.value`) =>
    `${order ? `${valueOf}${direction}, ` : ''}${alias}.namespace${direction}, ${alias}.name${direction}`;

  const { key, rest } = selectorParts(selector, 'o', values);
  if (namespace !== undefined) key.push(`o.namespace = ${bind(namespace)}`);
  if (after) {
    const place = [
      ...(order ? [`${bind(after.value ?? '')}::${order.index.kind === 'number' ? 'numeric' : 'text'}`] : []),
      bind(after.namespace),
      bind(after.name),
    ];
    key.push(
      `(${order ? `${value('o')}, ` : ''}o.namespace, o.name) ${order?.descending ? '<' : '>'} (${place.join(', ')})`,
    );
  }
  const all = (conditions: string[]) => conditions.map(condition => ` and ${condition}`).join('');
  const isOld = at === undefined ? [] : [`o.version <= ${bind(at)}`];
  const some = bind(limit + 1);
  const table = `from syncsets.objects o where o.type = $1${all(key)}`;

  let current: string;
  if (plan.how === 'find') {
    // "offset 0" keeps the order and the limit out, with which the planner would walk after all. Only keys are sorted; by the
    // primary key instead of their places, 100 cold rows took twice as long.
    current = `select o.namespace, o.name, k.value, o.version, o.object, null::bigint as step, true as hit, k.total
      from (select f.*, ${count ? 'count(*) over ()' : 'null::bigint'} as total
        from (select o.ctid as row, o.namespace, o.name, ${value('o')} as value ${table}${all([...isOld, ...rest])} offset 0) f
        order by ${ordered('f')} limit ${some}) k
      cross join lateral (select o.namespace, o.name, o.version, o.object from syncsets.objects o
        where o.type = $1 and o.ctid = k.row offset 0) o`;
  } else if (plan.budget === Infinity) {
    const counted = count && rest.length === 0 && key.length === (namespace === undefined ? 0 : 1);
    const total = counted
      ? `(select nullif(count(*), ${countedAtMost + 1}) from (select ${table} limit ${countedAtMost + 1}) c)`
      : 'null::bigint';
    current = `select o.namespace, o.name, ${value('o')} as value, o.version, o.object, null::bigint as step, true as hit,
        ${total} as total
      ${table}${all([...isOld, ...rest])} order by ${ordered('o', value('o'))} limit ${some}`;
  } else {
    // The last step comes along even if it is no match: it tells that the walk ended before the list did.
    const budget = bind(plan.budget);
    // To count takes the whole walk, which a longer one need not go.
    const total =
      count && plan.budget === firstWalk
        ? `case when count(*) over () < ${budget} then count(*) filter (where s.hit) over () end`
        : 'null::bigint';
    current = `select w.namespace, w.name, w.value, w.version, w.object, w.step, w.hit, w.total
      from (select s.*, ${total} as total
        from (select o.*, (true${all([...isOld, ...rest])}) is true as hit, row_number() over (order by ${ordered('o')}) as step
          from (select o.*, ${value('o')} as value ${table} order by ${ordered('o', value('o'))} limit ${budget}) o) s) w
      where w.hit or w.step = ${budget} order by ${ordered('w')} limit ${some} + 1`;
  }
  // Keys that changed since: few columns are sorted, and objects are looked up one by one until the page is full.
  const former =
    at === undefined
      ? ''
      : ` union all (select c.namespace, c.name, ${value('o')} as value, (o.object->>'resourceVersion')::bigint, o.object,
            null::bigint, true, null::bigint
          from (select distinct on (e.namespace, e.name) e.namespace, e.name, e.version, e.at, e.op from syncsets.events e
            where e.type = $1 and e.version > ${bind(at)}
              ${namespace === undefined ? '' : `and e.namespace = ${bind(namespace)}`}
              ${after && !order ? `and (e.namespace, e.name) > (${bind(after.namespace)}, ${bind(after.name)})` : ''}
            order by e.namespace, e.name, e.version) c
          cross join lateral (select e.namespace, e.name, e.uid, s.object, coalesce(s.object->'labels', '{}') as labels
            from syncsets.events e cross join lateral (select (e.object || coalesce(e.before, '{}'))
              - array(select b.key from jsonb_each(e.before) b where b.value = 'null'::jsonb) as object offset 0) s
            where e.type = $1 and e.version = c.version and e.at = c.at offset 0) o
          where c.op <> 'ADDED'${all([...key, ...rest])} order by ${order ? ordered('o', value('o')) : 'c.namespace, c.name'} limit ${some})`;
  const shown = fields ? projectionSql('p.object', fields, bind) : 'p.object';
  return {
    text: `select t.version as head, t.log_start, p.total, p.namespace, p.name, p.value::text as value, p.version, p.step, p.hit,
        case when p.bytes - octet_length(p.json) < ${pageBytes} then p.json end as object,
        ${plan.how === 'walk' && plan.budget !== Infinity ? objectsSql : 'null'} as objects
      from syncsets.types t left join lateral (
        select p.*, sum(octet_length(p.json)) over (order by ${ordered('p')}) as bytes
        from (select p.*, ${shown}::text as json from ((${current})${former}) p order by ${ordered('p')} limit ${some} + 1) p
      ) p on true
      where t.type = $1 order by ${ordered('p')}`,
    values,
  };
}

/** About how many objects a type has, from the catalogue; -1 when nobody counted yet. */
const objectsSql = `(select c.reltuples::bigint from pg_class c where c.oid = to_regclass(format('public.%I', $1)))`;
