import type { Database, Log, Queries } from './database.js';

/** What a type says about its objects together with others. */
export type TypeRule =
  /** No two objects (of a namespace, or of all with `everywhere`) have the same values in these fields. */
  | { kind: 'unique'; name: string; fields: string[]; everywhere: boolean }
  /** The field names objects of the type `target`, which exist as long as it names them. */
  | { kind: 'ref'; name: string; field: string; target: string; onDelete: 'refuse' | 'cascade' | 'null' };

/** So many objects are looked through under the lock of their type's counter row, in about 100 ms. */
const page = 2_000;

/**
 * Makes the rules of types known to the database, which enforces them for every release that writes, and takes those away that
 * are no longer declared. Objects stored before a rule came are looked through, in pages between which writes go on; what
 * breaks a rule stays as it is and is logged, again at each start until it is mended.
 */
export async function ensureRules(
  database: Database,
  types: { type: string; rules?: TypeRule[] }[],
  log: Log,
): Promise<void> {
  await database.transaction(async queries => {
    await queries.query({ text: `select pg_advisory_xact_lock(hashtext('syncsets rules'))` });
    await declare(queries, types);
  });
  const open = await database.query<{ type: string }>({
    text: `select distinct type from syncsets.rules where type = any ($1::text[]) and (violations is null or violations > 0) order by type`,
    values: [types.map(({ type }) => type)],
  });
  for (const { type } of open) await lookThrough(database, type, log);
}

async function declare(queries: Queries, types: { type: string; rules?: TypeRule[] }[]): Promise<void> {
  const names = types.map(({ type }) => type);
  const declared = types.flatMap(({ type, rules = [] }) =>
    rules.map(rule =>
      rule.kind === 'unique'
        ? { type, name: rule.name, kind: rule.kind, fields: rule.fields, everywhere: rule.everywhere }
        : {
            type,
            name: rule.name,
            kind: rule.kind,
            fields: [rule.field],
            everywhere: false,
            target: rule.target,
            on_delete: rule.onDelete,
          },
    ),
  );
  const known = await queries.query<{ same: boolean }>({
    text: `with declared as (
        select * from jsonb_to_recordset($2) as x(type text, name text, kind text, fields text[], everywhere boolean, target text, on_delete text)
      ), stored as (
        select type, name, kind, fields, everywhere, target, on_delete from syncsets.rules where type = any ($1::text[])
      )
      select not exists ((table declared except table stored) union all (table stored except table declared)) as same`,
    values: [names, JSON.stringify(declared)],
  });
  if (known[0]?.same === true) return;
  // Every writer reads the flags under this lock: who comes after it obeys.
  await queries.query({ text: 'select from syncsets.types order by type for update' });
  await queries.query({
    text: `delete from syncsets.rules r where r.type = any ($1::text[]) and not exists (
        select from jsonb_to_recordset($2) as x(type text, name text, kind text, fields text[], everywhere boolean, target text)
        where x.type = r.type and x.name = r.name and x.kind = r.kind and x.fields = r.fields and x.everywhere = r.everywhere
          and x.target is not distinct from r.target)`,
    values: [names, JSON.stringify(declared)],
  });
  for (const table of ['uniques', 'refs']) {
    await queries.query({
      text: `delete from syncsets.${table} u where u.type = any ($1::text[])
        and not exists (select from syncsets.rules r where r.type = u.type and r.name = u.rule)`,
      values: [names],
    });
  }
  await queries.query({
    text: `insert into syncsets.rules (type, name, kind, fields, everywhere, target, on_delete)
      select * from jsonb_to_recordset($1) as x(type text, name text, kind text, fields text[], everywhere boolean, target text, on_delete text)
      on conflict (type, name) do update set on_delete = excluded.on_delete`,
    values: [JSON.stringify(declared)],
  });
  await queries.query({
    text: `update syncsets.types t set ruled = x.ruled, target = x.target from (
        select type, exists (select from syncsets.rules r where r.type = t.type) as ruled,
          exists (select from syncsets.rules r where r.target = t.type) as target from syncsets.types t
      ) x where x.type = t.type and (t.ruled, t.target) <> (x.ruled, x.target)`,
  });
}

async function lookThrough(database: Database, type: string, log: Log): Promise<void> {
  const broken = new Map<string, { count: number; examples: string[] }>();
  let after: { namespace: string; name: string } | undefined = { namespace: '', name: '' };
  while (after) after = await lookThroughPage(database, type, after, broken);
  await database.query({
    text: `update syncsets.rules r set violations = coalesce(($2::jsonb->>r.name)::integer, 0) where r.type = $1`,
    values: [type, JSON.stringify(Object.fromEntries([...broken].map(([rule, { count }]) => [rule, count])))],
  });
  for (const [rule, { count, examples }] of broken) {
    log('warn', 'objects stored before a rule came break it; they stay as they are until they are changed', {
      type,
      rule,
      count,
      examples,
    });
  }
}

/** One page under the counter's lock; returns where the next one begins. */
async function lookThroughPage(
  database: Database,
  type: string,
  after: { namespace: string; name: string },
  broken: Map<string, { count: number; examples: string[] }>,
): Promise<{ namespace: string; name: string } | undefined> {
  return database.transaction(async queries => {
    await queries.query({ text: 'select from syncsets.types where type = $1 for update', values: [type] });
    const keys = await queries.query<{ namespace: string; name: string }>({
      text: `select namespace, name from syncsets.objects where type = $1 and (namespace, name) > ($2, $3)
        order by namespace, name limit $4`,
      values: [type, after.namespace, after.name, page],
    });
    if (keys.length === 0) return undefined;
    await queries.query({ text: 'select syncsets.keep_rules($1, $2)', values: [type, JSON.stringify(keys)] });
    const found = await queries.query<{ rule: string; example: string }>({
      text: `with seen as materialized (
          select o.namespace, o.name, o.object from jsonb_to_recordset($2) as x(namespace text, name text)
          join syncsets.objects o on o.type = $1 and o.namespace = x.namespace and o.name = x.name
        )
        select k.rule, format('%s/%s has the value of %s/%s', s.namespace, s.name, u.namespace, u.name) as example
        from seen s cross join lateral syncsets.unique_keys($1, s.namespace, s.object) k
        join syncsets.uniques u on u.type = $1 and u.rule = k.rule and u.space = k.space and u.digest = k.digest
        where (u.namespace, u.name) <> (s.namespace, s.name)
        union all
        select k.rule, format('%s/%s refers to %s %s/%s, which does not exist', s.namespace, s.name, k.target, k.target_namespace, k.target_name)
        from seen s cross join lateral syncsets.ref_keys($1, s.namespace, s.object) k
        where not s.object ? 'deletedAt' and not exists (select from syncsets.objects o
          where o.type = k.target and o.namespace = k.target_namespace and o.name = k.target_name)`,
      values: [type, JSON.stringify(keys)],
    });
    for (const { rule, example } of found) {
      const one = broken.get(rule) ?? { count: 0, examples: [] };
      one.count++;
      if (one.examples.length < 10) one.examples.push(example);
      broken.set(rule, one);
    }
    return keys.length < page ? undefined : keys.at(-1);
  });
}
