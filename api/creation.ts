import { randomUUID } from 'node:crypto';
import { labelsOf, metadataFields, ownFields, pick } from './fields.js';
import type { JsonObject } from './json.js';
import { authorship, sized, type Creation, type Prepared, type Workshop } from './operation.js';
import { invalid, refuseForeignType } from './refusals.js';

/** Makes a new object ready to be stored. Throws Invalid, TooLarge, Forbidden. */
export function prepareCreation(creation: Creation, { secrets }: Workshop): Prepared {
  const { type, input, writer } = creation;
  const name = typeof input['name'] === 'string' ? input['name'] : '';
  const given = typeof input['namespace'] === 'string' ? input['namespace'] : undefined;
  if (!type.namespaced && given !== undefined && given !== '') {
    throw invalid([{ path: 'namespace', message: `must be left out: ${type.type} are cluster-wide` }]);
  }
  const key = { namespace: type.namespaced ? (given ?? 'default') : '', name };
  refuseForeignType(type, input);
  const uid = randomUUID();
  const { masked, sealed, violations } = secrets.seal(type, uid, ownFields(type, input), null);
  if (violations.length > 0) throw invalid(violations);
  const object: JsonObject = {
    type: type.type,
    name,
    ...(type.namespaced ? { namespace: key.namespace } : {}),
    uid,
    generation: 1,
    ...pick(input, metadataFields),
    ...masked,
  };
  const json = sized(object);
  return {
    type,
    key,
    item: {
      op: 'create',
      ...key,
      uid,
      object: json,
      labels: labelsOf(input),
      sealed,
      changed: ['spec'],
      ...authorship(type, key, writer),
    },
    answer: ({ version, stamp, object }) => {
      const stamps = `"resourceVersion":"${version}","createdAt":"${stamp}","updatedAt":"${stamp}"}`;
      return { key, json: object ?? `${json.slice(0, -1)},${stamps}`, version: String(version) };
    },
    mayRetry: () => false,
  };
}
