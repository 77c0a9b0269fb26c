import { cpus, loadavg, totalmem } from 'node:os';
import { backlog } from './backlog.js';
import { batch } from './batch.js';
import { bulk } from './bulk.js';
import { create } from './create.js';
import { deletion } from './deletion.js';
import { enqueue } from './enqueue.js';
import { get } from './get.js';
import { lists } from './lists.js';
import { heaviest, profilesIn } from './profile.js';
import type { Measure, Program } from './program.js';
import { reaction } from './reaction.js';
import { reconcile } from './reconcile.js';
import { relay } from './relay.js';
import { scaling } from './scaling.js';
import { Stage, type StageOptions } from './stage.js';
import { start } from './start.js';
import { show, table } from './table.js';
import { takeover } from './takeover.js';
import { watch } from './watch.js';
import { watchers } from './watchers.js';

// `make bench`: measures what we promise, and beside it, in the same run, what others reach. One program is one promise.
//
//   BENCH=create,get   these alone (or their names as arguments)
//   BENCH_SECONDS=6    length of one measurement
//   BENCH_WATCHERS=1000 connections of the program watchers
//   BENCH_BACKLOG=1000000 queued keys of the program backlog
//   BENCH_PROFILE=DIR  our processes write CPU profiles there, and the heaviest functions are listed
//   DATABASE_URL       a Postgres to use, with the right to create databases; else an embedded one
//   KUBECONFIG         an API server to compare with: its resource things.bench.syncsets.dev is made and removed

const programs: Program[] = [
  create,
  batch,
  bulk,
  get,
  lists,
  deletion,
  watch,
  watchers,
  reconcile,
  reaction,
  backlog,
  scaling,
  enqueue,
  takeover,
  relay,
  start,
];

async function main(): Promise<void> {
  const names = process.argv
    .slice(2)
    .flatMap(argument => argument.split(/[\s,]+/))
    .filter(Boolean);
  const unknown = names.filter(name => !programs.some(program => program.name === name));
  if (unknown.length > 0) {
    const list = programs.map(({ name, about }) => `  ${name.padEnd(10)} ${about}`).join('\n');
    throw new Error(`There is no program ${unknown.join(', ')}. There are:\n${list}`);
  }
  const seconds = Number(process.env['BENCH_SECONDS'] ?? 6);
  if (!(seconds > 0)) throw new Error('BENCH_SECONDS must be a number of seconds');
  const { DATABASE_URL: databaseUrl, KUBECONFIG: kubeconfig, BENCH_PROFILE: profileDir } = process.env;

  const [cpu] = cpus();
  const load = loadavg()[0] ?? 0;
  say(
    `${cpus().length} x ${cpu?.model ?? 'unknown'}, ${Math.round(totalmem() / 2 ** 30)} GiB, Node ${process.version}`,
  );
  if (load > 1) say(`The load of this machine is ${load.toFixed(1)}: figures will be worse than they could be.`);

  const results: { program: string; measure: Measure }[] = [];
  for (const program of programs) {
    if (interrupted) return;
    if (names.length > 0 && !names.includes(program.name)) continue;
    const options: StageOptions = {
      databaseUrl: databaseUrl || undefined,
      kubeconfig: kubeconfig || undefined,
      seconds,
      profileDir: profileDir || undefined,
      say: text => say(`${program.name}: ${text}`),
    };
    results.push(...(await perform(program, options)).map(measure => ({ program: program.name, measure })));
  }
  if (!interrupted) console.log(`\n${table(results)}`);
}

/** Runs one program on a stage of its own; one that fails leaves the others their turn. */
async function perform(program: Program, options: StageOptions): Promise<Measure[]> {
  const { profileDir } = options;
  const before = new Set(profileDir === undefined ? [] : profilesIn(profileDir));
  const stage = (current = new Stage(options));
  try {
    const measures = await program.run(stage);
    for (const { what, unit, ours } of measures) stage.say(`${what}: ${show(ours, unit)}`);
    return measures;
  } catch (error) {
    if (!interrupted) {
      process.exitCode = 1;
      say(`${program.name} failed: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
    }
    return [];
  } finally {
    await stage.stop();
    for (const file of profileDir === undefined ? [] : profilesIn(profileDir)) {
      if (before.has(file)) continue;
      const { busy, lines } = heaviest(file, stage.windows);
      say([`${file}, ${Math.round(busy * 100)} % busy`, ...lines].join('\n'));
    }
  }
}

function say(text: string): void {
  process.stderr.write(`${text}\n`);
}

let current: Stage | undefined;
let interrupted = false;
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    interrupted = true;
    process.exitCode = 130;
    // The program fails when what it runs on is gone.
    current?.stop().catch((error: unknown) => say(String(error)));
  });
}
main().catch((error: unknown) => {
  say(error instanceof Error ? error.message : String(error));
  process.exitCode = 1;
});
