import type { Queries } from './database.js';

/** Names one object of a type; `namespace` is empty for cluster-wide types. */
export interface Key {
  namespace: string;
  name: string;
}

/** An object as stored. `object` is its JSON text, secrets masked; `sealed` the ciphertexts beside it. */
export interface StoredObject extends Key {
  uid: string;
  version: number;
  object: string;
  sealed: Record<string, unknown> | null;
}

/** The stored objects of these keys, in their order; undefined where there is none. */
export async function readObjects(queries: Queries, type: string, keys: Key[]): Promise<(StoredObject | undefined)[]> {
  const rows = await queries.query<StoredObject>({
    name: 'read-objects',
    // `offset 0` makes it one look-up by key for each: a plan made while the table was empty stays right.
    text: `select o.* from unnest($2::text[], $3::text[]) as k(namespace, name) cross join lateral (
        select o.namespace, o.name, o.uid, o.version, o.object::text as object, o.sealed from syncsets.objects o
        where o.type = $1 and o.namespace = k.namespace and o.name = k.name offset 0
      ) o`,
    values: [type, keys.map(key => key.namespace), keys.map(key => key.name)],
  });
  const found = new Map(rows.map(row => [`${row.namespace}/${row.name}`, row]));
  return keys.map(key => found.get(`${key.namespace}/${key.name}`));
}
