import type { Document, Operation, Schema } from './document.js';
import type { TypeModel } from './read-types.js';
import { routes } from './routes.js';

type Fields = Record<string, unknown>;

const mask = '••••••';
const time = '2027-01-31T12:00:00.000Z';
const uid = '5b1f4c0a-8f0e-4d8c-9a56-3f2f6a1f0c11';

/** Values of query parameters that have a value for everybody; versions, uids and tokens come from answers. */
const parameters: Fields = {
  labelSelector: 'env=prod,tier notin (web,db),!legacy',
  fields: 'labels,generation',
  limit: 100,
  state: 'queued',
  dryRun: 'All',
  propagationPolicy: 'Background',
  watch: true,
  worker: 'worker-1',
};

/** Bodies and answers of the routes that are not of a type. */
const others: Record<string, { body?: unknown; lines?: unknown[]; answer?: unknown }> = {
  carryOutBatch: {
    body: {
      atomic: true,
      operations: [
        { op: 'upsert', type: 'clusters', object: { name: 'cluster1', namespace: 'default', labels: { env: 'prod' } } },
        { op: 'patch', type: 'clusters', namespace: 'default', name: 'cluster1', patch: { labels: { tier: 'web' } } },
      ],
    },
    lines: [
      { op: 'upsert', type: 'clusters', object: { name: 'cluster1', namespace: 'default', labels: { env: 'prod' } } },
      { op: 'delete', type: 'clusters', namespace: 'default', name: 'cluster7' },
    ],
  },
  registerController: { body: { type: 'clusters', on: ['spec', 'deletion'], claimSeconds: 15, revision: 1 } },
  claimWork: { body: { worker: 'worker-1', max: 10, waitSeconds: 0 }, answer: { claims: [] } },
  renewWork: {
    body: { worker: 'worker-1' },
    answer: { expiresInSeconds: 15, held: [], lost: [], changed: [] },
  },
  finishWork: {
    body: { results: [{ token: 'a2V5fDI2N2Fh', result: 'done', requeueAfterSeconds: 3600 }] },
    answer: { results: [{ token: 'a2V5fDI2N2Fh', state: 'fenced' }] },
  },
  enqueueWork: { body: { keys: [{ namespace: 'default', name: 'cluster1' }], priority: 10 }, answer: { count: 1 } },
  collectGarbage: {
    body: { objects: [{ type: 'clusters', namespace: 'default', name: 'cluster1' }] },
    answer: { deleted: 0, released: 0, waiting: [false], refused: [null] },
  },
  listWork: { answer: { items: [] } },
};

/**
 * Adds examples that can be sent as they are: of a type from its own fields, those with `@example` and those that must be there.
 * `test/document/examples.test.ts` sends them.
 */
export function addExamples(document: Document, types: TypeModel[]): void {
  const { schemas } = document.components;
  for (const operation of Object.values(document.paths).flatMap(path => Object.values(path))) {
    const { body, lines, answer } = others[operation.operationId] ?? {};
    setBody(operation, 'application/json', body);
    if (lines) setBody(operation, 'application/x-ndjson', lines.map(line => `${JSON.stringify(line)}\n`).join(''));
    setAnswer(operation, answer);
    setParameters(operation, { ...parameters, name: 'hello' });
  }
  for (const type of types) {
    const input = inputOf(type, schemas);
    const stored = storedOf(type, input);
    for (const route of routes(type)) {
      const path = document.paths[`/v1/${type.type}${route.path === '' ? '' : `/${route.path}`}`];
      const operation = path?.[route.method.toLowerCase()];
      if (!operation) continue;
      const { name, namespace } = input;
      const index = type.fields.find(field => field.index);
      for (const one of [operation, ...(route.method === 'Get' && path['head'] ? [path['head']] : [])])
        setParameters(one, {
          ...parameters,
          name,
          namespace,
          fieldSelector: `name=${String(name)}`,
          ...(index ? { orderBy: `${index.name} desc` } : {}),
        });
      const examples = examplesOf(type, route.name, input, stored, schemas);
      setBody(operation, 'application/json', examples.body);
      setBody(operation, 'application/merge-patch+json', examples.body);
      setBody(operation, 'application/json-patch+json', examples.patch);
      setAnswer(operation, examples.answer);
    }
  }
}

