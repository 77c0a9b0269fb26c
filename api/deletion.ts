import { formerValues } from './changes.js';
import { notFound } from './errors.js';
import { asObject, finalizersOf, generationOf, labelsOf, without } from './fields.js';
import { stringifyJson } from './json.js';
import { authorship, sized, unchanged, type Deletion, type Prepared, type Workshop } from './operation.js';
import { demand } from './preconditions.js';
import { describe } from './refusals.js';

/** Makes the deletion of an object ready, or its mark while it has finalizers. Throws NotFound, Conflict, Forbidden. */
export async function prepareDeletion(deletion: Deletion, { read }: Workshop): Promise<Prepared> {
  const { type, key, preconditions, writer } = deletion;
  const stored = await read(type.type, key);
  if (!stored) throw notFound(describe(type, key));
  const previous = asObject(stored);
  demand(type, key, previous, preconditions);
  const author = authorship(type, key, writer);
  const mayRetry: Prepared['mayRetry'] = outcome =>
    outcome === 'conflict' && preconditions.resourceVersion === undefined;
  if (finalizersOf(previous).length === 0) {
    return {
      type,
      key,
      item: {
        op: 'delete',
        ...key,
        expect: stored.version,
        before: formerValues(previous, []),
        changed: ['deletion'],
        ...author,
      },
      answer: ({ version }) => ({
        key,
        json: stringifyJson({ ...previous, resourceVersion: String(version) }),
        version: String(version),
      }),
      warnings: [],
      mayRetry,
    };
  }
  if (previous['deletedAt'] !== undefined)
    return { type, key, answer: () => unchanged(stored), warnings: [], mayRetry };
  const generation = generationOf(previous) + 1;
  return {
    type,
    key,
    item: {
      op: 'update',
      ...key,
      expect: stored.version,
      object: sized(without({ ...previous, generation }, ['updatedAt'])),
      labels: labelsOf(previous),
      keepSealed: true,
      deleting: true,
      before: formerValues(previous, ['updatedAt', 'generation', 'deletedAt']),
      changed: ['deletion'],
      ...author,
    },
    answer: ({ version, stamp, object }) => ({
      key,
      json:
        object ??
        stringifyJson({
          ...previous,
          generation,
          updatedAt: stamp,
          deletedAt: stamp,
          resourceVersion: String(version),
        }),
      version: String(version),
    }),
    warnings: [],
    mayRetry,
  };
}
