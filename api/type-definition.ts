import type { IndexedField } from '../db/index.js';
import type { AnyRule } from './admission.js';

/**
 * What the platform must know of a type beside its models. The generator writes one per type file into `build/types.ts`.
 */
export interface TypeDefinition {
  /** The plural in lower case, which names route, table and events: `clusters`. */
  type: string;
  /** The name of the interface: `Cluster`. */
  kind: string;
  namespaced: boolean;
  /** The interface's doc comment. */
  description: string;
  /** The names of the type's own fields, without `status`. */
  fields: string[];
  /** Fields marked `@secret`; `map` says that each value of the map is a secret, else the field is one. */
  secrets: { field: string; map: boolean }[];
  /** Fields marked `@immutable`. */
  immutable: string[];
  /** Fields marked `@index`, which lists may be ordered by; numbers are ordered as numbers. */
  indexes: IndexedField[];
  /** Fields whose values together no two objects share, from `@unique`: within a namespace, or everywhere. */
  uniques: { fields: string[]; everywhere: boolean }[];
  /** Fields that name objects which must exist, from `@ref`, and what the removal of such an object does to the referrer. */
  references: { field: string; target: string; onDelete: 'refuse' | 'cascade' | 'null' }[];
  /** Values that fields left out by the client get on create and replace, from `@default`. */
  defaults: Record<string, unknown>;
  /** The only controller that may write objects of the type, from `@writer`. */
  writer?: string;
  /** How long events are kept at least, as a Postgres interval, from `@keepEvents`. */
  keepEvents?: string;
  /** The model that a whole object, as clients send it, is checked with: `ClusterInput`. */
  input: string;
  /** The model that the status is checked with: `ClusterStatus`. Missing for types without status. */
  status?: string;
  /** What a model cannot say, from the file of rules beside the type file. */
  rules?: AnyRule[];
}
