import { Counter, Gauge, Histogram, Registry, collectDefaultMetrics, type Metric } from 'prom-client';
import type { BrokerState, Bus } from '../bus/index.js';
import { measureEventLog, summarizeWork, type Database } from '../db/index.js';

/** Keys of a controller and a state that are counted for a scrape: more than any autoscaler asks for. */
const counted = 10_000;

/** The metrics of one API process. */
export class Metrics {
  readonly #registry = new Registry();
  readonly #duration = new Histogram({
    name: 'apiserver_request_duration_seconds',
    help: 'Time to answer a request, without streams',
    labelNames: ['verb', 'code'],
    buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5],
    registers: [this.#registry],
  });
  readonly #countWork: () => Promise<void>;
  readonly #errors = new Counter({
    name: 'apiserver_metrics_errors_total',
    help: 'Times that the work in the database could not be counted for /metrics',
    registers: [this.#registry],
  });

  /** @param options.others metrics that are counted elsewhere, to be shown with these */
  constructor(options: { database: Database; bus: Bus; types: string[]; watchers: () => number; others: Metric[] }) {
    const { database, bus, types, watchers } = options;
    const registers = [this.#registry];
    collectDefaultMetrics({ register: this.#registry });
    for (const one of options.others) this.#registry.registerMetric(one);
    new Gauge({
      name: 'apiserver_watchers',
      help: 'Open watch connections',
      registers,
      collect() {
        this.set(watchers());
      },
    });
    if (bus.broker !== undefined) {
      const ofBroker = (name: string, help: string, value: (broker: BrokerState) => number) =>
        new Gauge({
          name,
          help,
          registers,
          collect() {
            if (bus.broker) this.set(value(bus.broker));
          },
        });
      ofBroker('syncsets_broker_connected', '1 while RabbitMQ answers', ({ state }) => (state === 'away' ? 0 : 1));
      ofBroker('syncsets_broker_blocked', '1 while RabbitMQ takes no messages: memory or disk is low', ({ state }) =>
        state === 'blocked' ? 1 : 0,
      );
      ofBroker(
        'syncsets_broker_topology_problems',
        'Exchanges and queues on RabbitMQ that others have declared differently, and queues that confirm nothing',
        ({ problems }) => problems,
      );
      ofBroker(
        'syncsets_broker_parked_messages',
        'Messages by foreign hands in the queue syncsets.parked, counted where work is led',
        ({ parked }) => parked,
      );
    }
    new Gauge({
      name: 'syncsets_relay_leader',
      help: '1 where this replica relays the events of the type',
      labelNames: ['type'],
      registers,
      collect() {
        for (const type of types) this.set({ type }, bus.relays(type) ? 1 : 0);
      },
    });
    const gauge = (name: string, help: string, labelNames = ['name']) =>
      new Gauge({ name, help, labelNames, registers });
    const depth = gauge('workqueue_depth', `Keys that wait for a worker, counted up to ${counted}`);
    const age = gauge('workqueue_oldest_age_seconds', 'Time that the oldest queued key has waited');
    const workers = gauge('workqueue_workers', 'Workers with a live lease; 0 with keys queued: nobody works on them');
    const failing = gauge('workqueue_failing', `Waiting keys whose last run failed, counted up to ${counted}`);
    const mapFailing = gauge(
      'workqueue_map_failing',
      '1 where the changes of a watched type could not be turned into keys at the last attempt',
      ['name', 'type'],
    );
    const byType = (name: string, help: string) => gauge(name, help, ['type']);
    const logEvents = byType('syncsets_event_log_events', 'Events of the type that can be read');
    const logBytes = byType('syncsets_event_log_bytes', 'Size of the event log of the type, indexes included');
    const logAge = byType('syncsets_event_log_age_seconds', 'How far back the event log of the type reaches');
    const logParts = byType('syncsets_event_log_partitions', 'Partitions of the event log of the type');
    const workLag = byType('syncsets_relay_work_lag_events', 'Events of which no work was made yet');
    const publishLag = byType('syncsets_relay_publish_lag_events', 'Events that RabbitMQ has not got yet');
    // Before the gauges are read, which are all read at once: one that counts for others would come too late for them.
    this.#countWork = async () => {
      // A database that is away must not take the other metrics along.
      const summaries = await summarizeWork(database, { limit: counted }).catch(() => undefined);
      const logs = await measureEventLog(database).catch(() => undefined);
      if (!summaries || !logs) this.#errors.inc();
      for (const one of [logEvents, logBytes, logAge, logParts, workLag, publishLag]) one.reset();
      for (const { type, ...log } of logs ?? []) {
        logEvents.set({ type }, log.events);
        logBytes.set({ type }, log.bytes);
        logAge.set({ type }, log.seconds ?? 0);
        logParts.set({ type }, log.partitions);
        workLag.set({ type }, log.workLag);
        // Without a broker nothing is published, and nothing waits to be.
        if (bus.broker !== undefined) publishLag.set({ type }, log.publishLag);
      }
      for (const one of [depth, age, workers, failing, mapFailing]) one.reset();
      for (const [name, work] of summaries ?? []) {
        depth.set({ name }, work.queued);
        age.set({ name }, work.oldestSeconds);
        workers.set({ name }, work.workers);
        failing.set({ name }, work.failing);
        for (const { type, lastError } of work.maps) mapFailing.set({ name, type }, lastError === null ? 0 : 1);
      }
    };
  }

  request(verb: string, code: number, seconds: number): void {
    this.#duration.observe({ verb, code }, seconds);
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  async text(): Promise<string> {
    await this.#countWork();
    return this.#registry.metrics();
  }
}
