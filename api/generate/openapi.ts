import type { TypeModel } from './read-types.js';
import { routes, type Route } from './routes.js';

/** The parts of an OpenAPI 3.0 document that are touched here. */
export interface Document {
  openapi: string;
  info: Record<string, unknown>;
  servers: unknown[];
  tags?: unknown[];
  security?: unknown[];
  paths: Record<string, Record<string, Operation>>;
  components: { schemas: Record<string, Schema> } & Record<string, unknown>;
}

export interface Operation {
  operationId: string;
  tags?: string[];
  summary?: string;
  description?: string;
  parameters?: { name?: string; in?: string; $ref?: string }[];
  requestBody?: { required?: boolean; content: Content; [field: string]: unknown };
  responses: Partial<Record<string, Answer>>;
  security?: unknown[];
}

export interface Schema {
  $ref?: string;
  type?: string;
  properties?: Record<string, Schema>;
  required?: string[];
  [field: string]: unknown;
}

interface Answer {
  $ref?: string;
  description?: string;
  content?: Content;
  headers?: Record<string, unknown>;
}

type Content = Record<string, { schema?: Schema }>;

const errors: Record<number, [name: string, description: string]> = {
  400: [
    'BadRequest',
    'The body is not JSON, or something in the body or the query is unknown (InvalidJson, UnknownField, InvalidQuery).',
  ],
  401: ['Unauthorized', 'The bearer token is missing or wrong.'],
  403: ['Forbidden', 'The request is not allowed.'],
  404: ['NotFound', 'There is no such object.'],
  409: [
    'Conflict',
    'Something else was there first: AlreadyExists, Conflict (the object has changed, read it again), Fenced, NotUnique, Referenced.',
  ],
  410: ['Expired', 'The version asked for is no longer kept: list again and go on from there.'],
  413: ['TooLarge', 'The body is larger than the limit, which the message names.'],
  415: ['UnsupportedMediaType', 'The content type is none that the route takes.'],
  422: ['Invalid', 'Fields are wrong: `details` has every violation with its path.'],
  500: ['Internal', 'A bug; the request id leads to it in the log.'],
  503: ['Unavailable', 'The database does not answer; try again.'],
};
const always = [400, 401, 403, 500, 503];

const reference = (kind: string, name: string) => ({ $ref: `#/components/${kind}/${name}` });
const schemaOf = (name: string): Schema => reference('schemas', name);

/** Adds to tsoa's document what it cannot know: answers, headers, bodies, errors, security, the exact models of the types. */
export function completeDocument(document: Document, types: TypeModel[], version: string): void {
  document.info = { title: 'SyncSets', version, description: 'Typed objects, watches and work queues over HTTP.' };
  document.servers = [{ url: '/' }];
  document.security = [{ token: [] }, {}];
  document.tags = types.map(({ type, description }) => ({ name: type, description }));
  const models = document.components.schemas;
  document.components = {
    schemas: models,
    responses: Object.fromEntries(
      Object.values(errors).map(([name, description]) => [
        name,
        { description, content: { 'application/json': { schema: schemaOf('ErrorBody') } } },
      ]),
    ),
    parameters: { ...parameters, IdempotencyKey: idempotencyKey },
    headers,
    securitySchemes: {
      token: { type: 'http', scheme: 'bearer', description: 'Needed if the server was started with API_TOKEN.' },
    },
  };
  for (const path of Object.values(document.paths)) {
    for (const operation of Object.values(path)) general(operation);
  }
  models['PartialList'] = partialList(Object.values(models));
  Object.assign(models, shared);
  for (const type of types) {
    completeModels(models, type);
    for (const route of routes(type)) {
      const path = `/v1/${type.type}${route.path === '' ? '' : `/${route.path}`}`;
      const operation = document.paths[path]?.[route.method.toLowerCase()];
      if (!operation) throw new Error(`tsoa made no route ${route.method} ${path}`);
      completeOperation(operation, route);
      if (reads.includes(route.name)) Object.assign(document.paths[path] ?? {}, { head: headOf(operation) });
    }
  }
  completeBatch(document);
  document.paths = sorted(document.paths);
  document.components.schemas = used(document);
}

/** Bodies that are the same for all types. */
const shared: Record<string, Schema> = {
  JsonPatch: {
    type: 'array',
    description: 'A JSON patch (RFC 6902): operations that are carried out in this order, all or none.',
    maxItems: 10_000,
    items: {
      type: 'object',
      required: ['op', 'path'],
      properties: {
        op: { type: 'string', enum: ['add', 'remove', 'replace', 'move', 'copy', 'test'] },
        path: { type: 'string', description: 'A JSON pointer (RFC 6901), such as `/labels/env`.' },
        from: { type: 'string', description: 'Where `move` and `copy` take the value.' },
        value: { description: 'For `add`, `replace` and `test`.' },
      },
    },
  },
  MetadataInput: {
    type: 'object',
    description:
      'What clients set around the own fields of an object; the rest of the object may be there and is ignored.',
    properties: {
      labels: { type: 'object', additionalProperties: { type: 'string' } },
      annotations: { type: 'object', additionalProperties: { type: 'string' } },
      finalizers: { type: 'array', items: { type: 'string' } },
      owners: { type: 'array', items: schemaOf('Owner') },
      resourceVersion: {
        type: 'string',
        pattern: '^[0-9]+$',
        description: 'The version that the object must still have, else 409.',
      },
      uid: { type: 'string', description: 'The uid that the object must have, else 409.' },
    },
    additionalProperties: true,
  },
};

