/** Messages of a controller that are out at least may be this many. */
const smallestWindow = 64;
/** So many more may be out when urgent keys wait, so that one goes out at once behind a full window. */
const urgentRoom = 16;
/** Most messages of a controller that the broker has not confirmed yet: 2 MB where all names are as long as they may be. */
const mostUnconfirmed = 2_000;
/** Most keys sent at once. */
const largestBatch = 1_000;
/** Milliseconds after which a map that nobody takes is announced again: losing one message must not stop a secondary watch. */
const announceAfter = 1_000;

/** What the feeder remembers of the queue of a controller, between two looks at the table. */
export class Feed {
  /** Whether its controller watches other types, whose events are announced like keys. */
  watches = false;
  /** Whether keys may wait that found no room, so that it is looked at when some were taken or confirmed. */
  limited = false;
  /** Of what is out nothing was taken between the last two looks at all queues: to count it again can wait for the next one. */
  stalled = false;
  /** Messages out: what was counted and what was sent since. Never too few, for only the feeder sends. */
  #out = 0;
  /** What was sent since the last count began, which may not have seen it. */
  #uncounted = 0;
  #unconfirmed = 0;
  /** Room that is promised to statements under way. */
  #reserved = 0;
  #window = smallestWindow;
  /** What was taken, by time. */
  #taken: { at: number; keys: number }[] = [];
  /** Why the queue could not be fed, since when, how often, and when it is tried again. */
  #trouble: { reason: string; at: number; times: number; until: number } | undefined;
  /** When events to map were announced last, by watched type. */
  readonly #announced = new Map<string, number>();
  /** An announcement is on its way. */
  #announcing = false;

  /** The table is about to be asked. */
  counting(): void {
    this.#uncounted = 0;
  }

  /**
   * The table says that so many messages are out: the others were taken, and the window follows how fast.
   *
   * @param regular in the look at all queues
   */
  counted(seen: number, regular: boolean): void {
    const now = performance.now();
    const out = seen + this.#uncounted;
    this.stalled = out > 0 && out >= this.#out && (regular || this.stalled);
    if (this.#out > out) this.#taken.push({ at: now, keys: this.#out - out });
    this.#taken = this.#taken.filter(one => one.at > now - 1_000);
    this.#out = out;
    this.#window = Math.max(smallestWindow, 2 * this.#taken.reduce((sum, one) => sum + one.keys, 0));
  }

  /** How many keys may be sent now; 0 when the window is full as far as known. */
  room(urgent: boolean): number {
    const room = Math.min(this.#window + (urgent ? urgentRoom : 0) - this.#out, mostUnconfirmed - this.#unconfirmed);
    return Math.max(0, Math.min(room - this.#reserved, largestBatch));
  }

  /** Keeps room for a statement that may send so many keys; negative: it is done. */
  reserve(keys: number): void {
    this.#reserved += keys;
  }

  /** Whether it waits for the broker's confirmations, or for a while because of trouble. */
  waits(): boolean {
    const resting = this.#trouble !== undefined && performance.now() < this.#trouble.until;
    return resting || this.#unconfirmed >= mostUnconfirmed;
  }

  sent(keys: number): void {
    this.#out += keys;
    this.#uncounted += keys;
    this.#unconfirmed += keys;
  }

  /** @param sentAt by `performance.now()`: what was sent before a trouble began says nothing about its end */
  confirmed(keys: number, sentAt: number): void {
    this.#unconfirmed -= keys;
    if (this.#trouble && this.#trouble.at < sentAt) this.#trouble = undefined;
  }

  refused(keys: number): void {
    this.#unconfirmed -= keys;
    this.#out = Math.max(0, this.#out - keys);
    this.#uncounted = Math.max(0, this.#uncounted - keys);
  }

  /**
   * It cannot be fed, and is tried again after 100 ms to 5 s. What fails together counts once.
   * @returns whether the reason is a new one
   */
  troubled(reason: string): boolean {
    const now = performance.now();
    const before = this.#trouble;
    if (before?.reason === reason && now < before.until) return false;
    const times = (before?.times ?? 0) + 1;
    this.#trouble = { reason, at: now, times, until: now + Math.min(5_000, 50 * 2 ** Math.min(times, 10)) };
    return before?.reason !== reason;
  }

  /** Those of the types whose events are to be announced now; none while the last announcement is on its way. */
  announce(types: string[]): string[] {
    if (this.#announcing || this.waits()) return [];
    const now = performance.now();
    const due = types.filter(type => now - (this.#announced.get(type) ?? -Infinity) > announceAfter);
    for (const type of due) this.#announced.set(type, now);
    this.#announcing = due.length > 0;
    return due;
  }

  /** @param vain the broker did not take it */
  announced(types: string[], vain: boolean): void {
    this.#announcing = false;
    if (vain) for (const type of types) this.#announced.delete(type);
  }
}
