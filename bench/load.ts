import { Assistant } from './processes.js';
import type { Figure } from './program.js';

/** A server and how to be let in. */
export interface Endpoint {
  url: string;
  headers?: Record<string, string>;
  tls?: { ca?: string; cert?: string; key?: string; servername?: string; rejectUnauthorized?: boolean };
}

/** A request that is sent again and again: `{name}` in path and body becomes a name, `{sent}` the time by `now()`. */
export interface Template {
  method: 'GET' | 'POST';
  path: string;
  body?: string;
}

/** Clients that each send the next request when the last is answered. */
export interface ThroughputJob {
  kind: 'throughput';
  endpoint: Endpoint;
  template: Template;
  /** The names: numbered anew with this prefix, or at random among so many that exist. */
  names: { prefix: string; among?: number };
  clients: number;
  /** Not measured. */
  warmupSeconds: number;
  seconds: number;
  /** Ends after so many, all of them measured, instead of by time. */
  requests?: number;
}

/** Requests at an even pace, and, with `watch`, a watcher that hears of each. */
export interface PaceJob {
  kind: 'pace';
  endpoint: Endpoint;
  template: Template;
  prefix: string;
  /** Per second. */
  rate: number;
  warmupSeconds: number;
  seconds: number;
  /** A path whose answer goes on: each request's name is waited for in its lines. */
  watch?: string;
  /** Where the watcher is; left out: where the requests go. */
  watchAt?: Endpoint;
}

/** One row after the other into a plain table, as an API without batches would write them. */
export interface InsertJob {
  kind: 'insert';
  databaseUrl: string;
  body: string;
  inFlight: number;
  warmupSeconds: number;
  seconds: number;
}

/** Notifications through Postgres at an even pace. */
export interface NotifyJob {
  kind: 'notify';
  databaseUrl: string;
  rate: number;
  seconds: number;
}

/** Messages to an exchange of RabbitMQ, each confirmed, and nothing else. */
export interface PublishJob {
  kind: 'publish';
  amqpUrl: string;
  exchange: string;
  count: number;
  message: Message;
}

/** A message as it is to be sent again and again. */
export interface Message {
  headers: Record<string, unknown>;
  /** JSON. */
  body: string;
}

export type Job = ThroughputJob | PaceJob | InsertJob | NotifyJob | PublishJob;

/** What came through per second, and how long each took in ms. */
export interface Throughput {
  rate: number;
  waits: Required<Figure>;
  /** When it was measured, by `now()`. */
  from: number;
  to: number;
}

/** In ms. */
export interface Paced {
  answers: Required<Figure>;
  /** Of each request after the warm-up, by `now()`. */
  times: { name: string; sent: number; answered: number }[];
  /** From just before a request was sent to the line that tells of it. */
  fromSent?: Required<Figure>;
  /** From its answer to the line: negative where the line came first. */
  fromAnswer?: Required<Figure>;
}

/** The load generator: a process of its own, so that what it measures has a core for itself. */
export class Load {
  readonly #process = new Assistant('load-process.ts');

  throughput(job: Omit<ThroughputJob, 'kind'>): Promise<Throughput> {
    return this.#process.ask<Throughput>({ kind: 'throughput', ...job });
  }

  pace(job: Omit<PaceJob, 'kind'>): Promise<Paced> {
    return this.#process.ask<Paced>({ kind: 'pace', ...job });
  }

  insert(job: Omit<InsertJob, 'kind'>): Promise<Throughput> {
    return this.#process.ask<Throughput>({ kind: 'insert', ...job });
  }

  notify(job: Omit<NotifyJob, 'kind'>): Promise<Required<Figure>> {
    return this.#process.ask<Required<Figure>>({ kind: 'notify', ...job });
  }

  async publish(job: Omit<PublishJob, 'kind'>): Promise<void> {
    await this.#process.ask({ kind: 'publish', ...job });
  }

  stop(): Promise<void> {
    return this.#process.stop();
  }
}
