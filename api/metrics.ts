import { Counter, Gauge, Histogram, Registry, collectDefaultMetrics, type Metric } from 'prom-client';
import type { BrokerState, Bus } from '../bus/index.js';
import {
  measureEventLog,
  summarizeWork,
  type Database,
  type EventLogSize,
  type Log,
  type MapSummary,
  type WorkSummary,
} from '../db/index.js';
import { reasonOf } from '../reason.js';

/** Keys of a controller and a state that are counted for a scrape: more than any autoscaler asks for. */
const counted = 10_000;

/** A gauge over rows: its name, what it says, and its value in a row; undefined: none. */
type Column<Row> = readonly [name: string, help: string, value: (row: Row) => number | undefined];

const ofBroker: Column<BrokerState>[] = [
  ['syncsets_broker_connected', '1 while RabbitMQ answers', ({ state }) => (state === 'away' ? 0 : 1)],
  [
    'syncsets_broker_blocked',
    '1 while RabbitMQ takes no messages: memory or disk is low',
    ({ state }) => (state === 'blocked' ? 1 : 0),
  ],
  [
    'syncsets_broker_topology_problems',
    'Exchanges and queues on RabbitMQ that others have declared differently, and queues that confirm nothing, of those that this replica looks after',
    ({ problems }) => problems,
  ],
  [
    'syncsets_broker_parked_messages',
    'Messages by foreign hands in the queue syncsets.parked; 0 at the replicas that do not lead the work',
    ({ parked }) => parked,
  ],
];

const ofWork: Column<WorkSummary>[] = [
  ['workqueue_depth', `Keys that wait for a worker, counted up to ${counted}`, ({ queued }) => queued],
  ['workqueue_claimed', `Keys that workers hold, counted up to ${counted}`, ({ claimed }) => claimed],
  [
    'workqueue_waiting',
    `Keys that wait for their time, failing and parked ones too, counted up to ${counted}`,
    ({ waiting }) => waiting,
  ],
  [
    'workqueue_failing',
    `Waiting keys whose last run failed and that are tried again, counted up to ${counted}`,
    ({ failing }) => failing,
  ],
  [
    'workqueue_parked',
    `Keys that wait for their object to change after a terminal error, counted up to ${counted}`,
    ({ parked }) => parked,
  ],
  [
    'workqueue_oldest_age_seconds',
    'Time that the oldest queued key has waited, of the next 1,000 of each priority',
    ({ oldestSeconds }) => oldestSeconds,
  ],
  [
    'workqueue_workers',
    'Workers with a live lease; 0 with keys queued: nobody works on them',
    ({ workers }) => workers,
  ],
];

const ofMap: Column<MapSummary>[] = [
  [
    'workqueue_map_behind',
    'Versions of a watched type that the controller has not turned into keys yet',
    ({ behind }) => behind,
  ],
  [
    'workqueue_map_failing',
    '1 where the changes of a watched type could not be turned into keys at the last attempt',
    ({ lastError }) => (lastError === null ? 0 : 1),
  ],
];

const ofLog: Column<EventLogSize & Pick<Bus, 'broker' | 'eventLogMax'>>[] = [
  ['syncsets_event_log_events', 'Events of the type that can be read', ({ events }) => events],
  ['syncsets_event_log_bytes', 'Size of the event log of the type, indexes included', ({ bytes }) => bytes],
  [
    'syncsets_event_log_max_bytes',
    'Size at which the oldest part of the event log of the type is dropped',
    ({ eventLogMax }) => eventLogMax,
  ],
  ['syncsets_event_log_age_seconds', 'How far back the event log of the type reaches', ({ seconds }) => seconds ?? 0],
  [
    'syncsets_event_log_keep_seconds',
    'How far back it is to reach, unless it grows too large before',
    ({ keepSeconds }) => keepSeconds,
  ],
  ['syncsets_event_log_partitions', 'Partitions of the event log of the type', ({ partitions }) => partitions],
  ['syncsets_relay_work_lag_events', 'Events of which no work was made yet', ({ workLag }) => workLag],
  [
    'syncsets_relay_publish_lag_events',
    'Events that RabbitMQ has not got yet',
    // Without a broker nothing is published, and nothing waits to be.
    ({ broker, publishLag }) => (broker === undefined ? undefined : publishLag),
  ],
];

