import type { Database } from './database.js';
import type { Key, StoredObject } from './read.js';

type Query = Parameters<Parameters<Database['transaction']>[0]>[0];

/**
 * Reads that all see the database as it was at the first of them. That one takes a connection, `close` gives it back; whoever
 * reads nothing costs nothing.
 */
export class Snapshot {
  readonly #database: Database;
  #opened: Promise<Query> | undefined;
  #transaction: Promise<void> | undefined;
  #end: () => void = () => undefined;

  constructor(database: Database) {
    this.#database = database;
  }

  /** The stored object; undefined if there is none. */
  async read(type: string, key: Key): Promise<StoredObject | undefined> {
    const queries = await this.#open();
    const rows = await queries.query<StoredObject>({
      name: 'snapshot-read',
      text: `select o.namespace, o.name, o.uid, o.version, o.object::text as object,
          null as sealed
        from syncsets.objects o where o.type = $1 and o.namespace = $2 and o.name = $3`,
      values: [type, key.namespace, key.name],
    });
    return rows[0];
  }

  /** Those of the keys that no object has, in their order. */
  async missing(type: string, keys: Key[]): Promise<Key[]> {
    if (keys.length === 0) return [];
    const queries = await this.#open();
    return queries.query<Key>({
      name: 'snapshot-missing',
      // `offset 0` makes it one look-up by key for each: a plan made while the table was empty stays right.
      text: `select k.namespace, k.name from unnest($2::text[], $3::text[]) with ordinality as k(namespace, name, i)
        left join lateral (select true as found from syncsets.objects o
          where o.type = $1 and o.namespace = k.namespace and o.name = k.name offset 0) o on true
        where o.found is null order by k.i`,
      values: [type, keys.map(key => key.namespace), keys.map(key => key.name)],
    });
  }

  async close(): Promise<void> {
    this.#end();
    // What went wrong has reached the reader already.
    await this.#transaction?.catch(() => undefined);
  }

  #open(): Promise<Query> {
    this.#opened ??= new Promise((resolve, reject) => {
      const ended = new Promise<void>(end => (this.#end = end));
      this.#transaction = this.#database.transaction(async queries => {
        await queries.query({ text: 'set transaction isolation level repeatable read, read only' });
        resolve(queries);
        await ended;
      });
      this.#transaction.catch(reject);
    });
    return this.#opened;
  }
}
