import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Client } from '../client/index.js';
import type { TestProcess } from './platform.js';
import { program } from './program.js';
import { until } from './until.js';

const root = join(import.meta.dirname, '..');

/** A role in a process of its own, ready or not. */
export interface Started {
  child: ChildProcess;
  output: string[];
  errors: string[];
  /** Its exit code, once it has ended. */
  ended: Promise<number | null>;
}

/** Starts a role that may not become ready. */
export function begin(role: string, env: Record<string, string>): Started {
  const child = spawn(process.execPath, [...program, role], {
    cwd: root,
    env: { PATH: process.env['PATH'] ?? '', PORT: '0', LOG_FORMAT: 'json', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const output: string[] = [];
  const errors: string[] = [];
  createInterface({ input: child.stdout }).on('line', line => output.push(line));
  createInterface({ input: child.stderr }).on('line', line => errors.push(line));
  // 'close' and not 'exit': then all it has said has been read.
  return { child, output, errors, ended: once(child, 'close').then(([code]) => code as number | null) };
}

/** Stops a platform that was ready; returns its exit code. */
export async function stopped(platform: TestProcess, signal: 'SIGINT' | 'SIGTERM' = 'SIGTERM'): Promise<number | null> {
  await platform.end(signal);
  return platform.process.exitCode;
}

/** The log lines of a process with a message. */
export function said(output: string[], message: string | RegExp): Record<string, unknown>[] {
  return output
    .filter(line => line.startsWith('{'))
    .map(line => JSON.parse(line) as Record<string, unknown>)
    .filter(({ msg }) => (typeof message === 'string' ? msg === message : message.test(String(msg))));
}

/** The HTTP status of a GET. */
export const status = async (url: string, path: string) => (await fetch(url + path)).status;

/** Creates a cluster whose kubeconfig is none, and waits until the controller has seen it. */
export async function createAndWait(client: Client, name: string): Promise<void> {
  await client.clusters.create({ name, namespace: 'foo', kubeconfig: 'foobar' });
  await until(
    async () => {
      const { status: seen } = await client.clusters.read({ namespace: 'foo', name });
      return seen?.conditions?.some(({ reason }) => reason === 'KubeconfigInvalid');
    },
    { what: `the controller to look at ${name}`, deadline: 15_000 },
  );
}
