import type { ClaimRequest, Taken } from './claims.js';

/** Milliseconds that messages have for keys of other replicas before workers that hear them look as well. */
const hearing = 50;

/** How often there was a wake-up before a look, at all and for keys that are kept for this line. */
export interface Since {
  all: number;
  here: number;
}

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
  /** What was kept for this line is taken; `all`: nothing was kept since. */
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
  readonly #wakeUps: Since = { all: 0, here: 0 };
  #running = false;
  /** Whom another round is due for since the last one began. */
  #due: Round | undefined;
  /** Until those look who hear messages, too. */
  #hearing: NodeJS.Timeout | undefined;
  readonly #poll: NodeJS.Timeout;

  constructor(options: LineOptions) {
    this.#options = options;
    this.#stopListening = options.listen(here => this.#woken(here));
    // A wake-up may be lost with a connection, a message with its broker.
    this.#poll = setInterval(() => void this.#serve('all'), 1_000);
  }

  /** Listens from here to `leave`. Whoever then looks and finds nothing waits with what this returns. */
  enter(): Since {
    this.#guests++;
    return { ...this.#wakeUps };
  }

  /** Ends a visit; the last one closes the line. */
  leave(): void {
    if (--this.#guests > 0) return;
    clearInterval(this.#poll);
    clearTimeout(this.#hearing);
    this.#stopListening();
    this.#options.onEmpty();
  }

  /** A look that began after `since` has left nothing. */
  looked({ here }: Since): void {
    // Who has left hears of nothing new.
    if (this.#guests > 0) this.#options.taken(this.#wakeUps.here === here);
  }

  /**
   * Waits for claims up to `waitSeconds`, or until `signal` aborts.
   *
   * @param visit.since what `enter` returned
   * @param visit.hears it hears by messages of keys that other replicas queue, and looks for these only when the messages have had
   * their time
   */
  wait(
    request: ClaimRequest,
    { signal, since, hears }: { signal: AbortSignal; since: Since; hears: boolean },
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
      if (this.#wakeUps.here !== since.here) void this.#serve('all');
      else if (this.#wakeUps.all !== since.all) this.#serveThem();
    });
  }

  #woken(here: boolean): void {
    this.#wakeUps.all++;
    if (here) {
      this.#wakeUps.here++;
      void this.#serve('all');
    } else this.#serveThem();
  }

  /** Serves those at once who do not hear messages, the others in a moment. */
  #serveThem(): void {
    void this.#serve('unheard');
    this.#hearing ??= setTimeout(() => {
      this.#hearing = undefined;
      if (this.#waiters.some(({ hears }) => hears)) void this.#serve('all');
    }, hearing);
  }

  async #serve(round: Round): Promise<void> {
    if (this.#due !== 'all') this.#due = round;
    if (this.#running) return;
    this.#running = true;
    for (let due = this.#takeTurn(); due; due = this.#takeTurn()) {
      for (const waiter of [...this.#waiters]) {
        if (waiter.done || (due === 'unheard' && waiter.hears)) continue;
        const since = { ...this.#wakeUps };
        try {
          const { claims, complete } = await this.#options.take(waiter.request);
          if (claims.length > 0 && !waiter.settle(claims)) await this.#options.lost(waiter.request.worker);
          if (complete) {
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
