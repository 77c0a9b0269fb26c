import { LosslessNumber } from 'lossless-json';
import { isObject } from './json.js';

/** How deep values may be nested, as in bodies. */
export const maxDepth = 64;
/** Values and list elements that a patch may look at, copy or shift; a million take about 50 ms. */
const maxWork = 2_000_000;
/** Characters that the operations `copy` may multiply: strings are shared until the result is written. */
const maxCopied = 3_000_000;

/** An operation cannot be carried out on this object. */
export class StepFailed extends Error {}

/** A patch asks for more work than one may. */
export class OverBudget extends Error {}

/** What a patch may cost; copies of copies would double with each operation. */
export class Budget {
  #left = maxWork;
  #copied = 0;

  spend(work: number): void {
    this.#left -= work;
    if (this.#left < 0)
      throw new OverBudget(`the patch copies or moves more than ${maxWork} values; send less at once`);
  }

  /** A copy of a value that is to lie `depth` levels deep. Numbers that are kept exactly are never changed, so they are shared. */
  copy(value: unknown, depth: number): unknown {
    this.#enter(depth);
    if (Array.isArray(value)) return value.map(one => this.copy(one, depth + 1));
    if (!isObject(value)) return value;
    return Object.fromEntries(Object.entries(value).map(([field, one]) => [field, this.copy(one, depth + 1)]));
  }

  /** A copy of a value that stays where it is as well. */
  multiply(value: unknown, depth: number): unknown {
    this.#copied += this.#characters(value);
    if (this.#copied > maxCopied)
      throw new OverBudget(`the patch copies more than ${maxCopied} characters; send less at once`);
    return this.copy(value, depth);
  }

  #characters(value: unknown): number {
    this.spend(1);
    if (typeof value === 'string') return value.length;
    if (Array.isArray(value)) return value.reduce<number>((sum, one) => sum + this.#characters(one), 0);
    if (!isObject(value)) return 0;
    return Object.entries(value).reduce((sum, [field, one]) => sum + field.length + this.#characters(one), 0);
  }

  /** Spends what a value costs that is to lie `depth` levels deep. */
  measure(value: unknown, depth: number): void {
    this.#enter(depth);
    if (typeof value !== 'object' || value === null || value instanceof LosslessNumber) return;
    for (const one of Object.values(value)) this.measure(one, depth + 1);
  }

  #enter(depth: number): void {
    this.spend(1);
    if (depth > maxDepth) throw new StepFailed(`the value would be nested deeper than the limit of ${maxDepth} levels`);
  }
}
