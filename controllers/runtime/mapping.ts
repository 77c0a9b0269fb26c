import type { MapClaim, Resource, Target } from '../../client/index.js';
import type { Controller, Targets } from './controller.js';

/**
 * The keys that the events of a watched type mean: those that depended on the object before, and those that depend on it
 * after. Each is named once.
 * @throws whatever the controller's `enqueue` throws; TypeError for a type that the controller does not watch
 */
export function targetsOf<T extends Resource>(controller: Controller<T>, claim: MapClaim): Target[] {
  const watch = controller.watches?.find(({ type }) => type === claim.type);
  if (!watch) throw new TypeError(`${controller.name} does not watch ${claim.type}; is an older release running?`);
  // One watch's function takes one type's objects, and these are of that type: the claim says so.
  const enqueue = watch.enqueue.bind(watch) as (object: Resource) => Targets | undefined;
  const targets = new Map<string, Target>();
  for (const { before, object } of claim.events) {
    for (const state of [before, object]) {
      if (!state) continue;
      for (const target of expand(controller, state, enqueue(state))) targets.set(JSON.stringify(target), target);
    }
  }
  return [...targets.values()];
}

function expand<T extends Resource>(
  controller: Controller<T>,
  state: Resource,
  targets: Targets | undefined,
): Target[] {
  if (!targets) return [];
  const { type = controller.type } = targets;
  if (type === '*')
    throw new TypeError(`${controller.name} reconciles all types, so what it enqueues must say its type`);
  if ('all' in targets) return [{ type, all: true }];
  const { namespace } = targets;
  if ('labelSelector' in targets) {
    return [{ type, ...(namespace !== undefined && { namespace }), labelSelector: targets.labelSelector }];
  }
  const place = namespace ?? state.namespace;
  return targets.names.map(name => ({ type, ...(place !== undefined && { namespace: place }), name }));
}
