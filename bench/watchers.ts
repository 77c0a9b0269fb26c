import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import type { Endpoint, Template } from './load.js';
import { labels } from './objects.js';
import { startService, type Service } from './processes.js';
import type { Program } from './program.js';

/** Connections; 10,000 show what the promise of 1 GB is about, and need `ulimit -n 12000` or more. */
const connections = Number(process.env['BENCH_WATCHERS'] ?? 1_000);
/** Events that are under way at once: about what 64 busy clients have. */
const inFlight = 128;
/** Events that the reference writes at once. */
const together = 32;

/** What watchers-process.ts is asked for. */
export type WatchersJob =
  | { kind: 'open'; endpoint: Endpoint; path: string; count: number }
  | { kind: 'run'; template: Template; eventsEach: number; inFlight: number; warmupSeconds: number; seconds: number };

/** What came to all connections together, lines per second, and the mean bytes of one. */
export interface Delivered {
  rate: number;
  lineBytes: number;
}

/**
 * One process that hands each event to a thousand watchers: how many deliveries a second, when the next objects are created as soon
 * as everybody has the last ones; and what its connections cost in memory. The reference is a server of node:http that has the
 * bytes of 32 events ready and writes them to each connection at once.
 */
export const watchers: Program = {
  name: 'watchers',
  about: 'one event to a thousand watchers, and the memory of their connections',
  async run(stage) {
    const measure = async (name: string, service: Service, path: string, template: Template, eventsEach: number) => {
      stage.say(`${name}: ${connections} connections`);
      const process = stage.assistant('watchers-process.ts');
      const before = await memory(service.pid);
      await process.ask({ kind: 'open', endpoint: service, path, count: connections } satisfies WatchersJob);
      const after = await memory(service.pid);
      const { warmupSeconds, seconds } = stage;
      const job: WatchersJob = { kind: 'run', template, eventsEach, inFlight, warmupSeconds, seconds };
      const delivered = await process.ask<Delivered>(job);
      const busy = await memory(service.pid);
      await process.stop();
      await service.stop();
      return { ...delivered, each: (after - before) / connections, busy };
    };
    const create: Template = {
      method: 'POST',
      path: '/v1/clusters',
      body: JSON.stringify({ name: '{name}', namespace: 'bench', labels }),
    };
    const ours = await measure('ours', await stage.api(), '/v1/clusters?watch=true', create, 1);
    const plain = await stage.own(() =>
      startService(['--import', 'tsx', 'bench/reference/stream.ts', String(ours.lineBytes), String(together)], {}),
    );
    const publish: Template = { method: 'POST', path: '/', body: '' };
    const theirs = await measure('node:http with ready bytes', plain, '/', publish, together);
    const name = 'node:http, ready bytes';
    return [
      {
        what: `deliveries, ${connections} watchers`,
        unit: '1/s',
        ours: { value: ours.rate },
        target: { atLeast: 250_000 },
        references: [{ name, figure: { value: theirs.rate } }],
      },
      {
        what: 'memory of 1,000 watchers',
        unit: 'MB',
        ours: { value: ours.each * 1_000 },
        references: [{ name, figure: { value: theirs.each * 1_000 } }],
      },
      {
        what: `the process, ${connections} watchers`,
        unit: 'MB',
        ours: { value: ours.busy },
        target: { atMost: 1_000 },
        references: [{ name, figure: { value: theirs.busy } }],
      },
    ];
  },
};

/** Resident memory of a process in MB. */
async function memory(pid: number): Promise<number> {
  const { stdout } = await promisify(execFile)('ps', ['-o', 'rss=', '-p', String(pid)]);
  return Number(stdout) / 1_000;
}
