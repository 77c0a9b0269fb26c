import { LosslessNumber } from 'lossless-json';
import { ApiError } from './errors.js';
import { isObject, type JsonObject } from './json.js';
import { Budget, maxDepth, OverBudget, StepFailed } from './patch-budget.js';
import { invalid } from './refusals.js';

// RFC 6902, carried out here: fast-json-patch and rfc6902 copy values by way of JSON text or key by key, which loses numbers that
// a double cannot hold, and let a patch of 100 bytes an operation cost seconds (a move onto itself copies the whole value).

const maxOperations = 10_000;

interface Step {
  op: 'add' | 'remove' | 'replace' | 'move' | 'copy' | 'test';
  path: string[];
  from?: string[];
  value?: unknown;
}

type Container = JsonObject | unknown[];

/** A JSON patch whose operations are well formed; whether they fit an object is known only when they are applied. */
export class JsonPatch {
  readonly #steps: Step[];

  /** Throws Invalid with the index of each operation that is not well formed, TooLarge beyond 10,000 operations. */
  constructor(operations: unknown[]) {
    if (operations.length > maxOperations) {
      throw new ApiError(
        'TooLarge',
        `The patch has ${operations.length} operations, the limit is ${maxOperations}; send several patches.`,
      );
    }
    const details: { path: string; message: string }[] = [];
    this.#steps = operations.flatMap((operation, i) => {
      const step = readStep(operation);
      if (typeof step !== 'string') return [step];
      details.push({ path: `[${i}]`, message: step });
      return [];
    });
    if (details.length > 0) throw invalid(details.slice(0, 1_000));
  }

  /** Whether it may give a top-level field another value. */
  touches(field: string): boolean {
    return this.#steps.some(({ path, from }) => [path, from].some(at => at && (at[0] ?? field) === field));
  }

  /**
   * The object that the patch makes of another one, which stays as it is. Throws Conflict for a `test` that fails, Invalid for a
   * path that leads nowhere, for a test, copy or move of a secret field and for nesting beyond 64 levels, TooLarge for a patch
   * that multiplies what is there; each names the operation's index.
   */
  apply(object: JsonObject, secretFields: string[]): JsonObject {
    const budget = new Budget();
    const root = { document: budget.copy(object, 0) };
    for (const [i, step] of this.#steps.entries()) {
      try {
        refuseSecrets(step, secretFields);
        carryOut(root, step, budget);
      } catch (error) {
        if (error instanceof TestFailed)
          throw new ApiError('Conflict', `[${i}]: ${error.message}`, { details: at(i, error) });
        if (error instanceof StepFailed) throw invalid(at(i, error));
        if (error instanceof OverBudget)
          throw new ApiError('TooLarge', `[${i}]: ${error.message}`, { details: at(i, error) });
        throw error;
      }
    }
    if (!isObject(root.document)) throw invalid([{ path: '', message: 'the patch leaves no object' }]);
    return root.document;
  }
}

class TestFailed extends Error {}

const at = (i: number, error: Error) => [{ path: `[${i}]`, message: error.message }];

/** An operation as it is carried out, or what is wrong with it. */
function readStep(operation: unknown): Step | string {
  if (!isObject(operation)) return 'must be an object with op and path';
  const { op } = operation;
  if (op !== 'add' && op !== 'remove' && op !== 'replace' && op !== 'move' && op !== 'copy' && op !== 'test')
    return 'op must be one of add, remove, replace, move, copy, test';
  const path = readPointer(operation['path']);
  if (typeof path === 'string') return `path ${path}`;
  if (op === 'move' || op === 'copy') {
    const from = readPointer(operation['from']);
    if (typeof from === 'string') return `from ${from}`;
    if (op === 'move' && from.length < path.length && from.every((part, i) => part === path[i]))
      return 'from must not lead to a value that holds path';
    return { op, path, from };
  }
  if (op === 'remove') return path.length === 0 ? 'path must not be the whole object' : { op, path };
  return Object.hasOwn(operation, 'value') ? { op, path, value: operation['value'] } : 'value is required';
}

/** A JSON pointer (RFC 6901) as its parts, or what is wrong with it. */
function readPointer(pointer: unknown): string[] | string {
  if (typeof pointer !== 'string') return 'must be a JSON pointer, such as "/labels/env"';
  if (pointer === '') return [];
  if (!pointer.startsWith('/')) return 'must be a JSON pointer: it begins with "/"';
  if (/~(?![01])/.test(pointer)) return 'has a "~" that is not part of "~0" or "~1"';
  const parts = pointer.slice(1).split('/');
  if (parts.length > maxDepth) return `must have at most ${maxDepth} parts`;
  return parts.map(part => part.replaceAll('~1', '/').replaceAll('~0', '~'));
}

// What stands in the object for a secret is its mask: a test would ask for the value, a copy would store the mask as if it were one.
function refuseSecrets({ op, path, from }: Step, secretFields: string[]): void {
  const [field] = op === 'test' ? path : (from ?? []);
  if (field !== undefined && secretFields.includes(field)) {
    throw new StepFailed(
      op === 'test'
        ? `a secret field (${field}) cannot be tested`
        : `a secret field (${field}) cannot be the source of a ${op}`,
    );
  }
}

