import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  chmod,
  chown,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  realpath,
  rename,
  rm,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { mayUse, type Binaries } from './binaries.js';
import { codeOf, exists, USER, type Account, type Files } from './files.js';

const run = promisify(execFile);

/** Where root keeps the cluster when the server's user cannot reach DATA_DIR, first choice first. */
const elsewhere = ['/var/lib/syncsets', '/var/tmp/syncsets'];

/** Environment of every program of Postgres: messages in English, because a few are recognised, and no PG… variable of ours. */
export const environment = { LC_ALL: 'C', PATH: '/usr/local/bin:/usr/bin:/bin' };

/** Where the cluster lies or will lie, and who owns it. */
export interface Place {
  /** Directory of the cluster itself; `files.cluster` leads to it. */
  cluster: string;
  /** Directory that holds it, and copies of the binaries when they are needed. */
  base: string;
  account: Account | undefined;
}

/**
 * Finds the place of the cluster. Postgres refuses to run as root, so root runs it as the cluster's owner, for a new one as the
 * user `postgres`, or `nobody` where that is missing (no user is made: that is for the administrator). When that user cannot
 * enter DATA_DIR (a checkout under /root), a new cluster goes to /var/lib/syncsets or /var/tmp/syncsets and DATA_DIR gets a link.
 */
export async function findPlace(files: Files): Promise<Place> {
  const root = process.getuid?.() === 0;
  if (await exists(files.cluster)) {
    const cluster = await realpath(files.cluster);
    const { uid, gid } = await stat(cluster);
    return { cluster, base: dirname(cluster), account: root ? { uid, gid } : undefined };
  }
  const dangling = await lstat(files.cluster).catch(() => undefined);
  if (dangling)
    throw new Error(
      `${files.cluster} is a link to a database that is gone; bring it back, or remove the link to start empty`,
    );
  const account = root ? await unprivileged() : undefined;
  if (!account || (await mayUse(account, '-x', files.dataDir))) {
    const base = await realpath(files.dataDir);
    return { cluster: join(base, 'postgres'), base, account };
  }
  for (const base of elsewhere)
    if (await mine(base, account))
      return { cluster: join(base, `postgres-${randomBytes(4).toString('hex')}`), base, account };
  throw new Error(
    `The embedded database cannot run as root, and its user (uid ${account.uid}) can enter neither ${files.dataDir} nor ` +
      `${elsewhere.join(' nor ')}. Set DATA_DIR to a directory that others may enter, or DATABASE_URL to a Postgres.`,
  );
}

/**
 * Makes a new cluster: about 1 s. It is made beside its place and moved there, so that neither an interrupted initdb nor two
 * processes at once leave a half one; who comes second takes the first one's.
 *
 * @returns the place that counts from now on
 */
export async function makeCluster(files: Files, place: Place, binaries: Binaries, password: string): Promise<Place> {
  await removeAbandoned(place.base);
  const staging = await mkdtemp(join(place.base, '.initdb-'));
  try {
    const passwordFile = join(staging, 'password');
    await writeFile(passwordFile, password, { mode: 0o600 });
    if (place.account)
      for (const path of [staging, passwordFile]) await chown(path, place.account.uid, place.account.gid);
    await initdb(binaries, join(staging, 'cluster'), passwordFile, place.account);
    // Moving onto a cluster that is there fails: a directory that is not empty, or a link, is not replaced.
    await rename(join(staging, 'cluster'), place.cluster);
    if (place.cluster !== join(await realpath(files.dataDir), 'postgres')) await symlink(place.cluster, files.cluster);
  } catch (error) {
    if (!['EEXIST', 'ENOTEMPTY', 'ENOTDIR'].includes(codeOf(error))) throw error;
    if (codeOf(error) === 'EEXIST' && (await realpath(files.cluster)) !== place.cluster)
      await rm(place.cluster, { recursive: true, force: true });
  } finally {
    await rm(staging, { recursive: true, force: true });
  }
  return findPlace(files);
}

/** Sets the superuser's password with no server running: for a cluster whose password file was lost. */
export async function resetPassword(place: Place, binaries: Binaries, password: string): Promise<void> {
  const single = run(binaries.postgres, ['--single', '-D', place.cluster, 'postgres'], {
    ...place.account,
    cwd: '/',
    env: environment,
  });
  single.child.stdin?.end(`alter role ${USER} password '${password}'\n`);
  await single;
}

async function initdb(
  binaries: Binaries,
  cluster: string,
  passwordFile: string,
  account: Account | undefined,
): Promise<void> {
  // The built-in locale sorts by code point on every machine, whatever locales it has. Checksums are on by default (18).
  const options = ['--pgdata', cluster, '--username', USER, '--pwfile', passwordFile, '--auth', 'scram-sha-256'];
  const locale = ['--encoding', 'UTF8', '--locale', 'C', '--locale-provider', 'builtin', '--builtin-locale', 'C.UTF-8'];
  await run(binaries.initdb, [...options, ...locale], { ...account, cwd: '/', env: environment }).catch(
    (error: unknown) => {
      const said = error instanceof Error && 'stderr' in error ? String(error.stderr).trim() : '';
      throw new Error(
        `The embedded database cannot be made: ${said || String(error)}. Set DATABASE_URL to a Postgres 15 or newer to do without it.`,
        { cause: error },
      );
    },
  );
}

async function unprivileged(): Promise<Account> {
  for (const name of ['postgres', 'nobody']) {
    const id = async (flag: string) => Number((await run('id', [flag, name])).stdout);
    const account = await Promise.all([id('-u'), id('-g')]).catch(() => undefined);
    if (account?.[0]) return { uid: account[0], gid: account[1] };
  }
  throw new Error(
    'The embedded database cannot run as root, and there is neither a user postgres nor nobody. ' +
      'Start as another user, or set DATABASE_URL to a Postgres 15 or newer.',
  );
}

/** Makes a directory of root that the account can enter. One that somebody else made first is not trusted. */
async function mine(path: string, account: Account): Promise<boolean> {
  try {
    await mkdir(path).then(
      () => chmod(path, 0o755),
      (error: unknown) => {
        if (codeOf(error) !== 'EEXIST') throw error;
      },
    );
    const found = await lstat(path);
    return found.isDirectory() && found.uid === 0 && (await mayUse(account, '-x', path));
  } catch {
    return false;
  }
}

/** Removes what an initdb left that was killed; ten minutes old, so never one that still runs. */
async function removeAbandoned(base: string): Promise<void> {
  for (const name of await readdir(base)) {
    if (!name.startsWith('.initdb-')) continue;
    const path = join(base, name);
    const made = await stat(path).catch(() => undefined);
    if (made && Date.now() - made.mtimeMs > 600_000) await rm(path, { recursive: true, force: true });
  }
}
