import { createHash } from 'node:crypto';
import pg from 'pg';
import type { Database, Log, Queries } from './database.js';
import { reasonOf } from '../reason.js';

/** A top-level field with an index of its own. Numbers are ordered as numbers, everything else as text. */
export interface IndexedField {
  field: string;
  kind: 'text' | 'number';
}

/** Texts are indexed by this many characters: a row of a btree holds 2.7 kB, and a longer one would make the write fail. */
const indexedCharacters = 200;

/**
 * What an indexed field is ordered and found by, as SQL over a jsonb column. Never null, so that a page can go on after any
 * value: a missing field comes first. It casts nothing that could fail, whatever a type's field held in former releases.
 */
export function indexedValue({ field, kind }: IndexedField, object: string): string {
  // The name comes from a type's file and is a literal, because an index is only used by the very expression it was made of.
  const text = `(${object} ->> ${pg.escapeLiteral(field)})`;
  if (kind === 'text') return `(coalesce(left(${text}, ${indexedCharacters}), '') collate "C")`;
  return `(coalesce(case when ${text} ~ '^-?[0-9]{1,100}([.][0-9]{1,100})?$' then ${text}::numeric end, '-infinity'))`;
}

/** What a wanted value looks like in the index; undefined if the index cannot tell, and the field itself must be looked at. */
export function indexedKey({ kind }: IndexedField, value: string): string | undefined {
  if (kind === 'text') return Array.from(value).slice(0, indexedCharacters).join('');
  return /^-?\d{1,100}(\.\d{1,100})?$/.test(value) ? value : undefined;
}

/** A type and its fields marked `@index`. */
export interface TypeIndexes {
  type: string;
  indexes: IndexedField[];
}

const pause = { between: 60_000, onceBusy: 2_000 };

/**
 * Keeps the indexes of fields as the types want them: makes those that are missing, without blocking writes, makes anew what a
 * broken attempt left invalid, and, once at its start, drops those that no type wants any more. Only at its start: during a
 * rolling update the release before, which does not know a new index, goes on running.
 */
export class FieldIndexes {
  readonly #database: Database;
  readonly #types: TypeIndexes[];
  readonly #log: Log;
  readonly #stopped = new AbortController();
  #work: Promise<void> = Promise.resolve();
  #timer: NodeJS.Timeout | undefined;
  #failure = '';

  constructor(options: { database: Database; types: TypeIndexes[]; log: Log }) {
    this.#database = options.database;
    this.#types = options.types;
    this.#log = options.log;
  }

  /** Begins in the background: an index on a million objects takes seconds to minutes, and lists are right without it. */
  start(): void {
    this.#next(0, true);
  }

  /** Ends at once; an index that is being made is left invalid and made anew by the next start. */
  async stop(): Promise<void> {
    this.#stopped.abort();
    clearTimeout(this.#timer);
    await this.#work;
  }

  #next(wait: number, first: boolean): void {
    this.#timer = setTimeout(() => {
      this.#work = this.#step(first);
    }, wait);
    this.#timer.unref();
  }

  async #step(first: boolean): Promise<void> {
    let done = false;
    try {
      done = await ensureIndexes(this.#database, this.#types, {
        drop: first,
        log: this.#log,
        signal: this.#stopped.signal,
      });
      this.#failure = '';
    } catch (error) {
      const failure = reasonOf(error);
      if (!this.#stopped.signal.aborted && failure !== this.#failure) {
        this.#log('warn', 'indexes of fields could not be made', { error });
      }
      this.#failure = failure;
    }
    if (!this.#stopped.signal.aborted) this.#next(done ? pause.between : pause.onceBusy, first && !done);
  }
}

/**
 * One look at all types. False: another process is at it. `create index concurrently` waits for all older transactions, so
 * nobody may wait for its lock inside of one: it is tried, not waited for.
 */
export async function ensureIndexes(
  database: Database,
  types: TypeIndexes[],
  { drop, log, signal }: { drop: boolean; log: Log; signal?: AbortSignal },
): Promise<boolean> {
  const wanted = types.flatMap(({ type, indexes }) =>
    indexes.map(index => ({ type, index, name: nameOf(type, index) })),
  );
  // The usual case costs one look into the catalogue.
  const before = await existing(database, types);
  const isDone = wanted.every(({ name }) => before.some(one => one.name === name && one.valid));
  const names = new Set(wanted.map(({ name }) => name));
  if (isDone && !(drop && before.some(one => !names.has(one.name)))) return true;
  return database.session(async queries => {
    const [lock] = await queries.query<{ mine: boolean }>({
      text: `select pg_try_advisory_lock(hashtext('syncsets field indexes')) as mine`,
    });
    if (!lock?.mine) return false;
    const found = await existing(queries, types);
    for (const { name, valid } of found) {
      const surplus = drop && !names.has(name);
      // Invalid ones are of a process that was killed: whoever makes one holds the lock.
      if (!surplus && (valid || !names.has(name))) continue;
      await queries.query({ text: `drop index concurrently if exists public.${pg.escapeIdentifier(name)}` });
      log('info', 'index of a field dropped', { index: name, valid });
    }
    for (const { type, index, name } of wanted) {
      if (found.some(one => one.name === name && one.valid)) continue;
      const began = performance.now();
      const table = `public.${pg.escapeIdentifier(type)}`;
      await queries.query({
        text: `create index concurrently ${pg.escapeIdentifier(name)}
          on ${table} (${indexedValue(index, 'object')}, namespace, name)`,
      });
      // Without statistics of the expression the planner takes it for rare.
      await queries.query({ text: `analyze ${table}` });
      log('info', 'index of a field made', { index: name, seconds: Math.round((performance.now() - began) / 1000) });
    }
    return true;
  }, signal);
}

async function existing(queries: Queries, types: TypeIndexes[]): Promise<{ name: string; valid: boolean }[]> {
  return queries.query({
    text: `select i.relname as name, x.indisvalid as valid
      from pg_index x join pg_class i on i.oid = x.indexrelid join pg_class t on t.oid = x.indrelid
      where t.relnamespace = 'public'::regnamespace and t.relname = any ($1::text[]) and i.relname ~ '_by_.*_[0-9a-f]{8}$'`,
    values: [types.map(({ type }) => type)],
  });
}

/** `clusters_by_region_1a2b3c4d`: the digits stand for the definition, so that another one is another index. */
function nameOf(type: string, index: IndexedField): string {
  const digest = createHash('sha256').update(indexedValue(index, 'object')).digest('hex').slice(0, 8);
  // A name has 63 bytes at most.
  return `${`${type}_by_${index.field}`.slice(0, 54)}_${digest}`;
}
