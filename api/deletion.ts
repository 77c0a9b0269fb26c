import type { ChangedPart } from '../db/index.js';
import { formerValues } from './changes.js';
import { notFound } from './errors.js';
import { asObject, finalizersOf, generationOf, labelsOf, without } from './fields.js';
import { stringifyJson } from './json.js';
import {
  authorship,
  sized,
  unchanged,
  type Deletion,
  type Prepared,
  type Propagation,
  type Workshop,
} from './operation.js';
import { demand } from './preconditions.js';
import { describe } from './refusals.js';

/** The finalizers with which the garbage collector holds an owner until it has dealt with the dependents. */
const collectorFinalizers = ['foreground', 'orphan'];

/**
 * Makes the deletion of an object ready, or its mark while it has finalizers. A propagation that needs the garbage collector
 * puts its finalizer on; asked again with another one while the object waits, that one holds from then on. Throws NotFound,
 * Conflict, Forbidden.
 */
export async function prepareDeletion(deletion: Deletion, { read }: Workshop): Promise<Prepared> {
  const { type, key, preconditions, writer, propagation } = deletion;
  const stored = await read(type.type, key);
  if (!stored) throw notFound(describe(type, key));
  const previous = asObject(stored);
  demand(type, key, previous, preconditions);
  const author = authorship(type, key, writer);
  const mayRetry: Prepared['mayRetry'] = outcome =>
    outcome === 'conflict' && preconditions.resourceVersion === undefined;
  const former = finalizersOf(previous);
  const finalizers = withPropagation(former, propagation);
  const marked = previous['deletedAt'] !== undefined;
  const turned = finalizers.join() !== former.join();
  const changed: ChangedPart[] = ['deletion', ...(turned ? (['metadata'] as const) : []), 'owners'];
  if (finalizers.length === 0) {
    return {
      type,
      key,
      item: {
        op: 'delete',
        ...key,
        expect: stored.version,
        last: stringifyJson(without(previous, ['resourceVersion'])),
        before: formerValues(previous, []),
        changed,
        ...author,
      },
      answer: ({ version, object }) => ({
        key,
        json: object ?? stringifyJson({ ...previous, resourceVersion: String(version) }),
        version: String(version),
      }),
      warnings: [],
      mayRetry,
    };
  }
  if (marked && !turned) return { type, key, answer: () => unchanged(stored), warnings: [], mayRetry };
  const generation = generationOf(previous) + (marked ? 0 : 1);
  const next = { ...previous, generation, finalizers };
  return {
    type,
    key,
    item: {
      op: 'update',
      ...key,
      expect: stored.version,
      object: sized(without(next, ['updatedAt'])),
      labels: labelsOf(previous),
      keepSealed: true,
      deleting: !marked,
      before: formerValues(previous, [
        'updatedAt',
        ...(marked ? [] : ['generation', 'deletedAt']),
        ...(turned ? ['finalizers'] : []),
      ]),
      changed,
      ...author,
      // Not the writer's own change: a controller that deletes what it works on has yet to run for its finalizer.
      own: author.own && marked,
    },
    answer: ({ version, stamp, object }) => ({
      key,
      json:
        object ??
        stringifyJson({
          ...next,
          updatedAt: stamp,
          ...(marked ? {} : { deletedAt: stamp }),
          resourceVersion: String(version),
        }),
      version: String(version),
    }),
    warnings: [],
    mayRetry,
  };
}

function withPropagation(finalizers: string[], propagation: Propagation | undefined): string[] {
  if (propagation === undefined) return finalizers;
  const own = { Background: [], Foreground: ['foreground'], Orphan: ['orphan'] }[propagation];
  const others = finalizers.filter(one => !collectorFinalizers.includes(one));
  const same = finalizers.filter(one => collectorFinalizers.includes(one)).join() === own.join();
  return same ? finalizers : [...others, ...own];
}
