import type { Log } from '../db/index.js';

/** Something that was started and is stopped; `stop` waits for work in hand. */
export interface Part {
  stop(): Promise<unknown>;
}

/** What a process has started: it is stopped in reverse order. */
export class Parts {
  readonly #log: Log;
  readonly #parts: Part[] = [];
  #stopped: Promise<void> | undefined;

  constructor(log: Log) {
    this.#log = log;
  }

  /** Whether a stop has begun: a start that is on its way breaks off. */
  get stopping(): boolean {
    return this.#stopped !== undefined;
  }

  /** Takes a part in; before it is started, where a signal in the midst of its start shall stop it too. */
  add(part: Part): void {
    this.#parts.push(part);
  }

  /** Stops the latest part first, each after the one before has ended. What fails is logged, and the next one stopped. */
  stop(): Promise<void> {
    return (this.#stopped ??= this.#stopAll());
  }

  async #stopAll(): Promise<void> {
    for (let part = this.#parts.pop(); part; part = this.#parts.pop()) {
      await part.stop().catch((error: unknown) => this.#log('error', 'stopping failed', { error }));
    }
  }
}
