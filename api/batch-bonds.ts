import type { BatchItem } from './batch-operations.js';
import type { Operation } from './operation.js';
import { mayChange } from './update.js';

interface Bond {
  type: string;
  /** The types that rules of admission may look at for it. */
  reads: string[];
}

/**
 * What operations have to do with those of other objects. Two are bound to each other when rules of admission may look at the one
 * for the other, or when uniques and references bind objects of their types: then it matters which comes first.
 */
export class Bonds {
  readonly #ruled: ReadonlySet<string>;
  /** One for each kind of bond: operations are many, the kinds few. */
  readonly #bonds = new Map<string, Bond>();

  /** @param ruled the types whose objects uniques and references bind */
  constructor(ruled: ReadonlySet<string>) {
    this.#ruled = ruled;
  }

  add(item: BatchItem): void {
    const bond = bondOf(item);
    this.#bonds.set([bond.type, ...bond.reads].join(' '), bond);
  }

  clear(): void {
    this.#bonds.clear();
  }

  /**
   * Whether an operation is bound to any of those that were added.
   * @param options.sameType whether uniques and references count within a type too, as they do unless both are written at once
   */
  meet(item: BatchItem, { sameType = true } = {}): boolean {
    const one = bondOf(item);
    const ruled = this.#ruled.has(one.type);
    for (const other of this.#bonds.values()) {
      if (one.reads.includes(other.type) || other.reads.includes(one.type)) return true;
      if (ruled && this.#ruled.has(other.type) && (sameType || other.type !== one.type)) return true;
    }
    return false;
  }
}

function bondOf({ type, operation }: BatchItem): Bond {
  const asked = (type.rules ?? []).filter(
    ({ fields, reads = [] }) => reads.length > 0 && fields.some(field => mayBeNew(operation, field)),
  );
  return { type: type.type, reads: asked.flatMap(({ reads = [] }) => reads) };
}

/** Whether rules about a top-level field may be asked for an operation. */
function mayBeNew(operation: Operation, field: string): boolean {
  switch (operation.verb) {
    case 'create':
      return field !== 'status';
    case 'delete':
      return false;
    default:
      return mayChange(operation, field);
  }
}
