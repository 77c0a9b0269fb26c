// Runs the tests, files side by side, and ends with one summary and the plain line that counts them:
// node --import tsx test/suite.ts [FILE…]
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import type { PartReport } from './partReporter.js';
import { alone, share, testFiles } from './parts.js';

const root = join(import.meta.dirname, '..');
const folder = mkdtempSync(join(tmpdir(), 'syncsets-suite-'));
let parts = 0;

/**
 * Runs files one after the other in a mocha process, which has a database server and a broker of its own. Of several processes each
 * prints a suite when it is complete.
 */
async function run(files: string[], beside: boolean): Promise<PartReport> {
  const part = ++parts;
  const output = join(folder, `${part}.json`);
  const mocha = join(root, 'node_modules/mocha/lib/cli/cli.js');
  const reporter = ['--reporter', join(root, 'test/partReporter.ts'), '--reporter-option', `output=${output}`];
  const args = ['--import', 'tsx', mocha, '--config', 'test/some.mocharc.json', ...reporter, ...files];
  const child = spawn(process.execPath, args, {
    cwd: root,
    env: { ...process.env, TEST_PART: String(part) },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const lines: string[] = [];
  const print = () => {
    if (lines.length > 0) process.stdout.write(`${lines.splice(0).join('\n')}\n`);
  };
  for (const stream of [child.stdout, child.stderr]) {
    createInterface({ input: stream }).on('line', line => {
      // mocha leaves a line empty after a suite.
      if (line !== '' || lines.length > 0 || !beside) lines.push(line);
      if (line === '' || !beside) print();
    });
  }
  const closed = once(child, 'close');
  const [code, signal] = (await once(child, 'exit')) as [number | null, NodeJS.Signals | null];
  // A killed mocha may leave a program that holds its output open.
  await Promise.race([closed, sleep(10_000, undefined, { ref: false })]);
  child.stdout.destroy();
  child.stderr.destroy();
  print();
  const report = existsSync(output) ? (JSON.parse(readFileSync(output, 'utf8')) as PartReport) : undefined;
  // mocha ends with the number of its failures.
  if (report?.complete && code === Math.min(report.failed, 255)) return report;
  // Ended in the middle of a test, or by what came after the last one: more than its own count says.
  const failed = (report?.failed ?? 0) + 1;
  const problem = `  The process of these files ended with ${signal ?? `code ${code ?? 'none'}`}:\n     ${files.join('\n     ')}\n`;
  return {
    complete: false,
    passed: 0,
    pending: 0,
    seconds: {},
    ...report,
    failed,
    failures: `${report?.failures ?? ''}\n${problem}`,
  };
}

/** How many files run at a time. */
function jobs(): number {
  const asked = process.env['TEST_JOBS'];
  if (asked !== undefined && asked !== '') {
    if (!/^[1-9]\d?$/.test(asked)) throw new Error(`TEST_JOBS is "${asked}" and not a number from 1 to 99`);
    return Number(asked);
  }
  // A broker that is given is one for all files, and they use the same queues.
  if (process.env['AMQP_URL']) return 1;
  // The tests wait more than they compute. Beyond eight the longest file is what the run takes.
  return Math.min(8, availableParallelism() + 1);
}

async function main(): Promise<void> {
  const begun = performance.now();
  const files = testFiles(process.argv.slice(2));
  const count = jobs();
  const last = count === 1 ? [] : files.filter(file => alone.includes(file));
  const shares = share(
    files.filter(file => !last.includes(file)),
    count,
  );
  // Ctrl-C reaches all processes of the terminal: those of the tests end, and this one says how far they came.
  const interruption = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => interruption.abort());
  const reports = await Promise.all(shares.map(one => run(one, shares.length > 1)));
  if (last.length > 0 && !interruption.signal.aborted) reports.push(await run(last, false));
  const total = (of: (report: PartReport) => number) => reports.reduce((sum, report) => sum + of(report), 0);
  const [passed, failed, pending] = [total(one => one.passed), total(one => one.failed), total(one => one.pending)];
  const time = (performance.now() - begun) / 1_000;
  console.log(`\n  ${passed} passing (${Math.floor(time / 60)}m ${Math.round(time % 60)}s)`);
  if (pending > 0) console.log(`  ${pending} pending`);
  if (failed > 0) console.log(`  ${failed} failing`);
  for (const { failures } of reports) if (failures !== '') console.log(failures);
  const times = process.env['TEST_SECONDS'];
  if (times) writeFileSync(times, JSON.stringify(Object.assign({}, ...reports.map(one => one.seconds))));
  console.log(`\n${passed} passed, ${failed} failed${pending > 0 ? `, ${pending} skipped` : ''}`);
  // A run without tests is a failed run.
  process.exitCode = passed > 0 && failed === 0 && !interruption.signal.aborted ? 0 : 1;
}

try {
  await main();
} finally {
  rmSync(folder, { recursive: true, force: true });
}
