import { randomBytes } from 'node:crypto';
import { hostname } from 'node:os';
import {
  isPlatformError,
  type ControllerView,
  type Controllers,
  type Interest,
  type Resource,
} from '../../client/index.js';
import type { Controller } from './controller.js';
import type { Log } from './log.js';

/**
 * Registers a controller and returns the registration that holds. An older release beside a newer one, as in a rolling update,
 * works under the newer registration.
 * @throws PlatformError `Conflict`: another registration with the same revision is stored, or one for another type;
 *   ConnectionError
 */
export async function register<T extends Resource>(
  controller: Controller<T>,
  controllers: Controllers,
  log: Log,
  signal: AbortSignal,
): Promise<ControllerView> {
  const { name, type, on, watches = [], claimSeconds, revision = 0, reveal, longRunning, finalizer } = controller;
  const registration = {
    type,
    // A finalizer that does not hear of deletions would keep its objects for ever.
    on: on && finalizer !== undefined ? [...new Set<Interest>([...on, 'deletion'])] : on,
    watches: watches.map(watch => watch.type),
    claimSeconds,
    revision,
    reveal,
    longRunning,
  };
  try {
    return await controllers.register(name, registration, signal);
  } catch (error) {
    if (!isPlatformError(error, 'Conflict')) throw error;
    const stored = await controllers.read(name, signal);
    if (stored.type !== type || (stored.revision ?? 0) <= revision) throw error;
    log.warn({ revision, stored: stored.revision }, 'a newer release is registered; working by its registration');
    return stored;
  }
}

/** A worker's name: unique among all processes of the fleet, and says which one it is. */
export function workerName(): string {
  const host = hostname()
    .replace(/[^A-Za-z0-9.-]/g, '-')
    .replace(/^[^A-Za-z0-9]+/, '')
    .slice(0, 64);
  return `${host || 'worker'}.${process.pid}.${randomBytes(4).toString('hex')}`;
}
