import type { Attempt } from './batch-parts.js';
import { ApiError } from './errors.js';

/**
 * How many operations of a batch are carried out at once. A group begins small and grows while its answers are: a patch of 100
 * bytes may be answered with an object of 1.5 MB.
 */
const groupSize = { first: 50, most: 500 };
/** Answers of one group have about so many bytes together. */
const groupBytes = 4_000_000;

/** The size of the next group, by what the last ones were answered with. */
export class GroupSize {
  #size = groupSize.first;

  get next(): number {
    return this.#size;
  }

  /** @param bytes what so many operations were answered with */
  learn(operations: number, bytes: number): void {
    const fitting = Math.floor((operations * groupBytes) / Math.max(1, bytes));
    this.#size = Math.max(1, Math.min(this.#size * 4, fitting, groupSize.most));
  }

  /**
   * The end of the group that begins at an index. Creations do not count: they are answered with about what was sent, which is
   * in memory already, and bounded.
   */
  end(tried: readonly Attempt[], from: number): number {
    let counted = 0;
    for (let at = from; at < tried.length; at++) {
      const one = tried[at];
      const grows = one !== undefined && !(one instanceof ApiError) && (one.upsert ?? one.operation.verb !== 'create');
      if (grows && ++counted > this.#size) return at;
    }
    return tried.length;
  }
}
