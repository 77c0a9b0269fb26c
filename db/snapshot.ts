import type { Database, Queries } from './database.js';
import { readObjects, type Key, type StoredObject } from './read.js';

/**
 * Reads that all see the database as it was at the first of them. That one takes a connection, `close` gives it back; whoever
 * reads nothing costs nothing.
 */
export class Snapshot {
  readonly #database: Database;
  #opened: Promise<Queries> | undefined;
  #transaction: Promise<void> | undefined;
  #end: () => void = () => undefined;

  constructor(database: Database) {
    this.#database = database;
  }

  /** The stored object; undefined if there is none. */
  async read(type: string, key: Key): Promise<StoredObject | undefined> {
    const queries = await this.#open();
    return (await readObjects(queries, type, [key]))[0];
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

  #open(): Promise<Queries> {
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
