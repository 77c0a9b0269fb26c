import { Backoff, PlatformError, type Controllers, type WorkResult } from '../../client/index.js';
import type { Log } from './log.js';
import { messageOf } from './message.js';

/** Most results in one call. */
const batch = 1000;

/**
 * Reports results. What becomes ready while a call is under way goes with the next one: no timer holds a lone result up, and
 * a thousand quick ones are a few calls.
 */
export class Reporter {
  readonly #controllers: Controllers;
  readonly #controller: string;
  readonly #log: Log;
  readonly #fenced: (count: number) => void;
  #waiting: WorkResult[] = [];
  #sending: readonly WorkResult[] = [];
  #running: Promise<void> | undefined;
  #stopped = new AbortController();

  constructor(options: { controllers: Controllers; controller: string; log: Log; fenced: (count: number) => void }) {
    this.#controllers = options.controllers;
    this.#controller = options.controller;
    this.#log = options.log;
    this.#fenced = options.fenced;
  }

  add(result: WorkResult): void {
    this.#waiting.push(result);
    this.#running ??= this.#run();
  }

  /** Tokens whose results are not yet known to have arrived. */
  *tokens(): Generator<string, void, undefined> {
    for (const { token } of this.#sending) yield token;
    for (const { token } of this.#waiting) yield token;
  }

  /** Waits until all is reported, at most some milliseconds; what is left then is given up. */
  async flush(milliseconds: number): Promise<void> {
    const timer = setTimeout(() => this.#stopped.abort(), milliseconds);
    while (this.#running) await this.#running;
    clearTimeout(timer);
  }

  async #run(): Promise<void> {
    const backoff = new Backoff(50, 2000);
    // All that becomes ready in this turn of the event loop goes in the first call.
    await new Promise<void>(resolve => setImmediate(resolve));
    while (this.#waiting.length > 0 && !this.#stopped.signal.aborted) {
      this.#sending = this.#waiting.splice(0, batch);
      try {
        await this.#send(this.#sending);
        backoff.reset();
      } catch (error) {
        // Repeating is harmless: a result that had arrived is answered as fenced.
        this.#waiting = [...this.#sending, ...this.#waiting];
        this.#log.debug({ error: messageOf(error) }, 'results not reported yet');
        await backoff.pause(this.#stopped.signal);
      }
    }
    this.#sending = [];
    this.#running = undefined;
  }

  async #send(results: readonly WorkResult[]): Promise<void> {
    try {
      const answers = await this.#controllers.done(this.#controller, [...results]);
      const fenced = answers.filter(answer => answer.state === 'fenced').length;
      if (fenced > 0) this.#fenced(fenced);
    } catch (error) {
      if (!isRefusal(error)) throw error;
      const [only] = results;
      if (results.length > 1) {
        // One result that the server refuses, such as a map to a selector that is none, must not hold up the others.
        for (const result of results) await this.#send([result]);
      } else if (only?.enqueue) {
        this.#log.warn({ error: messageOf(error) }, 'the server refused what a watch enqueues');
        await this.#send([{ token: only.token, result: 'error', message: messageOf(error) }]);
      } else if (only) {
        // The claim is left over and found by the lease.
        this.#log.error({ error: messageOf(error), result: only.result }, 'the server refused a result');
      }
    }
  }
}

/** Whether the server will say the same again. */
function isRefusal(error: unknown): boolean {
  return error instanceof PlatformError && error.status < 500 && ![408, 429].includes(error.status);
}
