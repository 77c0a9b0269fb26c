import type { Assistant } from './processes.js';
import type { Stage } from './stage.js';

/** The key's name, and when its reconcile began, by `now()`. */
export type Began = [name: string, at: number];

/** What reconcile-process.ts is asked for: to run a controller of all clusters, to wait for so many runs, and to tell of those not yet told. */
export type ReconcileJob = ({ kind: 'run' } & ReconcileOptions) | { kind: 'runs'; runs: number } | { kind: 'take' };

export interface ReconcileOptions {
  name: string;
  url: string;
  /** Undefined: the Postgres transport. */
  amqpUrl?: string | undefined;
  concurrency: number;
  /** How long each reconcile waits, in ms. */
  waits: number;
}

/** One process of a controller whose reconcile does nothing but wait. */
export class ReconcileProcess {
  readonly #assistant: Assistant;

  private constructor(assistant: Assistant) {
    this.#assistant = assistant;
  }

  /** Starts one; its controller is registered and claims work from then on. */
  static async start(stage: Stage, options: ReconcileOptions): Promise<ReconcileProcess> {
    const assistant = stage.assistant('reconcile-process.ts');
    await assistant.ask({ kind: 'run', ...options });
    return new ReconcileProcess(assistant);
  }

  /** Waits until so many runs began that were not yet taken. */
  async runs(runs: number): Promise<void> {
    await this.#assistant.ask({ kind: 'runs', runs });
  }

  take(): Promise<Began[]> {
    return this.#assistant.ask<Began[]>({ kind: 'take' });
  }

  stop(): Promise<void> {
    return this.#assistant.stop();
  }

  kill(): Promise<void> {
    return this.#assistant.kill();
  }
}