/** Gauges with the same labels, which are set together. */
class Gauges<Row, Label extends string> {
  readonly #columns: { gauge: Gauge<Label>; value: (row: Row) => number | undefined }[];

  constructor(registry: Registry, labelNames: Label[], columns: Column<Row>[]) {
    this.#columns = columns.map(([name, help, value]) => ({
      gauge: new Gauge({ name, help, labelNames, registers: [registry] }),
      value,
    }));
  }

  /** Shows these rows and no others. */
  show(rows: { labels: Record<Label, string>; row: Row }[]): void {
    for (const { gauge, value } of this.#columns) {
      gauge.reset();
      for (const { labels, row } of rows) {
        const now = value(row);
        if (now !== undefined) gauge.set(labels, now);
      }
    }
  }
}

/** What one API process shows of itself. */
export interface MetricsOptions {
  database: Database;
  bus: Bus;
  types: string[];
  /** Open watch connections. */
  watchers: () => number;
  /** Metrics that are counted elsewhere, to be shown with these. */
  others: Metric[];
  log: Log;
}

/** The metrics of one API process. */
export class Metrics {
  readonly #options: MetricsOptions;
  readonly #registry = new Registry();
  readonly #duration = new Histogram({
    name: 'apiserver_request_duration_seconds',
    help: 'Time to answer a request, without streams and claims that waited for keys',
    labelNames: ['verb', 'code'],
    buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5],
    registers: [this.#registry],
  });
  readonly #errors = new Counter({
    name: 'apiserver_metrics_errors_total',
    help: 'Times that the work in the database could not be counted for /metrics',
    registers: [this.#registry],
  });
  readonly #watchers = new Gauges<number, never>(
    this.#registry,
    [],
    [['apiserver_watchers', 'Open watch connections', count => count]],
  );
  readonly #leads = new Gauges<boolean, 'type'>(
    this.#registry,
    ['type'],
    [['syncsets_relay_leader', '1 where this replica relays the events of the type', leads => (leads ? 1 : 0)]],
  );
  /** Undefined without a broker: its metrics are not there then. */
  readonly #broker: Gauges<BrokerState, never> | undefined;
  readonly #work = new Gauges(this.#registry, ['name'], ofWork);
  readonly #maps = new Gauges(this.#registry, ['name', 'type'], ofMap);
  readonly #logs = new Gauges(this.#registry, ['type'], ofLog);
  /** Why the last scrape was incomplete. */
  #reason: string | undefined;

  constructor(options: MetricsOptions) {
    this.#options = options;
    collectDefaultMetrics({ register: this.#registry });
    for (const one of options.others) this.#registry.registerMetric(one);
    if (options.bus.broker) this.#broker = new Gauges<BrokerState, never>(this.#registry, [], ofBroker);
  }

  request(verb: string, code: number, seconds: number): void {
    this.#duration.observe({ verb, code }, seconds);
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  async text(): Promise<string> {
    const { bus, types, watchers } = this.#options;
    await this.#count();
    this.#watchers.show([{ labels: {}, row: watchers() }]);
    this.#leads.show(types.map(type => ({ labels: { type }, row: bus.relays(type) })));
    if (bus.broker) this.#broker?.show([{ labels: {}, row: bus.broker }]);
    return this.#registry.metrics();
  }

  /** Counts what is in the database. One that is away must not take the other metrics along. */
  async #count(): Promise<void> {
    const { bus, database } = this.#options;
    const [summaries, logs] = await Promise.all([
      summarizeWork(database, { limit: counted }).catch((error: unknown) => this.#incomplete(error)),
      measureEventLog(database).catch((error: unknown) => this.#incomplete(error)),
    ]);
    if (summaries && logs) this.#reason = undefined;
    const { broker, eventLogMax } = bus;
    this.#logs.show((logs ?? []).map(log => ({ labels: { type: log.type }, row: { ...log, broker, eventLogMax } })));
    const work = [...(summaries ?? [])];
    this.#work.show(work.map(([name, row]) => ({ labels: { name }, row })));
    this.#maps.show(work.flatMap(([name, { maps }]) => maps.map(row => ({ labels: { name, type: row.type }, row }))));
  }

  /** Said once for each reason; there is a scrape every few seconds. */
  #incomplete(error: unknown): undefined {
    this.#errors.inc();
    const reason = reasonOf(error);
    if (reason !== this.#reason) this.#options.log('warn', 'metrics are incomplete', { reason });
    this.#reason = reason;
  }
}