const parameters = {
  IfMatch: {
    name: 'If-Match',
    in: 'header',
    description: 'The `ETag` (or resourceVersion) that the object must still have, else 409.',
    schema: { type: 'string' },
  },
  IfNoneMatch: {
    name: 'If-None-Match',
    in: 'header',
    description: 'An `ETag`: if the object still has it, the answer is 304 without a body.',
    schema: { type: 'string' },
  },
  IfAbsent: {
    name: 'If-None-Match',
    in: 'header',
    description: '`*`: create the object, and fail if it exists.',
    schema: { type: 'string', enum: ['*'] },
  },
  Prefer: {
    name: 'Prefer',
    in: 'header',
    description: '`return=minimal`: the answer comes without the object, as 204 or as 201 without a body.',
    schema: { type: 'string' },
  },
  Claim: {
    name: 'Claim',
    in: 'header',
    description: 'The token of a claim: the write is refused (409 Fenced) when the claim is no longer held.',
    schema: { type: 'string' },
  },
};

const idempotencyKey = {
  name: 'Idempotency-Key',
  in: 'header',
  description:
    'A text of up to 255 characters that names this request. Sent again with the same key within 24 hours, it gets the first answer and stores nothing; another request under the key gets 422.',
  schema: { type: 'string', maxLength: 255 },
};

const headers = {
  ETag: {
    description: "The object's resourceVersion in double quotes; missing in a dry run.",
    schema: { type: 'string' },
  },
  Location: { description: 'The path of the object; missing in a dry run.', schema: { type: 'string' } },
  Warning: {
    description:
      'What the caller should know though the write is done, as `299 - "text"`; once for each warning, at most 10.',
    schema: { type: 'string' },
  },
  PreferenceApplied: { description: '`return=minimal` if that was asked for.', schema: { type: 'string' } },
};

/** What holds for every operation, hand-written ones included. */
function general(operation: Operation): void {
  const success = Object.keys(operation.responses).filter(code => code.startsWith('2'));
  if (success.length > 1) delete operation.responses['204'];
  for (const code of always) operation.responses[code] ??= errorResponse(code);
  operation.responses['default'] = {
    description: 'Any other error.',
    content: { 'application/json': { schema: schemaOf('ErrorBody') } },
  };
  delete operation.security;
}

/** The routes that answer an object as it is stored, with its version as ETag. */
const reads = ['read', 'readStatus', 'readMetadata'];

/** The same question without the object in the answer: whether it is there, and in which version. */
function headOf(operation: Operation): Operation {
  const responses = Object.entries(operation.responses).map(([code, answer]): [string, Answer] => {
    const [, description = 'Any other error.'] = errors[Number(code)] ?? [undefined, answer?.description];
    return [code, { description, ...(answer?.headers ? { headers: answer.headers } : {}) }];
  });
  return {
    ...operation,
    operationId: operation.operationId.replace(/^read/, 'head'),
    summary: `${operation.summary ?? ''}, without a body`,
    responses: Object.fromEntries(responses),
  };
}

function completeOperation(operation: Operation, route: Route): void {
  const write = route.method !== 'Get';
  const isRead = reads.includes(route.name);
  if (route.description !== undefined) operation.description = route.description;
  for (const code of route.errors) operation.responses[code] = errorResponse(code);
  for (const code of route.success) {
    const response = operation.responses[code];
    if (!response) throw new Error(`tsoa made no answer ${code} for ${operation.operationId}`);
    const object = !['list', 'reveal', 'listNotices', 'recordNotice'].includes(route.name);
    const names = [
      ...(object ? ['ETag'] : []),
      ...(code === 201 && object ? ['Location'] : []),
      ...(object && write ? ['Preference-Applied', 'Warning'] : []),
    ];
    if (names.length > 0) response.headers = headersOf(names);
    if (route.name === 'list') {
      const stream = { schema: { type: 'string', description: 'With `watch=true`.' } };
      const whole = response.content?.['application/json']?.schema ?? {};
      response.content = {
        ...response.content,
        'application/json': { schema: { anyOf: [whole, schemaOf('PartialList')] } },
        'application/x-ndjson': stream,
        'text/event-stream': stream,
      };
    }
  }
  const header = [
    ...(write && route.key && route.method !== 'Post' ? ['IfMatch'] : []),
    ...(isRead ? ['IfNoneMatch'] : []),
    ...(route.name === 'replace' ? ['IfAbsent'] : []),
    ...(write || route.name === 'reveal' ? ['Claim'] : []),
    ...(['Post', 'Put', 'Patch'].includes(route.method) ? ['IdempotencyKey'] : []),
    ...(route.query === 'WriteQuery' || route.query === 'DeleteQuery' ? ['Prefer'] : []),
  ];
  operation.parameters = [...(operation.parameters ?? []), ...header.map(name => reference('parameters', name))];
  if (isRead)
    operation.responses['304'] = {
      description: 'The object still has the `ETag` that was sent.',
      headers: headersOf(['ETag']),
    };
  if (route.success.includes(200) && (route.query === 'WriteQuery' || route.query === 'DeleteQuery')) {
    operation.responses['204'] = {
      description: 'Done, for `Prefer: return=minimal`.',
      headers: headersOf(['ETag', 'Preference-Applied', 'Warning']),
    };
  }
  if (operation.requestBody && route.documentedBody !== undefined) {
    operation.requestBody.content = { 'application/json': { schema: schemaOf(route.documentedBody) } };
  } else if (operation.requestBody && route.method === 'Patch') {
    const patch = { schema: { type: 'object', additionalProperties: true } };
    operation.requestBody.content = {
      'application/merge-patch+json': patch,
      'application/json-patch+json': { schema: schemaOf('JsonPatch') },
      'application/json': patch,
    };
  }
}

