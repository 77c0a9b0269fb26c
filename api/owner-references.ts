import type { Dependent, OwnerState } from '../db/index.js';
import { finalizersOf } from './fields.js';
import { isObject } from './json.js';
import type { TypeDefinition } from './type-definition.js';

/** An owner as its dependent names it. */
export interface Reference {
  type: string;
  namespace: string;
  name: string;
  uid: string;
  block: boolean;
  raw: unknown;
}

/** solid: it is there. waiting: it goes once its dependents are gone. leaving: it goes and its dependents stay. */
export type Standing = 'solid' | 'waiting' | 'leaving' | 'absent';

/** An object that may have owners. */
export type Item = Dependent & { type: TypeDefinition };

/** How an owner stands, from what is stored at its place. */
export function standingOf({ uid }: Reference, state: OwnerState | undefined): Standing {
  if (state?.uid !== uid) return 'absent';
  if (!state.deleting) return 'solid';
  const finalizers = finalizersOf({ finalizers: state.finalizers });
  if (finalizers.includes('orphan')) return 'leaving';
  return finalizers.includes('foreground') ? 'waiting' : 'solid';
}

/** The owners that an object names. One without a namespace lies in that of the object, unless its type is cluster-wide. */
export function referencesOf(types: Map<string, TypeDefinition>, item: Item): Reference[] {
  if (!Array.isArray(item.owners)) return [];
  return item.owners.filter(isObject).map(raw => {
    const text = (field: string) => (typeof raw[field] === 'string' ? raw[field] : '');
    const owner = types.get(text('type'));
    const namespace =
      owner?.namespaced === false ? '' : text('namespace') || (item.type.namespaced ? item.namespace : '');
    return {
      type: text('type'),
      namespace,
      name: text('name'),
      uid: text('uid'),
      block: raw['blockOwnerDeletion'] === true,
      raw,
    };
  });
}

/** Where an object is, as one text. */
export function placeOf({ type, namespace, name }: { type: string; namespace: string; name: string }): string {
  return `${type}/${namespace}/${name}`;
}
