/** Milliseconds that a free slot waits for company before it is claimed for alone. */
const batchTime = 5;
/**
 * Keys are claimed ahead of free slots: as many as begin within so many milliseconds, at most 16 for each slot and 512 in all. With
 * 4 slots and runs of 5 ms a worker made 208 runs a second when it claimed for free slots alone, 740 with 25 ms ahead; four
 * workers 526, 1,790 (2,370 by claiming for half of all at a time) and with 50 ms 2,750, because they made fewer calls.
 */
const aheadTime = 50;
const aheadOfSlot = 16;
const mostAhead = 512;
/** Of so many keys or more half are claimed at a time, so that claiming and running overlap. */
const divisible = 32;

/** What the room for keys is measured by. */
export interface RoomOptions {
  /** How many keys run at a time. */
  slots: number;
  /** Most keys to claim at present, where that is less than `slots`. */
  limit?: () => number;
  /** Whether keys may be claimed before there is a slot for them. */
  ahead: boolean;
  /** How many keys are held now, running or waiting for a slot. */
  held: () => number;
}

/** How much of what is free a claim takes. */
export type Part = 'all' | 'larger' | 'smaller';

/** How many keys a worker claims, and when. */
export class Room {
  readonly #slots: number;
  readonly #limit: () => number;
  readonly #ahead: boolean;
  readonly #held: () => number;
  /** Keys that claims which are under way may bring. */
  #expected = 0;
  /** Milliseconds that the latest runs took, on average. */
  #pace: number | undefined;
  readonly #wakes = new Set<() => void>();

  constructor({ slots, limit = () => slots, ahead, held }: RoomOptions) {
    this.#slots = slots;
    this.#limit = limit;
    this.#ahead = ahead;
    this.#held = held;
  }

  /**
   * Waits until there is room to claim for, and returns how much; 0 when `signal` aborts. It is kept for the caller until `settle`.
   * Claims in batches cost a tenth: while every slot has its next key it waits for half of all, else a moment longer for a quarter,
   * because slow runs must not keep the free slots from others.
   *
   * @param part of what is free, where that is little: the larger half, at least one, or the smaller one, which may have to wait for more
   */
  async take(signal: AbortSignal, part: Part = 'all'): Promise<number> {
    const onAbort = () => this.look();
    signal.addEventListener('abort', onAbort);
    try {
      let patience = batchTime;
      while (!signal.aborted) {
        const { slots, all } = this.#capacity();
        const held = this.#held() + this.#expected;
        const free = all - held;
        const idle = held < slots;
        const room = shareOf(part, free, all);
        if (room > 0 && (free >= all / (idle ? 4 : 2) || (idle && patience <= 0))) {
          this.#expected += room;
          return room;
        }
        const since = performance.now();
        await this.#change(idle && room > 0 ? patience : undefined);
        if (idle) patience -= performance.now() - since;
      }
      return 0;
    } finally {
      signal.removeEventListener('abort', onAbort);
    }
  }

  /** The claim for so much room was answered, and what it brought has begun, or it failed. */
  settle(room: number): void {
    this.#expected -= room;
    this.look();
  }

  /** A run took so many milliseconds. */
  learn(milliseconds: number): void {
    this.#pace = this.#pace === undefined ? milliseconds : this.#pace + (milliseconds - this.#pace) / 16;
  }

  /** Looks again at how much room there is: a run has ended, or the limit is another. */
  look(): void {
    for (const wake of this.#wakes) wake();
    this.#wakes.clear();
  }

  /** Waits for `look`, at most some milliseconds, and for whatever else ends in that turn of the event loop. */
  async #change(milliseconds?: number): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    await new Promise<void>(resolve => {
      this.#wakes.add(resolve);
      if (milliseconds !== undefined) {
        timer = setTimeout(() => {
          this.#wakes.delete(resolve);
          resolve();
        }, milliseconds);
      }
    });
    clearTimeout(timer);
    await new Promise<void>(resolve => setImmediate(resolve));
  }

  /** Keys to work on at once at present, and to hold with those that wait for a slot. */
  #capacity(): { slots: number; all: number } {
    const slots = Math.min(this.#slots, this.#limit());
    if (!this.#ahead || this.#pace === undefined) return { slots, all: slots };
    const begin = Math.floor((slots * aheadTime) / Math.max(this.#pace, 0.01));
    return { slots, all: slots + Math.min(begin, slots * aheadOfSlot, mostAhead) };
  }
}

function shareOf(part: Part, free: number, all: number): number {
  if (part === 'smaller') return Math.floor(free / 2);
  if (all >= divisible) return Math.min(free, Math.ceil(all / 2));
  return part === 'larger' ? Math.ceil(free / 2) : free;
}
