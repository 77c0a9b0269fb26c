import pg, { type ClientConfig, type QueryResultRow } from 'pg';

/** A log function: a constant message and its variables as fields. */
export type Log = (
  level: 'debug' | 'info' | 'warn' | 'error',
  message: string,
  fields?: Record<string, unknown>,
) => void;

/** How the database is reached. */
export interface DatabaseOptions {
  connection: ClientConfig;
  log: Log;
  /** Connections in the pool; one more is held for LISTEN. Default 10. */
  poolSize?: number;
}

/**
 * A condition that is always true and makes its transaction's commit not wait for the disk. For steps whose loss in a crash
 * of the database undoes them as a whole, to be made again: hints, and everything between the event log and a worker.
 */
export const unsynced = `set_config('synchronous_commit', 'off', true) = 'off'`;

/** One query at a time on one connection: the pool itself or a transaction's connection. */
export interface Queries {
  /**
   * Runs one statement. With a name it is prepared once per connection, which halves the planning cost of hot statements.
   * The row type is the caller's word for what the statement beside it selects.
   */
  query<Row extends QueryResultRow>(statement: { name?: string; text: string; values?: unknown[] }): Promise<Row[]>;
}

// int8 as number: versions stay below 2^53 for 285 years at a million writes a second.
const types = new pg.TypeOverrides();
types.setTypeParser(pg.types.builtins.INT8, Number);

// A database that vanished without a word (a failover, a cut cable) is noticed by silence: the system's own default is 2 h.
const patience = { keepAlive: true, keepAliveInitialDelayMillis: 10_000 };

/** So often a statement that others stood in the way of is run. Each time may cost Postgres' deadlock_timeout, 1 s. */
const repeats = 5;

/** Whether a statement or transaction was undone in favour of another one: a deadlock or a serialization failure. */
export function isVictim(error: unknown): boolean {
  return ['40P01', '40001'].includes(sqlState(error) ?? '');
}

/** Queries on one connection. Several at once wait for each other: the driver is to refuse them in its next release. */
function oneByOne(client: pg.ClientBase): Queries {
  let last: Promise<unknown> = Promise.resolve();
  return {
    query<Row extends QueryResultRow>(statement: { name?: string; text: string; values?: unknown[] }): Promise<Row[]> {
      const rows = last.then(async () => (await client.query<Row>(statement)).rows);
      // Whoever asked hears of the failure; the next one has its own.
      last = rows.catch(() => undefined);
      return rows;
    },
  };
}

/** The connection pool of one process and its one listening connection. */
export class Database implements Queries {
  readonly #pool: pg.Pool;
  readonly #connection: ClientConfig;
  readonly #log: Log;
  readonly #channels = new Map<string, (payload: string) => void>();
  #listener: pg.Client | undefined;
  #relisten: NodeJS.Timeout | undefined;
  #stopped = false;
  #onReconnect: () => void = () => undefined;

