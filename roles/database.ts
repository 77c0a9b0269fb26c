import type { ClientConfig } from 'pg';
import { typeTables } from '../api/index.js';
import type { Settings } from '../config.js';
import {
  Database,
  EmbeddedPostgres,
  ensureTypes,
  findEmbedded,
  isDatabaseAway,
  migrate,
  parseConnection,
  sqlState,
} from '../db/index.js';
import { reasonOf } from '../reason.js';
import { StartError } from './start-error.js';
import type { Starting } from './start.js';

/** How the database is reached, and how its user reaches it with psql where nobody has given one. */
interface Connection {
  connection: ClientConfig;
  hint?: string;
}

/**
 * Connects to the database and brings it to this release; undefined when a stop came first. Waits for one that does not answer.
 *
 * @throws StartError when it refuses the connection, or the embedded one cannot use its directory
 */
export async function openDatabase(starting: Starting): Promise<{ database: Database; hint?: string } | undefined> {
  const { settings, parts, log } = starting;
  const { connection, hint } = await connect(starting).catch((error: unknown) => refuseDatabase(error, settings));
  const database = new Database({ connection, log });
  parts.add(database);
  await untilReachable(database, starting);
  if (parts.stopping) return undefined;
  await migrate(connection, log);
  await ensureTypes(database, typeTables(), log);
  return { database, hint };
}

/** Starts the embedded database when none is given and none of this DATA_DIR runs. */
async function connect({ role, settings, parts, log }: Starting): Promise<Connection> {
  const { databaseUrl, postgresParams, dataDir } = settings;
  const external = parseConnection({ DATABASE_URL: databaseUrl, POSTGRES_PARAMS: postgresParams });
  if (external) return { connection: external };
  // A role that is started beside `run` joins its database; `run` itself refuses a DATA_DIR that another one holds.
  const running = role === 'run' ? undefined : await findEmbedded(dataDir);
  if (running) return { connection: { connectionString: running.url } };
  const embedded = new EmbeddedPostgres({ dataDir, log });
  parts.add(embedded);
  const { url, psqlHint } = await embedded.start();
  return { connection: { connectionString: url }, hint: psqlHint };
}

/** Says once that the database does not answer. What it refuses (password, name) ends the start. */
async function untilReachable(database: Database, { parts, log }: Starting): Promise<void> {
  for (let tries = 0; !parts.stopping; tries++) {
    try {
      await database.start();
      return;
    } catch (error) {
      const reason = reasonOf(error);
      // 28: authentication, 3D000: no such database
      if (/^(28|3D)/.test(sqlState(error) ?? '')) {
        throw new StartError(`The database refuses the connection: ${reason}. Check DATABASE_URL or POSTGRES_PARAMS.`);
      }
      if (!isDatabaseAway(error) && !(error instanceof AggregateError)) throw error;
      if (tries % 30 === 0) {
        log(
          'error',
          'the database does not answer; check DATABASE_URL or POSTGRES_PARAMS and that it runs; trying again every second',
          { reason },
        );
      }
      await new Promise(resolve => setTimeout(resolve, 1_000));
    }
  }
}

/** The database room's own errors are made for people; the system's, about files, need to be told which setting is meant. */
function refuseDatabase(error: unknown, { dataDir }: Settings): never {
  if (!(error instanceof Error) || error.name !== 'Error') throw error;
  if (!('syscall' in error)) throw new StartError(error.message, { cause: error });
  throw new StartError(
    `DATA_DIR ${dataDir} cannot be used: ${error.message}. Set it to a directory that this user may write to.`,
  );
}
