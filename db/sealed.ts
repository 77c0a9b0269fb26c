import type { Database } from './database.js';
import type { Key } from './read.js';

/** The sealed fields of an object, read to be encrypted anew. `digest` says which state of them that was. */
export interface SealedRow extends Key {
  uid: string;
  sealed: Record<string, unknown>;
  digest: string;
}

/**
 * The next objects of a type, in the order of their keys, that hold a value of another encryption key than `keyId`. Looks at
 * `scan` objects at most, and stops early at `bytes`, so that a statement is short and its answer small however many objects
 * there are. `last` is the key that it came to; undefined: there are no more.
 */
export async function sealedByOthers(
  database: Database,
  type: string,
  keyId: string,
  after: Key | undefined,
  { scan, bytes }: { scan: number; bytes: number },
): Promise<{ rows: SealedRow[]; last: Key | undefined }> {
  const rows = await database.query<Key & { uid: string; sealed: Record<string, unknown> | null; digest: string }>({
    text: `with scanned as (
        select o.namespace, o.name, o.uid, o.sealed,
          sum(coalesce(pg_column_size(o.sealed), 0)) over (order by o.namespace, o.name)
            - coalesce(pg_column_size(o.sealed), 0) as before
        from (select o.namespace, o.name, o.uid, o.sealed from syncsets.objects o
          where o.type = $1 and (o.namespace, o.name) > ($2, $3) order by o.namespace, o.name limit $4) o
      )
      select s.namespace, s.name, s.uid, md5(s.sealed::text) as digest,
        case when jsonb_path_exists(s.sealed, '$.**.k ? (@.type() == "string" && @ != $key)', jsonb_build_object('key', $5::text))
          then s.sealed end as sealed
      from scanned s where s.before < $6 order by s.namespace, s.name`,
    values: [type, after?.namespace ?? '', after?.name ?? '', scan, keyId, bytes],
  });
  const last = rows.at(-1);
  return {
    rows: rows.flatMap(({ sealed, ...row }) => (sealed === null ? [] : [{ ...row, sealed }])),
    last: last && { namespace: last.namespace, name: last.name },
  };
}

/**
 * Stores sealed fields that were encrypted anew, where they are still what was read; returns how many that were. It is no
 * change of the objects: no version, no event. The type's counter row is locked as by every write, so that a write which
 * keeps the sealed fields as they are cannot put the former ones back.
 */
export async function reseal(
  database: Pick<Database, 'transaction'>,
  type: string,
  rows: (SealedRow & { fresh: Record<string, unknown> })[],
): Promise<number> {
  return database.transaction(async queries => {
    await queries.query({ text: 'select from syncsets.types where type = $1 for update', values: [type] });
    const stored = await queries.query({
      // By place: nobody moves a row while the counter row is held, and no plan walks the type for a page of keys.
      text: `with found as materialized (
          select o.row, x.fresh
          from jsonb_to_recordset($2::jsonb) as x(namespace text, name text, uid uuid, digest text, fresh jsonb)
          cross join lateral (
            select o.ctid as row, o.uid, o.sealed from syncsets.objects o
            where o.type = $1 and o.namespace = x.namespace and o.name = x.name offset 0
          ) o
          where o.uid = x.uid and md5(o.sealed::text) = x.digest
        )
        update syncsets.objects o set sealed = f.fresh from found f where o.type = $1 and o.ctid = f.row returning 1`,
      values: [
        type,
        JSON.stringify(
          rows.map(({ namespace, name, uid, digest, fresh }) => ({ namespace, name, uid, digest, fresh })),
        ),
      ],
    });
    return stored.length;
  });
}
