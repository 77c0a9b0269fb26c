import type { ClaimRequest, Taken } from './claims.js';

interface Waiter {
  request: ClaimRequest;
  /** Whether it hears by messages of keys that other replicas queue. */
  hears: boolean;
  done: boolean;
  /** False when the waiter has left meanwhile. */
  settle: (claims: string[]) => boolean;
  fail: (error: unknown) => void;
}

/** Whom a round of looking for keys is for: `unheard`, those who do not hear of keys by messages. */
type Round = 'all' | 'unheard';

/** What a line serves its waiters with. */
export interface LineOptions {
  take: (request: ClaimRequest) => Promise<Taken>;
  /** Calls a listener whenever there may be new keys, until the returned function is called; `here`: they are kept for this line. */
  listen: (listener: (here: boolean) => void) => () => void;
  /** What was kept for this line is taken; `all`: nothing came since. */
  taken: (all: boolean) => void;
  /** A worker left while it was served. */
  lost: (worker: string) => Promise<void>;
  onEmpty: () => void;
}

/**
 * The waiting workers of one controller, first come, first served: a wake-up makes one query for the first of them, not one for
 * each.
 */
export class Line {
  readonly #options: LineOptions;
  readonly #stopListening: () => void;
  #waiters: Waiter[] = [];
  /** Those who wait, and those who look for themselves first. */
  #guests = 0;
  #wakeUps = 0;
  #running = false;
  /** Whom another round is due for since the last one began. */
  #due: Round | undefined;
  readonly #poll: NodeJS.Timeout;

  constructor(options: LineOptions) {
    this.#options = options;
    this.#stopListening = options.listen(here => {
      this.#wakeUps++;
      void this.#serve(here ? 'all' : 'unheard');
    });
    // A wake-up may be lost with a connection, a message with its broker.
    this.#poll = setInterval(() => void this.#serve('all'), 1_000);
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
    this.#options.onEmpty();
  }

  /** Someone looked for himself, after `enter` returned `since`, and found nothing more. */
  looked(since: number): void {
    this.#options.taken(this.#wakeUps === since);
  }

  /**
   * Waits for claims up to `waitSeconds`, or until `signal` aborts.
   *
   * @param visit.since what `enter` returned
   * @param visit.hears it hears by messages of keys that other replicas queue, and is not to take these before
   */
  wait(
    request: ClaimRequest,
    { signal, since, hears }: { signal: AbortSignal; since: number; hears: boolean },
  ): Promise<string[]> {
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
        hears,
        done: false,
        settle: claims => leave(() => resolve(claims)),
        fail: error => leave(() => reject(error instanceof Error ? error : new Error(String(error)))),
      };
      const giveUp = () => void waiter.settle([]);
      const timer = setTimeout(giveUp, request.waitSeconds * 1_000);
      signal.addEventListener('abort', giveUp);
      this.#waiters.push(waiter);
      // Something was queued while it looked for itself.
      if (this.#wakeUps !== since) void this.#serve('all');
    });
  }

  async #serve(round: Round): Promise<void> {
    if (this.#due !== 'all') this.#due = round;
    if (this.#running) return;
    this.#running = true;
    for (let due = this.#takeTurn(); due; due = this.#takeTurn()) {
      for (const waiter of [...this.#waiters]) {
        if (waiter.done || (due === 'unheard' && waiter.hears)) continue;
        const since = this.#wakeUps;
        try {
          const { claims, more } = await this.#options.take(waiter.request);
          if (claims.length > 0 && !waiter.settle(claims)) await this.#options.lost(waiter.request.worker);
          // Nothing is left for the others, unless this one asked for certain keys or its objects were too many for an answer.
          if (claims.length < waiter.request.max && !waiter.request.keys && !more) {
            this.looked(since);
            break;
          }
        } catch (error) {
          waiter.fail(error);
        }
      }
    }
    this.#running = false;
  }

  /** Whom another round is due for. */
  #takeTurn(): Round | undefined {
    const due = this.#due;
    this.#due = undefined;
    return due;
  }
}
