import { Histogram, type Metric } from 'prom-client';
import type { ClaimedKey } from '../db/index.js';

/** How long keys wait for a worker, by controller, under controller-runtime's name; of the claims that this process answered. */
export class QueueMetrics {
  readonly #waited = new Histogram({
    name: 'workqueue_queue_duration_seconds',
    help: 'Time that keys were queued until a worker claimed them',
    labelNames: ['name'],
    // From a wake-up at once to a backlog of hours.
    buckets: [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60, 600, 3_600],
    registers: [],
  });

  get all(): Metric[] {
    return [this.#waited];
  }

  /** Keys of a controller were claimed. */
  claimed(name: string, keys: ClaimedKey[]): void {
    for (const { age } of keys) this.#waited.observe({ name }, age);
  }
}
