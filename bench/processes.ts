import { fork, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

export const root = join(import.meta.dirname, '..');

/** How long a process may take to be ready, and to end when asked, in ms. */
const startTime = 60_000;
const endTime = 15_000;

/** A server in a process of its own. */
export interface Service {
  url: string;
  pid: number;
  /** Asks it to end and waits; kills it when it does not. May be called again. */
  stop(): Promise<void>;
  /** Ends it as a crash would. */
  kill(): Promise<void>;
}

/**
 * Starts a program that says `ready: URL` in a line of its own when it answers.
 * @param args of node: options, script, its arguments
 * @throws Error with the last lines that it wrote when it ends instead, or takes longer than a minute
 */
export async function startService(args: string[], env: Record<string, string>): Promise<Service> {
  const child = spawn(process.execPath, args, {
    cwd: root,
    env: { PATH: process.env['PATH'] ?? '', HOME: process.env['HOME'] ?? '', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const said: string[] = [];
  const ready = new Promise<string>((resolve, reject) => {
    const failed = (what: string) => reject(new Error(`${args.join(' ')} ${what}:\n${said.join('\n')}`));
    for (const stream of [child.stdout, child.stderr]) {
      createInterface({ input: stream }).on('line', line => {
        if (line.startsWith('ready: ')) resolve(line.slice('ready: '.length));
        said.push(line);
        if (said.length > 20) said.shift();
      });
    }
    child.once('exit', code => failed(`ended with ${String(code)}`));
    child.once('error', error => failed(error.message));
    setTimeout(() => failed('is not ready after a minute'), startTime).unref();
  });
  try {
    return {
      url: await ready,
      pid: child.pid ?? 0,
      stop: () => end(child, 'SIGTERM'),
      kill: () => end(child, 'SIGKILL'),
    };
  } catch (error) {
    await end(child, 'SIGKILL');
    throw error;
  }
}

/** A part of the bench in a process of its own: takes jobs, one at a time, and answers each. */
export class Assistant {
  readonly #child: ChildProcess;

  /** @param script of this room; it serves jobs with `serveJobs` */
  constructor(script: string, execArgv: string[] = []) {
    this.#child = fork(join(import.meta.dirname, script), [], {
      cwd: root,
      execArgv: [...execArgv, '--enable-source-maps', '--import', 'tsx'],
    });
  }

  /** Does one job. The caller knows what the job's kind is answered with. @throws Error what the job failed with */
  async ask<Answer>(job: unknown): Promise<Answer> {
    const over = new AbortController();
    try {
      const answer = once(this.#child, 'message', { signal: over.signal });
      const lost = once(this.#child, 'exit', { signal: over.signal }).then(() => {
        throw new Error('a process of the bench ended in the middle of its job');
      });
      this.#child.send(job as object);
      const [reply] = (await Promise.race([answer, lost])) as [{ answer: Answer } | { error: string }];
      if ('error' in reply) throw new Error(reply.error);
      return reply.answer;
    } finally {
      over.abort();
    }
  }

  stop(): Promise<void> {
    return end(this.#child, 'SIGTERM');
  }

  /** Ends it as a crash would. */
  kill(): Promise<void> {
    return end(this.#child, 'SIGKILL');
  }
}

/** The other side of an Assistant, which ends with the process that it serves; both know what the jobs are. */
export function serveJobs(work: (job: never) => Promise<unknown>): void {
  process.on('message', job => {
    work(job as never).then(
      answer => process.send?.({ answer }),
      (error: unknown) =>
        process.send?.({ error: error instanceof Error ? (error.stack ?? error.message) : String(error) }),
    );
  });
  process.once('disconnect', () => process.exit());
}

async function end(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, 'exit');
  child.kill(signal);
  const late = setTimeout(() => child.kill('SIGKILL'), endTime);
  await ended;
  clearTimeout(late);
}
