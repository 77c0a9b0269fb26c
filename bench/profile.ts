import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Window } from './stage.js';

/** What is read of a file that V8 writes: times in microseconds, `startTime` on the clock of `now()`. */
interface CpuProfile {
  nodes: { id: number; callFrame: { functionName: string; url: string; lineNumber: number } }[];
  startTime: number;
  samples: number[];
  timeDeltas: number[];
}

/** The functions of a process that took most time themselves, `part` of the busy time each. */
export function heaviest(file: string, windows: Window[], count = 15): { busy: number; lines: string[] } {
  // Written by the node that runs this, in its own format.
  const { nodes, samples, timeDeltas, startTime } = JSON.parse(readFileSync(file, 'utf8')) as CpuProfile;
  const functions = new Map<number, string>();
  for (const { id, callFrame } of nodes) {
    const { functionName, url, lineNumber } = callFrame;
    const place = url === '' ? '' : ` ${url.replace(/^.*\/(?=node_modules\/|dist\/)/, '')}:${lineNumber + 1}`;
    functions.set(id, `${functionName || '(anonymous)'}${place}`);
  }
  const own = new Map<string, number>();
  let at = startTime;
  let all = 0;
  for (const [turn, id] of samples.entries()) {
    at += timeDeltas[turn] ?? 0;
    const milliseconds = at / 1000;
    if (windows.length > 0 && !windows.some(({ from, to }) => milliseconds >= from && milliseconds < to)) continue;
    const name = functions.get(id) ?? '';
    all += timeDeltas[turn] ?? 0;
    own.set(name, (own.get(name) ?? 0) + (timeDeltas[turn] ?? 0));
  }
  const idle = own.get('(idle)') ?? 0;
  own.delete('(idle)');
  const busy = all - idle;
  const lines = [...own]
    .sort(([, a], [, b]) => b - a)
    .slice(0, count)
    .map(([name, time]) => `${((time * 100) / busy).toFixed(1).padStart(5)} %  ${name}`);
  return { busy: busy / all, lines };
}

/** The profiles in a directory. */
export function profilesIn(directory: string): string[] {
  return readdirSync(directory)
    .filter(name => name.endsWith('.cpuprofile'))
    .map(name => join(directory, name));
}