function examplesOf(
  { status, type }: TypeModel,
  route: string,
  input: Fields,
  stored: Fields,
  schemas: Record<string, Schema>,
): { body?: unknown; patch?: unknown; answer?: unknown } {
  const labels = { env: 'prod', tier: 'web' };
  const state = status === undefined ? {} : exampleOf({ $ref: `#/components/schemas/${status}` }, schemas);
  const patch = [{ op: 'add', path: '/labels/tier', value: 'web' }];
  const notice = { reason: 'CertificateExpires', message: 'The certificate ends in 6 days.' };
  const kept = { ...notice, actor: 'client', count: 1, first: time, last: time };
  switch (route) {
    case 'create':
    case 'replace':
      return { body: input, answer: stored };
    case 'patch':
    case 'patchMetadata':
      return { body: { labels: { tier: 'web', old: null } }, patch, answer: { ...stored, labels } };
    case 'replaceMetadata':
      return { body: { labels }, answer: { ...stored, labels } };
    case 'replaceStatus':
      return { body: { status: state }, answer: { ...stored, status: state } };
    case 'patchStatus':
      return {
        body: { status: state },
        patch: [{ op: 'add', path: '/status', value: state }],
        answer: { ...stored, status: state },
      };
    case 'recordNotice':
      return { body: notice, answer: kept };
    case 'listNotices':
      return { answer: { items: [kept] } };
    case 'list':
      return { answer: { items: [stored], resourceVersion: '42' } };
    case 'deleteAll':
      return { answer: { count: 1 } };
    case 'reveal':
      return { answer: { resourceVersion: '42', fields: type === 'clusters' ? { kubeconfig: 'apiVersion: v1' } : {} } };
    default:
      return { answer: stored };
  }
}

/** An object of a type as a client sends it. */
function inputOf({ kind, namespaced, fields }: TypeModel, schemas: Record<string, Schema>): Fields {
  const properties = schemas[`${kind}Input`]?.properties ?? {};
  const required = schemas[`${kind}Input`]?.required ?? [];
  const own = fields.flatMap(({ name }): [string, unknown][] => {
    const schema = properties[name];
    if (!schema || (schema['example'] === undefined && !required.includes(name))) return [];
    return [[name, exampleOf(schema, schemas)]];
  });
  const place = { name: `${kind.toLowerCase()}1`, ...(namespaced ? { namespace: 'default' } : {}) };
  return { ...place, labels: { env: 'prod' }, ...Object.fromEntries(own) };
}

/** The same object as the server answers it. */
function storedOf({ type, fields }: TypeModel, input: Fields): Fields {
  const own = fields.flatMap(({ name, secret, default: fallback }): [string, unknown][] => {
    const value = name in input ? input[name] : fallback?.value;
    if (value === undefined) return [];
    if (!secret) return [[name, value]];
    const keys = typeof value === 'object' && value !== null ? Object.keys(value) : [];
    return [[name, secret.map ? Object.fromEntries(keys.map(key => [key, mask])) : mask]];
  });
  const { name, namespace, labels } = input;
  const place = { type, name, ...(namespace === undefined ? {} : { namespace }), labels };
  const server = { uid, resourceVersion: '42', generation: 1, createdAt: time, updatedAt: time };
  return { ...place, ...Object.fromEntries(own), ...server };
}

/** A value of a schema: its example or default, else the simplest there is; of optional fields those with an example. */
function exampleOf(given: Schema, schemas: Record<string, Schema>): unknown {
  if (given['example'] !== undefined) return given['example'];
  const [part] = (given['allOf'] ?? []) as Schema[];
  const reference = given.$ref ?? part?.$ref;
  const schema = reference === undefined ? given : (schemas[reference.replace('#/components/schemas/', '')] ?? {});
  if (schema['example'] !== undefined) return schema['example'];
  if (schema['default'] !== undefined) return schema['default'];
  const [choice] = (schema['enum'] ?? []) as unknown[];
  if (choice !== undefined) return choice;
  switch (schema.type) {
    case 'array':
      return [];
    case 'boolean':
      return true;
    case 'integer':
    case 'number':
      return schema['minimum'] ?? 1;
    case 'string':
      return schema['format'] === 'date-time' ? time : 'example';
    default: {
      const fields = Object.entries(schema.properties ?? {}).filter(
        ([name, field]) => schema.required?.includes(name) === true || field['example'] !== undefined,
      );
      return Object.fromEntries(fields.map(([name, field]) => [name, exampleOf(field, schemas)]));
    }
  }
}

function setParameters(operation: Operation, values: Fields): void {
  for (const parameter of operation.parameters ?? []) {
    const value = parameter.name === undefined ? undefined : values[parameter.name];
    if (value !== undefined) parameter.example = value;
  }
}

function setBody({ requestBody }: Operation, mediaType: string, example: unknown): void {
  const media = requestBody?.content[mediaType];
  if (media && example !== undefined) media.example = example;
}

function setAnswer({ responses }: Operation, example: unknown): void {
  for (const code of [200, 201]) {
    const media = responses[code]?.content?.['application/json'];
    if (media && example !== undefined) media.example = example;
  }
}
