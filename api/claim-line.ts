import type { ClaimRequest, Taken } from './claims.js';

interface Waiter {
  request: ClaimRequest;
  done: boolean;
  /** False when the waiter has left meanwhile. */
  settle: (claims: string[]) => boolean;
  fail: (error: unknown) => void;
}

/**
 * The waiting workers of one controller, first come, first served: a wake-up makes one query for the first of them, not one for
 * each.
 */
export class Line {
  readonly #take: (request: ClaimRequest) => Promise<Taken>;
  readonly #stopListening: () => void;
  readonly #lost: (worker: string) => Promise<void>;
  readonly #onEmpty: () => void;
  #waiters: Waiter[] = [];
  /** Those who wait, and those who look for themselves first. */
  #guests = 0;
  #wakeUps = 0;
  #running = false;
  #again = false;
  readonly #poll: NodeJS.Timeout;

  constructor(
    take: (request: ClaimRequest) => Promise<Taken>,
    listen: (listener: () => void) => () => void,
    lost: (worker: string) => Promise<void>,
    onEmpty: () => void,
  ) {
    this.#take = take;
    this.#lost = lost;
    this.#onEmpty = onEmpty;
    this.#stopListening = listen(() => {
      this.#wakeUps++;
      void this.#serve();
    });
    // A wake-up may be lost with a connection.
    this.#poll = setInterval(() => void this.#serve(), 1_000);
  }

  /** Listens from here to `leave`. Returns how often there was a wake-up: whoever then looks and finds nothing waits with it. */
  enter(): number {
    this.#guests++;
    return this.#wakeUps;
  }

  /** Ends a visit; the last one closes the line. */
  leave(): void {
    if (--this.#guests > 0) return;
    clearInterval(this.#poll);
    this.#stopListening();
    this.#onEmpty();
  }

  /** Waits for claims up to `waitSeconds`, or until `signal` aborts. @param since what `enter` returned */
  wait(request: ClaimRequest, signal: AbortSignal, since: number): Promise<string[]> {
    return new Promise((resolve, reject) => {
      const leave = (outcome: () => void): boolean => {
        if (waiter.done) return false;
        waiter.done = true;
        clearTimeout(timer);
        signal.removeEventListener('abort', giveUp);
        this.#waiters = this.#waiters.filter(one => one !== waiter);
        outcome();
        return true;
      };
      const waiter: Waiter = {
        request,
        done: false,
        settle: claims => leave(() => resolve(claims)),
        fail: error => leave(() => reject(error instanceof Error ? error : new Error(String(error)))),
      };
      const giveUp = () => void waiter.settle([]);
      const timer = setTimeout(giveUp, request.waitSeconds * 1_000);
      signal.addEventListener('abort', giveUp);
      this.#waiters.push(waiter);
      // Something was queued while it looked for itself.
      if (this.#wakeUps !== since) void this.#serve();
    });
  }

  async #serve(): Promise<void> {
    this.#again = true;
    if (this.#running) return;
    this.#running = true;
    while (this.#takeTurn()) {
      for (const waiter of [...this.#waiters]) {
        if (waiter.done) continue;
        try {
          const { claims, more } = await this.#take(waiter.request);
          if (claims.length > 0 && !waiter.settle(claims)) await this.#lost(waiter.request.worker);
          // Nothing is left for the others, unless this one asked for certain keys or its objects were too many for an answer.
          if (claims.length < waiter.request.max && !waiter.request.keys && !more) break;
        } catch (error) {
          waiter.fail(error);
        }
      }
    }
    this.#running = false;
  }

  /** Whether someone asked for another round since the last one. */
  #takeTurn(): boolean {
    const again = this.#again;
    this.#again = false;
    return again;
  }
}
