import { Counter, Gauge, Histogram, type Registry } from 'prom-client';

/** What a worker counts, under the names of controller-runtime and client-go where they have one. */
export interface WorkerMetrics {
  /** A key was claimed. */
  added(): void;
  result(result: 'success' | 'error' | 'requeue_after', seconds: number): void;
  terminalError(): void;
  retry(): void;
  timeout(): void;
  lost(count: number): void;
}

/** What a worker shows when metrics are asked for. */
export interface WorkerGauges {
  controller: string;
  slots: number;
  /** Keys being worked on. */
  active(): number;
  /** Runs over their deadline that have not ended. */
  hung(): number;
  /** Seconds of all unfinished runs together, and of the longest. */
  unfinished(): { total: number; longest: number };
}

/** What is read off each worker at a scrape: name, help, the label with the controller's name, value. */
const gauges: [name: string, help: string, label: 'controller' | 'name', value: (one: WorkerGauges) => number][] = [
  [
    'syncsets_hung_reconciles',
    'Reconciliations over their deadline that have not ended',
    'controller',
    one => one.hung(),
  ],
  ['controller_runtime_active_workers', 'Keys being worked on', 'controller', one => one.active()],
  [
    'controller_runtime_max_concurrent_reconciles',
    'Keys that this process works on at once at most',
    'controller',
    one => one.slots,
  ],
  [
    'workqueue_unfinished_work_seconds',
    'Seconds of all unfinished reconciliations together',
    'name',
    one => one.unfinished().total,
  ],
  [
    'workqueue_longest_running_processor_seconds',
    'Seconds of the longest unfinished reconciliation',
    'name',
    one => one.unfinished().longest,
  ],
];

/** The metrics of a process's controllers. */
export class Metrics {
  readonly #total;
  readonly #errors;
  readonly #terminal;
  readonly #timeouts;
  readonly #seconds;
  readonly #work;
  readonly #panics;
  readonly #adds;
  readonly #retries;
  readonly #lost;
  readonly #requests;
  readonly #gauges: WorkerGauges[] = [];

  constructor(register: Registry) {
    const registers = [register];
    const counter = <L extends string>(name: string, help: string, ...labelNames: L[]) =>
      new Counter<L>({ name, help, labelNames, registers });
    this.#total = counter(
      'controller_runtime_reconcile_total',
      'Reconciliations by result: success, error, requeue_after',
      'controller',
      'result',
    );
    this.#errors = counter('controller_runtime_reconcile_errors_total', 'Reconciliations that failed', 'controller');
    this.#terminal = counter(
      'controller_runtime_terminal_reconcile_errors_total',
      'Reconciliations that failed until their object changes',
      'controller',
    );
    this.#timeouts = counter(
      'controller_runtime_reconcile_timeouts_total',
      'Reconciliations over their deadline',
      'controller',
    );
    this.#panics = counter(
      'controller_runtime_reconcile_panics_total',
      'Errors that code of a reconciliation left for nobody to catch; no controller: not known whose',
      'controller',
    );
    this.#panics.inc({ controller: '' }, 0);
    this.#adds = counter('workqueue_adds_total', 'Keys that this process claimed', 'name');
    this.#retries = counter('workqueue_retries_total', 'Keys that are tried again after an error', 'name');
    this.#lost = counter(
      'syncsets_claims_lost_total',
      'Claims that were lost before their result was reported',
      'controller',
    );
    this.#requests = counter(
      'rest_client_requests_total',
      'Requests to the API, each attempt: status, <error> without an answer',
      'code',
      'method',
      'host',
    );
    this.#seconds = new Histogram({
      name: 'controller_runtime_reconcile_time_seconds',
      help: 'Length of reconciliations',
      labelNames: ['controller'],
      buckets: [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60],
      registers,
    });
    this.#work = new Histogram({
      name: 'workqueue_work_duration_seconds',
      help: 'Time from the claim of a key to its result',
      labelNames: ['name'],
      buckets: [0.001, 0.01, 0.1, 1, 10, 60, 600],
      registers,
    });
    for (const [name, help, label, value] of gauges) {
      const shown = this.#gauges;
      new Gauge({
        name,
        help,
        labelNames: [label],
        registers,
        collect() {
          for (const one of shown) this.set({ [label]: one.controller }, value(one));
        },
      });
    }
  }

  /** The metrics of one worker; its labels are resolved once, not at each result. */
  of(gauges: WorkerGauges): WorkerMetrics {
    this.#gauges.push(gauges);
    const { controller } = gauges;
    const totals = {
      success: this.#total.labels({ controller, result: 'success' }),
      error: this.#total.labels({ controller, result: 'error' }),
      requeue_after: this.#total.labels({ controller, result: 'requeue_after' }),
    };
    const errors = this.#errors.labels({ controller });
    const adds = this.#adds.labels({ name: controller });
    const retries = this.#retries.labels({ name: controller });
    const seconds = this.#seconds.labels({ controller });
    const terminal = this.#terminal.labels({ controller });
    const timeouts = this.#timeouts.labels({ controller });
    const lost = this.#lost.labels({ controller });
    const work = this.#work.labels({ name: controller });
    // Shown from the beginning: a counter that appears with its first increment hides that increment from rate().
    for (const one of [...Object.values(totals), errors, adds, retries, terminal, timeouts, lost]) one.inc(0);
    this.#panics.inc({ controller }, 0);
    this.#seconds.zero({ controller });
    this.#work.zero({ name: controller });
    return {
      added: () => adds.inc(),
      result: (result, taken) => {
        totals[result].inc();
        seconds.observe(taken);
        work.observe(taken);
        if (result === 'error') errors.inc();
      },
      terminalError: () => terminal.inc(),
      retry: () => retries.inc(),
      timeout: () => timeouts.inc(),
      lost: count => lost.inc(count),
    };
  }

  /** An attempt of a call to the API. */
  request({ code, method, host }: { code: string; method: string; host: string }): void {
    this.#requests.inc({ code, method, host });
  }

  /** An error that nobody caught; `controller` is empty where it is not known whose it was. */
  uncaught(controller: string): void {
    this.#panics.inc({ controller });
  }
}
