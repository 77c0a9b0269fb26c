import { Backoff, PlatformError, type Controllers, type ResultState, type WorkResult } from '../../client/index.js';
import type { Log } from './log.js';
import { messageOf } from './message.js';

/** Most results in one call. */
const batch = 1000;
/** Milliseconds that results wait for a claim to go with; then they go alone. Half of what is claimed ahead takes as long. */
const patience = 25;

/** Whose results are reported, and when. */
export interface ReporterOptions {
  controllers: Controllers;
  controller: string;
  log: Log;
  /** So many claims had been lost before their results arrived. */
  fenced: (count: number) => void;
  /** Whether a claim is about to be made that can take results along. */
  company: () => boolean;
}

/**
 * Reports results: with the next claim where one is about to be made, else in calls of their own. What becomes ready while a call
 * is under way goes with the next one, so that a thousand quick ones are a few calls and no lone one is held up.
 */
export class Reporter {
  readonly #options: ReporterOptions;
  readonly #waiting: WorkResult[] = [];
  /** Those of calls that are under way. */
  readonly #sending = new Set<WorkResult>();
  /** Those whose answer was lost. They may have arrived, and be answered as fenced without a loss. */
  readonly #repeated = new WeakSet<WorkResult>();
  #timer: NodeJS.Timeout | undefined;
  #running: Promise<void> | undefined;
  #stopped = new AbortController();

  constructor(options: ReporterOptions) {
    this.#options = options;
  }

  add(result: WorkResult): void {
    // Of a run that outlived the stop: its claim went with the worker's goodbye, and the client may be closed for good.
    if (this.#stopped.signal.aborted) return;
    this.#waiting.push(result);
    if (this.#running || this.#timer) return;
    if (this.#options.company()) this.#timer = setTimeout(() => this.#start(), patience);
    else this.#start();
  }

  /** Results for a claim to take along. They are `reported` or `failed` afterwards. */
  take(): WorkResult[] {
    const taken: WorkResult[] = [];
    const left = this.#waiting.splice(0).filter(result => {
      // What is released is for others, not for the claim that it would go with. A result that enqueues may be refused for that.
      const goes = result.result !== 'released' && !result.enqueue && taken.length < batch;
      if (goes) taken.push(result);
      return !goes;
    });
    this.#waiting.push(...left);
    for (const result of taken) this.#sending.add(result);
    if (this.#waiting.length > 0) this.#start();
    else this.#calm();
    return taken;
  }

  /** The call that took these along was answered. */
  reported(results: readonly WorkResult[], answers: readonly ResultState[]): void {
    for (const result of results) this.#sending.delete(result);
    const lost = answers.filter(({ state }, at) => {
      const result = results[at];
      return state === 'fenced' && !(result && this.#repeated.has(result));
    });
    if (lost.length > 0) this.#options.fenced(lost.length);
  }

  /** The call that took these along failed: they are reported again. */
  failed(results: readonly WorkResult[]): void {
    if (results.length === 0) return;
    this.#again(results);
    this.#start();
  }

  /** Tokens whose results are not yet known to have arrived. */
  *tokens(): Generator<string, void, undefined> {
    for (const { token } of this.#sending) yield token;
    for (const { token } of this.#waiting) yield token;
  }

  /** Waits until all is reported, at most some milliseconds; what is left then, or comes later, is given up. */
  async flush(milliseconds: number): Promise<void> {
    const timer = setTimeout(() => this.#stopped.abort(), milliseconds);
    if (this.#waiting.length > 0) this.#start();
    while (this.#running) await this.#running;
    clearTimeout(timer);
    this.#stopped.abort();
  }

  #start(): void {
    this.#calm();
    this.#running ??= this.#run();
  }

  #calm(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  async #run(): Promise<void> {
    const backoff = new Backoff(50, 2000);
    // All that becomes ready in this turn of the event loop goes in the first call.
    await new Promise<void>(resolve => setImmediate(resolve));
    while (this.#waiting.length > 0 && !this.#stopped.signal.aborted) {
      const results = this.#waiting.splice(0, batch);
      for (const result of results) this.#sending.add(result);
      try {
        await this.#send(results);
        backoff.reset();
      } catch (error) {
        this.#again(results);
        this.#options.log.debug({ error: messageOf(error) }, 'results not reported yet');
        await backoff.pause(this.#stopped.signal);
      }
    }
    this.#running = undefined;
  }

  /** Repeating is harmless: a result that had arrived is answered as fenced. */
  #again(results: readonly WorkResult[]): void {
    for (const result of results) {
      this.#sending.delete(result);
      this.#repeated.add(result);
    }
    this.#waiting.unshift(...results);
  }

  async #send(results: readonly WorkResult[]): Promise<void> {
    const { controllers, controller, log } = this.#options;
    try {
      this.reported(results, await controllers.done(controller, [...results], this.#stopped.signal));
    } catch (error) {
      if (!isRefusal(error)) throw error;
      const [only] = results;
      if (results.length > 1) {
        // One result that the server refuses, such as a map to a selector that is none, must not hold up the others.
        for (const result of results) await this.#send([result]);
      } else if (only?.enqueue) {
        log.warn({ error: messageOf(error) }, 'the server refused what a watch enqueues');
        await this.#send([{ token: only.token, result: 'error', message: messageOf(error) }]);
        this.#sending.delete(only);
      } else if (only) {
        // The claim is left over and found by the lease.
        this.#sending.delete(only);
        log.error({ error: messageOf(error), result: only.result }, 'the server refused a result');
      }
    }
  }
}

/** Whether the server will say the same again. */
function isRefusal(error: unknown): boolean {
  return error instanceof PlatformError && error.status < 500 && ![408, 429].includes(error.status);
}
