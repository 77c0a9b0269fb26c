import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join, normalize } from 'node:path';

const root = join(import.meta.dirname, '..');

/** Not ours, or made from ours. */
const skipped = /^(node_modules|dist|build|\..*|client\/generated)$/;

/** Seconds that the longer files took when they were last written down; see test/seconds.json. */
export const seconds = JSON.parse(readFileSync(join(root, 'test/seconds.json'), 'utf8')) as Record<string, number>;

/** What a file counts that is not in test/seconds.json. */
const unknown = 1;

/**
 * Files that run after all others and one at a time, because what they look at is how long something takes or what else runs:
 * beside other tests they would show how busy the machine is.
 */
export const alone: readonly string[] = [
  'client/events.test.ts', // changes go on within 2 s without the broker
  'controllers/runtime/process.test.ts', // a task within 8 s of kill -9
  'controllers/runtime/queue.test.ts', // work goes on within 2.5 s without the broker
  'test/chaos/chaos.test.ts', // frozen for less than a lease is not lost; at least so many runs and faults in the time
  'test/outages.test.ts', // a bulk load over outages of database and broker
  'test/protection.test.ts', // others answered within a second under attack
  'test/relay.test.ts', // taken over within 2 s of kill -9; memory while it catches up
];

/**
 * The test files of these paths relative to the root (a folder stands for all in it); all files of the tree when none is given.
 *
 * @throws Error when a path does not exist or holds no test
 */
export function testFiles(paths: string[]): string[] {
  const found = (paths.length === 0 ? ['.'] : paths).flatMap(path => {
    if (!statSync(join(root, path)).isDirectory()) return [normalize(path)];
    const files = below(normalize(path));
    if (files.length === 0) throw new Error(`no tests in ${path}`);
    return files;
  });
  return [...new Set(found)].sort();
}

function below(folder: string): string[] {
  return readdirSync(join(root, folder), { withFileTypes: true }).flatMap(entry => {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return skipped.test(path) ? [] : below(path);
    return path.endsWith('.test.ts') ? [path] : [];
  });
}

/**
 * Shares files out to so many parts that take about as long as each other: the longest first, each to the part that has the least
 * until then. Parts without a file are left out.
 */
export function share(files: string[], parts: number): string[][] {
  const weight = (file: string) => seconds[file] ?? unknown;
  const shares = Array.from({ length: parts }, () => ({ files: [] as string[], seconds: 0 }));
  for (const file of [...files].sort((a, b) => weight(b) - weight(a))) {
    const least = shares.reduce((best, one) => (one.seconds < best.seconds ? one : best));
    least.files.push(file);
    least.seconds += weight(file);
  }
  return shares.map(one => one.files.sort()).filter(one => one.length > 0);
}
