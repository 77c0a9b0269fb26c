import { randomInt, randomUUID } from 'node:crypto';
import { ApiError } from './errors.js';
import { labelsOf, metadataFields, ownFields, pick } from './fields.js';
import { checkInput } from './input.js';
import type { JsonObject } from './json.js';
import { authorship, sized, type Creation, type Prepared, type Workshop } from './operation.js';
import { withBody } from './preconditions.js';
import { describe, invalid, namespaceFor, refuse, refuseForeignType } from './refusals.js';
import type { TypeDefinition } from './type-definition.js';

/** Makes a new object ready to be stored. Throws Conflict, Invalid, TooLarge, Forbidden. */
export async function prepareCreation(creation: Creation, { secrets, admit }: Workshop): Promise<Prepared> {
  const { type, input, writer, dryRun = false } = creation;
  refuseForeignType(type, input);
  const { key, generated } = keyOf(type, input);
  const { resourceVersion, uid: known } = withBody({}, input);
  const demanded = resourceVersion ?? known;
  if (demanded !== undefined) {
    const field = resourceVersion === undefined ? 'uid' : 'resourceVersion';
    throw new ApiError(
      'Conflict',
      `A new ${describe(type, key)} cannot have the ${field} ${demanded} of a stored object; leave it out.`,
    );
  }
  const author = authorship(type, key, writer);
  const uid = randomUUID();
  const wanted = {
    type: type.type,
    name: key.name,
    ...(type.namespaced ? { namespace: key.namespace } : {}),
    uid,
    generation: 1,
    ...pick(input, metadataFields),
    ...ownFields(type, input),
  };
  const mutable = [...type.fields, ...metadataFields];
  const context = { verb: 'create', controller: writer.claim?.controller, dryRun } as const;
  const admitted = await admit({ type, object: wanted, previous: undefined, differing: undefined, mutable, context });
  if (admitted.violations.length > 0) throw invalid(admitted.violations);
  // What a rule made of it has not been checked by the route.
  if (admitted.object !== wanted) refuse(checkInput(type, inputOf(type, admitted.object)));
  const { masked, sealed, violations } = secrets.seal(type, uid, admitted.object, null);
  if (violations.length > 0) throw invalid(violations);
  const json = sized(masked, sealed);
  return {
    type,
    key,
    item: {
      op: 'create',
      ...key,
      uid,
      object: json,
      labels: labelsOf(masked),
      sealed,
      changed: Array.isArray(masked['owners']) && masked['owners'].length > 0 ? ['spec', 'owners'] : ['spec'],
      ...author,
    },
    answer: ({ version, stamp, object }) => {
      const stamps = `"resourceVersion":"${version}","createdAt":"${stamp}","updatedAt":"${stamp}"}`;
      return { key, json: object ?? `${json.slice(0, -1)},${stamps}`, version: String(version) };
    },
    warnings: admitted.warnings,
    mayRetry: outcome => outcome === 'exists' && generated,
  };
}

function keyOf(type: TypeDefinition, input: JsonObject) {
  const text = (field: string) => {
    const value = input[field];
    return typeof value === 'string' ? value : undefined;
  };
  const namespace = namespaceFor(type, text('namespace'));
  const name = text('name') ?? `${text('generateName') ?? ''}${suffix()}`;
  return {
    key: { namespace, name },
    generated: text('name') === undefined,
  };
}

// Those of Kubernetes: without vowels, and without digits that look like letters, no word comes out.
const alphabet = 'bcdfghjklmnpqrstvwxz2456789';

/** Five characters: 14 million names for each prefix. */
function suffix(): string {
  return Array.from({ length: 5 }, () => alphabet[randomInt(alphabet.length)]).join('');
}

function inputOf(type: TypeDefinition, object: JsonObject): JsonObject {
  return pick(object, ['name', ...(type.namespaced ? ['namespace'] : []), ...metadataFields, ...type.fields]);
}
