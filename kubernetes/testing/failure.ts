import { inspect } from 'node:util';
import { expect } from 'chai';
import { TargetFailure, type FailureReason } from '../index.js';

/** Expects that `action` fails for `reason`. */
export async function expectFailure(reason: FailureReason, action: () => unknown): Promise<TargetFailure> {
  const error = await errorOf(action);
  expect(error, inspect(error)).to.be.instanceOf(TargetFailure);
  const failure = error as TargetFailure;
  expect(failure.reason, failure.message).to.equal(reason);
  return failure;
}

/** Expects that `action` fails, in whatever way. */
export async function errorOf(action: () => unknown): Promise<unknown> {
  try {
    await action();
  } catch (error) {
    return error;
  }
  throw new Error('It was expected to fail');
}

/** All that a log, a status or a debugger could show of a value. */
export function everythingOf(value: unknown): string {
  const own = value instanceof Error ? `${value.message}\n${value.stack ?? ''}\n` : '';
  return own + JSON.stringify(value) + inspect(value, { depth: 20, showHidden: true, maxStringLength: null });
}
