import { writeFileSync } from 'node:fs';
import { relative } from 'node:path';
import { format } from 'node:util';
import Mocha from 'mocha';

/** What one mocha process says of the files that it ran. */
export interface PartReport {
  /** False in what a process leaves that did not get to its end. */
  complete: boolean;
  passed: number;
  failed: number;
  pending: number;
  /** The failures as mocha lists them, with the numbers that they have in the output; '' when there are none. */
  failures: string;
  /** Wall-clock seconds that each file took, its hooks included. */
  seconds: Record<string, number>;
}

const { Base, Spec } = Mocha.reporters;

/**
 * Mocha's reporter `spec`, whose closing summary goes to a file (`--reporter-option output=FILE`, a PartReport), because the run
 * has one summary for all of its processes; as far as it has come, after every suite and failure, should the process be killed.
 */
export default class PartReporter extends Spec {
  readonly #output: string;
  readonly #seconds: Record<string, number> = {};

  constructor(runner: Mocha.Runner, options: Mocha.MochaOptions) {
    super(runner, options);
    const { output } = (options.reporterOptions ?? {}) as { output?: unknown };
    if (typeof output !== 'string') throw new Error('say where the report goes: --reporter-option output=FILE');
    this.#output = output;
    let last = performance.now();
    // Between the ends of two suites of the top lies all that the later one took.
    runner.on(Mocha.Runner.constants.EVENT_SUITE_END, suite => {
      if (suite.root || suite.parent?.root !== true) return;
      const file = relative(process.cwd(), suite.file ?? '');
      this.#seconds[file] = (this.#seconds[file] ?? 0) + (performance.now() - last) / 1_000;
      last = performance.now();
      this.#write(false);
    });
    runner.on(Mocha.Runner.constants.EVENT_TEST_FAIL, () => this.#write(false));
  }

  override epilogue(): void {
    this.#write(true);
  }

  #write(complete: boolean): void {
    const lines: string[] = [];
    const print = Base.consoleLog;
    try {
      Object.assign(Base, { consoleLog: (...line: unknown[]) => lines.push(format(...line)) });
      if (this.failures.length > 0) Base.list(this.failures);
    } finally {
      Object.assign(Base, { consoleLog: print });
    }
    const report: PartReport = {
      complete,
      passed: this.stats.passes,
      failed: this.stats.failures,
      pending: this.stats.pending,
      failures: lines.join('\n'),
      seconds: this.#seconds,
    };
    writeFileSync(this.#output, JSON.stringify(report));
  }
}
