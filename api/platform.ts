import type { Bus } from '../bus/index.js';
import type { Database, Log, ObjectStore } from '../db/index.js';
import type { Claims } from './claims.js';
import { ApiError } from './errors.js';
import type { Garbage } from './garbage.js';
import type { Idempotency } from './idempotency.js';
import type { Objects } from './objects.js';
import type { Secrets } from './secrets.js';
import type { TypeDefinition } from './type-definition.js';
import type { Watches } from './watch.js';

/** What the controllers of the API work with: one per process, handed to each by `ioc.ts`. */
export interface Platform {
  types: Map<string, TypeDefinition>;
  /** Types whose objects are bound to others by rules: their writes keep their order. */
  ruled: ReadonlySet<string>;
  database: Database;
  store: ObjectStore;
  objects: Objects;
  secrets: Secrets;
  idempotency: Idempotency;
  watches: Watches;
  claims: Claims;
  garbage: Garbage;
  bus: Bus;
  log: Log;
}

/** The definition of a type by its name. Throws UnknownType. */
export function typeOf(platform: Platform, name: string): TypeDefinition {
  const type = platform.types.get(name);
  if (!type)
    throw new ApiError(
      'UnknownType',
      `There is no type "${name}"; there are ${[...platform.types.keys()].join(', ')}.`,
    );
  return type;
}