/** The route of batches, which a stream goes through as well. */
function completeBatch(document: Document): void {
  const operation = document.paths['/v1/batch']?.['post'];
  if (!operation?.requestBody) throw new Error('tsoa made no route POST /v1/batch');
  const names = ['Claim', 'IdempotencyKey'];
  operation.parameters = [...(operation.parameters ?? []), ...names.map(name => reference('parameters', name))];
  const lines = (description: string) => ({ schema: { type: 'string', description } });
  operation.requestBody.content['application/x-ndjson'] = lines('One operation (BatchOperation) a line.');
  const answer = operation.responses[200];
  if (!answer) throw new Error('tsoa made no answer of POST /v1/batch');
  answer.content = { ...answer.content, 'application/x-ndjson': lines('One BatchResult with its `index` a line.') };
  for (const code of [404, 409, 413, 415, 422]) operation.responses[code] = errorResponse(code);
}

/** The model that is received says its type exactly; the one that is sent has the same server-set fields, as read-only. */
function completeModels(models: Record<string, Schema>, { type, kind, namespaced, status }: TypeModel): void {
  const received = models[kind];
  const sent = models[`${kind}Input`];
  if (!received?.properties || !sent?.properties) throw new Error(`tsoa made no models for ${kind}`);
  Object.assign(received.properties['type'] ?? {}, { enum: [type] });
  if (namespaced) received.required = [...(received.required ?? []), 'namespace'].sort();
  else delete received.properties['namespace'];
  const { properties } = received;
  const ignored = ['generation', 'createdAt', 'updatedAt', 'deletedAt', 'status'];
  const fields = Object.entries(sent.properties).filter(([field]) => !ignored.includes(field));
  for (const field of ignored) if (properties[field]) fields.push([field, { ...properties[field], readOnly: true }]);
  sent.properties = Object.fromEntries(fields);
  if (status !== undefined) {
    models[`${kind}StatusInput`] = {
      type: 'object',
      description: `The status of an object of the type ${type}; the rest of the object may be there and is ignored.`,
      required: ['status'],
      properties: {
        status: schemaOf(status),
        resourceVersion: sent.properties['resourceVersion'] ?? {},
        uid: sent.properties['uid'] ?? {},
      },
      additionalProperties: true,
    };
  }
}

/** What a list answers with `fields`. What surrounds the objects is as in any other list. */
function partialList(models: Schema[]): Schema {
  const page = models.find(model => model.properties?.['items'] && model.properties['remainingItemCount']);
  if (!page) throw new Error('tsoa made no model of a list');
  return {
    ...page,
    description: 'With `fields`: one page of the parts that were asked for.',
    properties: {
      ...page.properties,
      items: {
        type: 'array',
        items: {
          type: 'object',
          required: ['name', 'resourceVersion'],
          properties: {
            name: { type: 'string' },
            namespace: { type: 'string' },
            resourceVersion: { type: 'string', pattern: '^[0-9]+$' },
          },
          additionalProperties: true,
        },
      },
    },
  };
}

function headersOf(names: string[]): Record<string, unknown> {
  return Object.fromEntries(names.map(name => [name, reference('headers', name.replace('-', ''))]));
}

function errorResponse(code: number): { $ref: string } {
  return reference('responses', errors[code]?.[0] ?? 'Internal');
}

/** The schemas that are referred to from anywhere, sorted by name. */
function used(document: Document): Record<string, Schema> {
  const { schemas, ...rest } = document.components;
  const found: Record<string, Schema> = {};
  const look = (text: string) => {
    for (const [, name] of text.matchAll(/"#\/components\/schemas\/([^"]+)"/g)) {
      const schema = name === undefined ? undefined : schemas[name];
      if (name === undefined || !schema || found[name]) continue;
      found[name] = schema;
      look(JSON.stringify(schema));
    }
  };
  look(JSON.stringify([document.paths, rest]));
  return sorted(found);
}

function sorted<T>(record: Record<string, T>): Record<string, T> {
  return Object.fromEntries(Object.entries(record).sort(([a], [b]) => (a < b ? -1 : 1)));
}