  constructor(options: DatabaseOptions) {
    this.#connection = { ...options.connection, types, ...patience };
    this.#log = options.log;
    this.#pool = new pg.Pool({
      ...this.#connection,
      max: options.poolSize ?? 10,
      connectionTimeoutMillis: 5_000,
      idleTimeoutMillis: 60_000,
      statement_timeout: 60_000,
      query_timeout: 65_000,
      // A process that is frozen within a transaction keeps its locks, and everybody else waiting, no longer than this.
      idle_in_transaction_session_timeout: 10_000,
    });
    // Idle connections die when the server restarts: the pool drops them, the next query opens a new one.
    this.#pool.on('error', error => {
      // At the end the server may be faster than the goodbye of a connection.
      if (!this.#stopped) options.log('warn', 'database connection lost', { reason: error.message });
    });
  }

  /** Connects once, so that a wrong address is known at start. Throws the driver's error. */
  async start(): Promise<void> {
    await this.ping();
  }

  /** Whether it answers now. Throws the driver's error. */
  async ping(): Promise<void> {
    await this.query({ name: 'ping', text: 'select 1' });
  }

  async stop(): Promise<void> {
    if (this.#stopped) return;
    this.#stopped = true;
    clearTimeout(this.#relisten);
    await this.#listener?.end().catch(() => undefined);
    await this.#pool.end();
  }

  /** As `Queries` say; one that another transaction stood in the way of was undone as a whole, and is run again a few times. */
  async query<Row extends QueryResultRow>(statement: {
    name?: string;
    text: string;
    values?: unknown[];
  }): Promise<Row[]> {
    for (let repeat = 1; ; repeat++) {
      try {
        return (await this.#pool.query<Row>(statement)).rows;
      } catch (error) {
        if (repeat >= repeats || !isVictim(error)) throw error;
      }
    }
  }

  /** Runs `work` in one transaction: committed when it returns, rolled back when it throws. */
  async transaction<T>(work: (queries: Queries) => Promise<T>): Promise<T> {
    const client = await this.#pool.connect();
    let broken: Error | undefined;
    // A connection that is lost while it is in use tells so by an event, which would end the process if nobody listened.
    const lost = (error: Error) => (broken = error);
    client.on('error', lost);
    try {
      await client.query('begin');
      const result = await work(oneByOne(client));
      await client.query('commit');
      return result;
    } catch (error) {
      await client.query('rollback').catch((failed: unknown) => {
        broken ??= failed instanceof Error ? failed : new Error(String(failed));
      });
      throw error;
    } finally {
      client.release(broken);
      client.off('error', lost);
    }
  }

  /**
   * Runs `work` on a connection of its own, outside of a transaction and without the pool's time-outs: for statements that take
   * minutes. When `signal` aborts, the statement under way is cancelled. Throws the driver's error.
   */
  async session<T>(work: (queries: Queries) => Promise<T>, signal?: AbortSignal): Promise<T> {
    signal?.throwIfAborted();
    const client = new pg.Client({ ...this.#connection, connectionTimeoutMillis: 5_000 });
    // A connection that is lost fails the statement under way; the event besides would end the process.
    client.on('error', error => this.#log('warn', 'database connection lost', { reason: error.message }));
    await client.connect();
    const { rows } = await client.query<{ pid: number }>('select pg_backend_pid() as pid');
    const cancel = () => {
      this.query({ text: 'select pg_cancel_backend($1)', values: [rows[0]?.pid] }).catch((error: unknown) => {
        this.#log('warn', 'a statement could not be cancelled', { error });
      });
    };
    try {
      signal?.addEventListener('abort', cancel, { once: true });
      signal?.throwIfAborted();
      return await work({
        async query<Row extends QueryResultRow>(statement: { name?: string; text: string; values?: unknown[] }) {
          signal?.throwIfAborted();
          return (await client.query<Row>(statement)).rows;
        },
      });
    } finally {
      signal?.removeEventListener('abort', cancel);
      await client.end();
    }
  }

  /**
   * Hears the notifications of a channel on one connection of its own, which is opened again when it is lost. A notification
   * is a hint and may be missed: `reconnected` is called after every reconnect so that the caller looks for itself.
   */
  async listen(channel: string, handler: (payload: string) => void, reconnected: () => void): Promise<void> {
    this.#channels.set(channel, handler);
    this.#onReconnect = reconnected;
    await this.#openListener();
  }

  /** Whether notifications are heard now: not while the listening connection is lost. */
  get listening(): boolean {
    return this.#listener !== undefined;
  }

  /**
   * Sends a hint to every process that listens; never inside a write, where NOTIFY's global lock costs 60 % of throughput.
   */
  async notify(channel: string, payload: string): Promise<void> {
    await this.query({
      name: 'notify',
      text: `select pg_notify($1, $2) where ${unsynced}`,
      values: [channel, payload],
    });
  }

  /**
   * How many connections listen on a channel, this process's own among them. One that this role may not look into counts: it
   * may be another replica with a role of its own.
   */
  async listeners(channel: string): Promise<number> {
    const [row] = await this.query<{ count: number }>({
      name: 'listeners',
      text: `select count(*) from pg_stat_activity
        where datname = current_database() and (query = $1 or query = '<insufficient privilege>')`,
      values: [listenOn(channel)],
    });
    return row?.count ?? 0;
  }

  async #openListener(): Promise<void> {
    if (this.#listener) return;
    const client = new pg.Client({ ...this.#connection, connectionTimeoutMillis: 5_000 });
    const lost = (error?: Error) => {
      if (this.#listener !== client) return;
      this.#listener = undefined;
      client.end().catch(() => undefined);
      if (this.#stopped) return;
      this.#log('warn', 'database listener lost', { reason: error?.message ?? 'connection closed' });
      this.#retryListener();
    };
    client.on('error', lost);
    client.on('end', () => lost());
    client.on('notification', message => this.#channels.get(message.channel)?.(message.payload ?? ''));
    await client.connect();
    try {
      for (const channel of this.#channels.keys()) await client.query(listenOn(channel));
    } catch (error) {
      // A standby refuses on a connection that lives on. Taken for the listener, it would end all further tries.
      client.end().catch(() => undefined);
      throw error;
    }
    if (this.#stopped) return client.end();
    this.#listener = client;
  }

  #retryListener(): void {
    clearTimeout(this.#relisten);
    this.#relisten = setTimeout(() => {
      this.#openListener().then(
        () => this.#onReconnect(),
        () => {
          if (!this.#stopped) this.#retryListener();
        },
      );
    }, 500);
  }
}

/** Whether an error of the driver means that the database is away (down, restarting, out of connections) rather than refusing. */
export function isDatabaseAway(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  const code = 'code' in error && typeof error.code === 'string' ? error.code : '';
  // 08: connection exceptions, 57P: shutdown and start-up, 53300: too many connections, 25P03: a transaction that was idle for long
  if (/^(08|57P0)/.test(code) || code === '53300' || code === '25P03') return true;
  if (/^(ECONNREFUSED|ECONNRESET|EPIPE|ENOTFOUND|ETIMEDOUT|EHOSTUNREACH|ENOENT|EAI_AGAIN)$/.test(code)) return true;
  return /Connection terminated|timeout exceeded when trying to connect|Query read timeout|Client has encountered a connection error|connection timeout/i.test(
    error.message,
  );
}

/** The SQLSTATE of a driver's error, if it has one. */
export function sqlState(error: unknown): string | undefined {
  return error instanceof pg.DatabaseError ? error.code : undefined;
}

/** The last statement of a listening connection, by which others know it. */
function listenOn(channel: string): string {
  return `listen ${pg.escapeIdentifier(channel)}`;
}
