import { isPlatformError, type Client, type Resource } from '../../client/index.js';
import type { Controller, Result } from './controller.js';
import type { Run } from './run.js';

/** Attempts at a change that others get in the way of; each reads the object anew. */
const attempts = 8;

/**
 * Calls a controller for a run. With a finalizer: puts that on the object first, and once the object is to be deleted calls
 * `finalize` in place of `reconcile` and takes it off.
 */
export async function reconcile<T extends Resource>(controller: Controller<T>, run: Run): Promise<Result | undefined> {
  // Claimed as an object of the type that the controller reconciles.
  let object = run.object as T | undefined;
  const { finalizer } = controller;
  if (finalizer !== undefined && object) {
    const mine = object.finalizers?.includes(finalizer) === true;
    if (object.deletedAt !== undefined) {
      if (!mine) return undefined;
      await controller.finalize?.(object, run);
      await removeFinalizer(run.client, object, finalizer);
      return undefined;
    }
    if (!mine) object = await addFinalizer(run.client, object, finalizer);
    if (!object) return undefined;
  }
  return (await controller.reconcile(object, run)) ?? undefined;
}

/** Puts a finalizer on an object; returns the object with it, or undefined when it is gone or being deleted. */
async function addFinalizer<T extends Resource>(client: Client, object: T, finalizer: string): Promise<T | undefined> {
  if (object.deletedAt !== undefined) return undefined;
  const found = await change(client, object, current => {
    const { finalizers = [], deletedAt } = current;
    return deletedAt !== undefined || finalizers.includes(finalizer) ? undefined : [...finalizers, finalizer];
  });
  // Deleted before the finalizer was on it: what a run made outside for it now, nobody would take away.
  return found?.deletedAt === undefined ? found : undefined;
}

/** Takes a finalizer off an object; the last one lets it go. */
async function removeFinalizer(client: Client, object: Resource, finalizer: string): Promise<void> {
  await change(client, object, ({ finalizers = [] }) =>
    finalizers.includes(finalizer) ? finalizers.filter(one => one !== finalizer) : undefined,
  );
}

/** Changes the finalizers of exactly this object, in the version that they were computed from. */
async function change<T extends Resource>(
  client: Client,
  object: T,
  compute: (current: Resource) => string[] | undefined,
): Promise<T | undefined> {
  const collection = client.collection(object.type);
  let current: Resource = object;
  for (let attempt = 1; ; attempt++) {
    const finalizers = compute(current);
    if (!finalizers) return current as T;
    try {
      const { uid, resourceVersion } = current;
      // Read from the collection of its own type, so it is what the object was.
      return (await collection.patch(current, { finalizers, uid, resourceVersion })) as T;
    } catch (error) {
      if (isPlatformError(error, 'NotFound')) return undefined;
      if (!isPlatformError(error, 'Conflict') || attempt === attempts) throw error;
    }
    try {
      current = await collection.read(current);
    } catch (error) {
      if (isPlatformError(error, 'NotFound')) return undefined;
      throw error;
    }
    if (current.uid !== object.uid) return undefined;
  }
}
