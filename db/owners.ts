import type { Database } from './database.js';
import type { Key, StoredObject } from './read.js';
import { selectorSql, type Selector } from './selectors.js';

/** An object that names owners. `owners` is as stored: its own type has validated it. */
export interface Dependent extends Key {
  uid: string;
  version: number;
  owners: unknown;
  /** Whether it is being deleted already. */
  deleting: boolean;
}

/** What is known of an owner that exists. */
export interface OwnerState extends Dependent {
  finalizers: unknown;
}

/** How much one page takes at most: so many objects, which have so many bytes together. */
export interface PageSize {
  limit: number;
  bytes: number;
}

/**
 * One page of the objects of a type that name an owner by one of these uids or names, in the order of their keys. What they
 * say of the owner's type and namespace is for the caller to compare.
 */
export async function dependents(
  database: Database,
  type: string,
  owners: string[],
  after: Key | undefined,
  { limit, bytes }: PageSize,
): Promise<Dependent[]> {
  return database.query<Dependent>({
    // All are found first, by the index: a walk along the primary key would look cheaper to a planner that cannot guess
    // how few they are, and read the whole table.
    text: `with found as materialized (
        select o.namespace, o.name, o.uid, o.version, o.object->'owners' as owners, o.object ? 'deletedAt' as deleting,
          pg_column_size(o.object) as bytes
        from syncsets.objects o
        where o.type = $1 and o.owner_keys ?| $2
      ), page as (
        select * from found where (namespace, name) > ($3, $4) order by namespace, name limit $5
      )
      select p.namespace, p.name, p.uid, p.version, p.owners, p.deleting
      from (select page.*, sum(bytes) over (order by namespace, name) - bytes as before from page) p
      where p.before < $6 order by p.namespace, p.name`,
    values: [type, owners, after?.namespace ?? '', after?.name ?? '', limit, bytes],
  });
}

/** Those of some uids that an object of any type names as an owner's; a look into one small index for each type. */
export async function namedAsOwners(database: Database, uids: string[]): Promise<Set<string>> {
  const rows = await database.query<{ uid: string }>({
    name: 'named-as-owners',
    // `offset 0` keeps it one scan by the index of each type: no plan begins with the uids and asks for each of them.
    text: `select distinct k.uid from (
        select o.owner_keys as keys from syncsets.objects o
        where o.owner_keys ?| $1 offset 0
      ) o cross join unnest($1::text[]) as k(uid) where o.keys ? k.uid`,
    values: [uids],
  });
  return new Set(rows.map(({ uid }) => uid));
}

/** The objects of a type that have these keys, as owners. */
export async function ownerStates(database: Database, type: string, keys: Key[]): Promise<OwnerState[]> {
  return database.query<OwnerState>({
    name: 'owner-states',
    text: `select o.* from unnest($2::text[], $3::text[]) as k(namespace, name) cross join lateral (
        select o.namespace, o.name, o.uid, o.version, o.object->'owners' as owners, o.object ? 'deletedAt' as deleting,
          o.object->'finalizers' as finalizers
        from syncsets.objects o where o.type = $1 and o.namespace = k.namespace and o.name = k.name offset 0
      ) o`,
    values: [type, keys.map(key => key.namespace), keys.map(key => key.name)],
  });
}

/** One page of a type's objects that match everything given, in the order of their keys; their ciphertexts stay where they are. */
export async function selectedObjects(
  database: Database,
  type: string,
  { namespace, selector, ownerUid }: { namespace?: string; selector: Selector; ownerUid?: string },
  after: Key | undefined,
  { limit, bytes }: PageSize,
): Promise<Omit<StoredObject, 'sealed'>[]> {
  const values: unknown[] = [type];
  const bind = (value: unknown) => `$${values.push(value)}`;
  const conditions = selectorSql(selector, 'o', values);
  if (namespace !== undefined) conditions.push(`o.namespace = ${bind(namespace)}`);
  if (ownerUid !== undefined) {
    const owner = bind(JSON.stringify([{ uid: ownerUid }]));
    conditions.push(`o.owner_keys ? ${bind(ownerUid)}`, `o.object->'owners' @> ${owner}::jsonb`);
  }
  if (after) conditions.push(`(o.namespace, o.name) > (${bind(after.namespace)}, ${bind(after.name)})`);
  const where = conditions.map(condition => `and ${condition}`).join(' ');
  const found = `select o.namespace, o.name, o.uid, o.version, o.object, pg_column_size(o.object) as bytes from syncsets.objects o
    where o.type = $1 ${where}`;
  // By an owner all are found first, by its index; see above.
  const page = `order by namespace, name limit ${bind(limit)}`;
  return database.query({
    text: `${ownerUid === undefined ? '' : `with found as materialized (${found})`}
      select p.namespace, p.name, p.uid, p.version, p.object::text as object from (
        select page.*, sum(bytes) over (order by namespace, name) - bytes as before
        from (${ownerUid === undefined ? `${found} ${page}` : `select * from found ${page}`}) page
      ) p
      where p.before < ${bind(bytes)} order by p.namespace, p.name`,
    values,
  });
}
