import { randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import {
  access,
  chmod,
  link,
  mkdir,
  open,
  readFile,
  rename,
  rm,
  stat,
  writeFile,
  type FileHandle,
} from 'node:fs/promises';
import { isAbsolute, join, relative, resolve } from 'node:path';
import { passwordFor } from '../passfile.js';
import { reasonOf } from '../../reason.js';

/** The user that the server runs as; undefined where it is the user that we are. */
export interface Account {
  uid: number;
  gid: number;
}

/** Name of the superuser and of the database that the platform lives in. */
export const USER = 'postgres';
/** The database of the platform in the embedded Postgres. */
export const DATABASE = 'syncsets';

const LOG_LIMIT = 64 * 1024 * 1024;

/** The paths in DATA_DIR that belong to the embedded Postgres; their meaning is told in `db/embedded.ts`. */
export interface Files {
  dataDir: string;
  cluster: string;
  log: string;
  passfile: string;
  params: string;
}

/** The paths in a DATA_DIR. */
export function filesOf(dataDir: string): Files {
  const at = (name: string) => join(resolve(dataDir), name);
  return {
    dataDir: resolve(dataDir),
    cluster: at('postgres'),
    log: at('postgres.log'),
    passfile: at('pgpass'),
    params: at('postgres-params'),
  };
}

/**
 * Makes DATA_DIR when it is missing. Made by root it lets others pass (0711), because the server runs as another user below
 * it; what is secret in it has mode 0600.
 *
 * @throws Error naming DATA_DIR when it is no directory or cannot be written to
 */
export async function makeDataDir(files: Files): Promise<void> {
  try {
    const made = await mkdir(files.dataDir, { recursive: true });
    if (made !== undefined) await chmod(files.dataDir, process.getuid?.() === 0 ? 0o711 : 0o700);
    await access(files.dataDir, constants.W_OK | constants.X_OK);
  } catch (cause) {
    throw new Error(
      `DATA_DIR ${files.dataDir} cannot be used: ${reasonOf(cause)}. ` +
        'Set it to a directory that this user may write to.',
      { cause },
    );
  }
}

/** The superuser's password: from the password file, undefined when there is none. */
export async function readPassword(files: Files): Promise<string | undefined> {
  const text = await readFile(files.passfile, 'utf8').catch((error: unknown) => {
    if (codeOf(error) === 'ENOENT') return '';
    throw new Error(
      `The embedded database's password cannot be read, DATA_DIR belongs to another user: ${files.passfile}`,
      {
        cause: error,
      },
    );
  });
  return passwordFor(text, { host: '127.0.0.1', port: 0, database: DATABASE, user: USER });
}

/** The password of the file, or a new one written to it. Of two processes that do so at once both get the same. */
export async function makePassword(files: Files): Promise<string> {
  const known = await readPassword(files);
  if (known) return known;
  const part = partOf(files.passfile);
  // Hexadecimal: needs no escapes in a URL, a password file or SQL.
  await writeFile(part, `127.0.0.1:*:*:${USER}:${randomBytes(24).toString('hex')}\n`, { mode: 0o600 });
  await link(part, files.passfile).catch((error: unknown) => {
    if (codeOf(error) !== 'EEXIST') throw error;
  });
  await rm(part);
  const made = await readPassword(files);
  if (!made)
    throw new Error(`${files.passfile} holds no line for 127.0.0.1 and the user ${USER}; remove it to get a new one`);
  return made;
}

/** Connection text without a secret: libpq takes the password from the password file. One word, so it needs no quotes in a shell. */
export async function writeParams(files: Files, port: number): Promise<void> {
  const passfile = files.passfile.split('/').map(encodeURIComponent).join('/');
  const part = partOf(files.params);
  await writeFile(part, `${urlOf(port)}&passfile=${passfile}\n`, { mode: 0o600 });
  await rename(part, files.params);
}

/** The port that the server had when it was last started, if it was. */
export async function lastPort(files: Files): Promise<number | undefined> {
  const text = await readFile(files.params, 'utf8').catch(() => '');
  const port = /@127\.0\.0\.1:(\d+)\//.exec(text)?.[1];
  return port === undefined ? undefined : Number(port);
}

/** With `database` other than the platform's for the work on the server itself. */
export function urlOf(port: number, password?: string, database = DATABASE): string {
  return `postgres://${USER}${password ? `:${password}` : ''}@127.0.0.1:${port}/${database}?sslmode=disable`;
}

/** The command that opens the database in psql; the secret stays in its file. */
export function psqlHint(files: Files): string {
  const short = relative(process.cwd(), files.params);
  const path = short.startsWith('..') || isAbsolute(short) ? files.params : short;
  return `psql "$(cat ${/^[\w./-]+$/.test(path) ? path : `'${path.replaceAll("'", String.raw`'\''`)}'`})"`;
}

/** Opens the server's log for appending; what is longer than 64 MB is kept once as `postgres.log.1`. */
export async function openLog(files: Files): Promise<{ handle: FileHandle; from: number }> {
  const size = await stat(files.log).then(
    found => found.size,
    () => 0,
  );
  if (size > LOG_LIMIT) await rename(files.log, `${files.log}.1`);
  const handle = await open(files.log, 'a', 0o600);
  return { handle, from: (await handle.stat()).size };
}

/** What the server wrote to its log since a position, at most the last 4 KB. */
export async function logSince(files: Files, from: number): Promise<string> {
  const handle = await open(files.log, 'r');
  try {
    const size = (await handle.stat()).size;
    const start = Math.max(from, size - 4096);
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(size - start), 0, size - start, start);
    return buffer.toString('utf8', 0, bytesRead).trim();
  } finally {
    await handle.close();
  }
}

/** Where a file is written before it gets its name, so that a half one is never read. */
export function partOf(path: string): string {
  return `${path}.${randomBytes(4).toString('hex')}.part`;
}

/** Whether there is something at a path. Throws what else the system says, such as EACCES. */
export async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    (error: unknown) => {
      if (codeOf(error) === 'ENOENT') return false;
      throw error;
    },
  );
}

/** The system's code of an error (`ENOENT`), or an empty text. */
export function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : '';
}
