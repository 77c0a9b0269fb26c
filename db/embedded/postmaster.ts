import { execFile } from 'node:child_process';
import { readdir, readFile, readlink, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { codeOf } from './files.js';

const run = promisify(execFile);

/** What `postmaster.pid` in a cluster says (its lines: PostgreSQL source, `miscadmin.h`, LOCK_FILE_LINE_…). */
export interface Postmaster {
  pid: number;
  port: number;
  /** When it was started, seconds of the epoch. */
  since: number;
  /** starting, stopping, ready, standby; empty until the server writes it */
  status: string;
}

/** The server that a cluster's pid file names, alive or not; undefined without a file or while it is being written. */
export async function readPostmaster(cluster: string): Promise<Postmaster | undefined> {
  const text = await readFile(join(cluster, 'postmaster.pid'), 'utf8').catch((error: unknown) => {
    if (codeOf(error) === 'ENOENT') return '';
    throw error;
  });
  const lines = text.split('\n');
  // Negative: a single-user backend, which has no port.
  const pid = Math.abs(Number(lines[0]));
  return pid > 0 ? { pid, port: Number(lines[3]), since: Number(lines[2]), status: lines[7]?.trim() ?? '' } : undefined;
}

/**
 * Whether a process is the server of a cluster. A pid alone proves nothing: after a crash, and surely after a restart of a
 * container, the number may be somebody else's. The server's command line names the cluster (`-D`).
 */
export async function isPostmaster(pid: number, cluster: string): Promise<boolean> {
  if (!isAlive(pid)) return false;
  const command =
    process.platform === 'linux'
      ? await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')
      : await run('ps', ['-ww', '-o', 'command=', '-p', String(pid)]).then(
          result => result.stdout,
          () => '',
        );
  return command.includes('postgres') && command.includes(cluster);
}

/**
 * Removes a pid file whose number now belongs to another program, which makes Postgres believe that its server runs. With a
 * dead number the file stays: Postgres reads in it which shared memory to look at before it takes over.
 */
export async function dropReusedPidFile(pid: number, cluster: string): Promise<void> {
  if (isAlive(pid)) await rm(join(cluster, 'postmaster.pid'), { force: true });
}

/**
 * Removes a pid file that is still empty after a second: a server fills it at once, so it is what a power cut left, and
 * Postgres refuses to start on it. @returns true
 */
export async function dropEmptyPidFile(cluster: string): Promise<true> {
  const path = join(cluster, 'postmaster.pid');
  await sleep(1_000);
  const size = await stat(path).then(
    found => found.size,
    () => 1,
  );
  if (size === 0) await rm(path, { force: true });
  return true;
}

/** Stops a server that is not our child: fast shutdown, after 20 s an immediate one (the next start then recovers). */
export async function stopPostmaster(pid: number, cluster: string): Promise<void> {
  for (const signal of ['SIGINT', 'SIGQUIT', 'SIGKILL'] as const) {
    if (!(await isPostmaster(pid, cluster))) return;
    kill(pid, signal);
    for (let waited = 0; waited < 20_000; waited += 10) {
      if (!(await isPostmaster(pid, cluster))) return;
      await sleep(10);
    }
  }
  throw new Error(`The embedded database's old server (process ${pid}) does not stop; end it, then start again`);
}

/**
 * Ends what a killed server left behind: its backends see within moments that it is gone, but one in the middle of a long
 * statement does not, and keeps the shared memory in use. Found by their working directory, which is the cluster; without
 * /proc they can only be waited for. @returns true
 */
export async function endLeftovers(cluster: string): Promise<true> {
  for (const name of await readdir('/proc').catch(() => [])) {
    if (!/^\d+$/.test(name)) continue;
    if ((await readlink(`/proc/${name}/cwd`).catch(() => '')) !== cluster) continue;
    kill(Number(name), 'SIGKILL');
  }
  await sleep(500);
  return true;
}

/** Sends a signal to a process that may have ended in this moment. */
function kill(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if (codeOf(error) !== 'ESRCH') throw error;
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return codeOf(error) === 'EPERM';
  }
}
