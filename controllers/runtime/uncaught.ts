import { AsyncLocalStorage } from 'node:async_hooks';
import { messageOf } from './message.js';
import type { Run } from './run.js';

/** Told of an error that nobody caught, and of the run that it came from if that is known. */
export type OnUncaught = (error: unknown, run: Run | undefined) => void;

/** Marks what a run starts, in all its promises and timers. One for the process, as the events that it serves are. */
const marks = new AsyncLocalStorage<Run>();
let marking = false;
const listeners = new Set<OnUncaught>();

/**
 * Keeps the process alive when code that a run started fails where nobody catches it: a promise that nobody awaits, a callback
 * of a timer. Otherwise Node would end the process, and with it all other runs. Errors are told to one listener.
 * Which run it was costs 0.6 µs for each promise of the process to know (1.7 µs for a run that awaits twice become 4.7), so
 * runs are marked from the first such error on only, and that one has no name.
 *
 * @returns ends it
 */
export function catchUncaught(listener: OnUncaught): () => void {
  if (listeners.size === 0) for (const event of events) process.on(event, tell);
  listeners.add(listener);
  return () => {
    if (listeners.delete(listener) && listeners.size === 0) for (const event of events) process.off(event, tell);
  };
}

/** Calls a function of a run; what it starts can be told from what others start. */
export function marked<T>(run: Run, work: () => T): T {
  return marking ? marks.run(run, work) : work();
}

const events = ['unhandledRejection', 'uncaughtException'] as const;

function tell(error: unknown): void {
  const run = marks.getStore();
  marking = true;
  for (const listener of listeners) {
    try {
      listener(error, run);
    } catch (failure) {
      process.emitWarning(`an uncaught error could not be logged: ${messageOf(failure)}`, 'SyncSetsWarning');
    }
    return;
  }
}
