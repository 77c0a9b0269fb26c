import type { EnqueueTarget, Key, Registration } from '../db/index.js';
import { ApiError } from './errors.js';
import { below } from './json.js';
import { typeOf, type Platform } from './platform.js';
import { parseLabelSelector } from './selectors.js';
import type { TypeDefinition } from './type-definition.js';

/** Names one object. */
export interface WorkKey {
  /** Left out: the controller's own type. */
  type?: string;
  /**
   * Left out: `default`, or none for a cluster-wide type.
   * @maxLength 63 must have at most 63 characters
   */
  namespace?: string;
  /** @maxLength 253 must have at most 253 characters */
  name: string;
}

/** Names a key, all objects of a type that a selector matches, or all objects of a type. */
export interface EnqueueTargetInput {
  type?: string;
  /** @maxLength 63 must have at most 63 characters */
  namespace?: string;
  /** @maxLength 253 must have at most 253 characters */
  name?: string;
  labelSelector?: string;
  all?: boolean;
}

/** `keys`, or what selects them. */
export interface EnqueueInput {
  /** @maxItems 1000 must be at most 1000 */
  keys?: WorkKey[];
  type?: string;
  namespace?: string;
  labelSelector?: string;
  /** All objects of the type. */
  all?: boolean;
  /**
   * Higher goes first. Changes by clients have 10, by controllers 0, resyncs -10.
   * @isInt
   * @minimum -100 must be at least -100
   * @maximum 100 must be at most 100
   * @default 0
   */
  priority?: number;
  /**
   * Run them in so many seconds at the latest: a key that waits for a later time is due then, one that is queued already runs before,
   * and one that a worker holds is queued again at that time, or when its result says if that is sooner.
   * @minimum 0 must not be negative
   * @maximum 31536000 must be at most a year
   */
  afterSeconds?: number;
}

/** How much was queued. */
export interface EnqueueCount {
  /**
   * How many keys were named or matched.
   * @isInt
   */
  count: number;
}

/**
 * The key of a controller that is named, with what was left out.
 *
 * @param path where it was sent, for the error
 * @throws ApiError Invalid for a type that is not the controller's, no name, and a key of a task that is not its one; UnknownType
 *   for a type that is none
 */
export function keyOf(
  platform: Platform,
  registration: Registration,
  key: WorkKey,
  path: string,
): { type: string } & Key {
  const { type, namespaced } = typeFor(platform, registration, key.type, path);
  if (key.name === '') {
    // Not by the model: a message by a foreign hand would be refused with all that came with it.
    throw new ApiError('Invalid', `${path}: the name must not be empty.`, {
      details: [{ path: `${path}.name`, message: 'must not be empty' }],
    });
  }
  if (type === '-' && key.name !== registration.name) {
    throw new ApiError('Invalid', `${path}: the one key of the task ${registration.name} has its name.`, {
      details: [{ path: `${path}.name`, message: `must be "${registration.name}"` }],
    });
  }
  return { type, namespace: namespaced ? (key.namespace ?? 'default') : '', name: key.name };
}

/**
 * The keys of a controller that are named or selected; errors as those of `keyOf`.
 *
 * @param path where the target stands in the body; empty: it is the body
 * @throws ApiError Invalid also unless they are said in exactly one way, InvalidQuery for a selector that is none
 */
export function targetOf(
  platform: Platform,
  registration: Registration,
  target: EnqueueTargetInput,
  path: string,
): EnqueueTarget {
  const { name, namespace, labelSelector, all } = target;
  if ([name, labelSelector, all === true ? true : undefined].filter(one => one !== undefined).length !== 1) {
    const start = path === '' ? 'Name' : `${path}: name`;
    throw new ApiError('Invalid', `${start} keys by exactly one of name, labelSelector, all: true.`, {
      details: [
        { path: path === '' ? 'labelSelector' : path, message: 'exactly one of name, labelSelector, all: true' },
      ],
    });
  }
  if (name !== undefined) return keyOf(platform, registration, { ...target, name }, path);
  const { type } = typeFor(platform, registration, target.type, path);
  return {
    type,
    ...(namespace === undefined ? {} : { namespace }),
    selector: { labels: parseLabelSelector(labelSelector ?? ''), fields: [] },
  };
}

function typeFor(
  platform: Platform,
  registration: Registration,
  type: string | undefined,
  path: string,
): Pick<TypeDefinition, 'type' | 'namespaced'> {
  const name = type ?? registration.type;
  if (name === '*' || (registration.type !== '*' && registration.type !== name)) {
    const place = below(path, 'type');
    throw new ApiError(
      'Invalid',
      `${place} must be ${registration.type === '*' ? 'named' : `"${registration.type}", which the controller reconciles`}.`,
      { details: [{ path: place, message: 'is not a type of this controller' }] },
    );
  }
  return name === '-' && registration.type === '-' ? { type: name, namespaced: false } : typeOf(platform, name);
}