function carryOut(root: { document: unknown }, { op, path, from = [], value }: Step, budget: Budget): void {
  switch (op) {
    case 'add': {
      insert(root, path, budget.copy(value, path.length), budget);
      return;
    }
    case 'remove':
      remove(root, path, budget);
      return;
    case 'replace':
      find(root, path);
      {
        put(root, path, budget.copy(value, path.length));
        return;
      }
    case 'copy': {
      insert(root, path, budget.multiply(find(root, from), path.length), budget);
      return;
    }
    case 'move': {
      const moved = find(root, from);
      budget.measure(moved, path.length);
      // From a place to itself: nothing moves, and the whole object cannot be taken out of itself.
      if (from.length === path.length && from.every((part, i) => part === path[i])) return;
      remove(root, from, budget);
      insert(root, path, moved, budget);
      return;
    }
    case 'test':
      if (!equal(find(root, path), value, budget)) throw new TestFailed('the test failed: the value is another one');
  }
}

function insert(root: { document: unknown }, path: string[], value: unknown, budget: Budget): void {
  const parent = parentOf(root, path);
  const last = path.at(-1);
  if (!Array.isArray(parent) || last === undefined) {
    put(root, path, value);
    return;
  }
  const index = last === '-' ? parent.length : indexOf(parent, last, parent.length);
  budget.spend(parent.length - index);
  parent.splice(index, 0, value);
}

function remove(root: { document: unknown }, path: string[], budget: Budget): void {
  find(root, path);
  const parent = parentOf(root, path);
  const last = path.at(-1) ?? '';
  if (Array.isArray(parent)) {
    budget.spend(parent.length - Number(last));
    parent.splice(Number(last), 1);
  } else if (parent) Reflect.deleteProperty(parent, last);
}

/** Sets the value of a place that is there, or of a new field. */
function put(root: { document: unknown }, path: string[], value: unknown): void {
  const parent = parentOf(root, path);
  const last = path.at(-1) ?? '';
  if (!parent) root.document = value;
  else if (Array.isArray(parent)) parent[indexOf(parent, last, parent.length - 1)] = value;
  else define(parent, last, value);
}

// An assignment to "__proto__" would change what the object is.
function define(object: JsonObject, field: string, value: unknown): void {
  Object.defineProperty(object, field, { value, writable: true, enumerable: true, configurable: true });
}

/** The object or list that the last part of a path is in; undefined for the path of the whole. */
function parentOf(root: { document: unknown }, path: string[]): Container | undefined {
  if (path.length === 0) return undefined;
  const parent = find(root, path.slice(0, -1));
  if (Array.isArray(parent) || isObject(parent)) return parent;
  throw new StepFailed(`${pointerOf(path.slice(0, -1))} is neither an object nor a list`);
}

/** The value at a path. Throws StepFailed when there is none. */
function find(root: { document: unknown }, path: string[]): unknown {
  let node = root.document;
  for (const [depth, part] of path.entries()) {
    if (Array.isArray(node)) node = node[indexOf(node, part, node.length - 1)] as unknown;
    else if (isObject(node) && Object.hasOwn(node, part)) node = node[part];
    else throw new StepFailed(`there is nothing at ${pointerOf(path.slice(0, depth + 1))}`);
  }
  return node;
}

function indexOf(list: unknown[], part: string, highest: number): number {
  if (!/^(0|[1-9]\d{0,8})$/.test(part)) throw new StepFailed(`"${part}" is no index of a list`);
  if (Number(part) > highest) throw new StepFailed(`the list has no place ${part}: it has ${list.length} elements`);
  return Number(part);
}

function pointerOf(path: string[]): string {
  if (path.length === 0) return 'the whole object';
  return path.map(part => `/${part.replaceAll('~', '~0').replaceAll('/', '~1')}`).join('');
}

/** Whether two values are equal as JSON: numbers by value, objects in any order of their fields. */
function equal(a: unknown, b: unknown, budget: Budget): boolean {
  budget.spend(1);
  if (isNumber(a) && isNumber(b)) return sameNumber(a, b);
  if (Array.isArray(a)) {
    if (!Array.isArray(b) || a.length !== b.length) return false;
    return a.every((one, i) => equal(one, b[i], budget));
  }
  if (!isObject(a) || !isObject(b)) return a === b;
  const fields = Object.keys(a);
  budget.spend(fields.length);
  if (fields.length !== Object.keys(b).length) return false;
  return fields.every(field => Object.hasOwn(b, field) && equal(a[field], b[field], budget));
}

function isNumber(value: unknown): value is number | LosslessNumber {
  return typeof value === 'number' || value instanceof LosslessNumber;
}

function sameNumber(a: number | LosslessNumber, b: number | LosslessNumber): boolean {
  if (typeof a === 'number' && typeof b === 'number') return a === b;
  return decimal(String(a)) === decimal(String(b));
}

/** A number's digits without leading and trailing zeros, and its exponent: the same text for the same value. */
function decimal(text: string): string {
  const [, sign = '', whole = '', fraction = '', exponent = '0'] =
    /^(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?$/.exec(text) ?? [];
  const digits = `${whole}${fraction}`.replace(/^0+/, '');
  const significant = digits.replace(/0+$/, '');
  if (significant === '') return '0';
  return `${sign}${significant}e${Number(exponent) - fraction.length + digits.length - significant.length}`;
}
