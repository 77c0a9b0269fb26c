import { reference, schemaOf, type Answer, type Document, type Operation, type Schema } from './document.js';
import { always, bareError, errorResponse, errorResponses } from './errors.js';
import { addExamples } from './examples.js';
import { headers, headersOf, parameters } from './headers.js';
import { completeModels } from './models.js';
import { platformRoutes } from './platform-routes.js';
import type { TypeModel } from './read-types.js';
import { routes, type Route } from './routes.js';

/** Adds to tsoa's document what it cannot know: answers, headers, bodies, errors, security, the exact models of the types. */
export function completeDocument(document: Document, types: TypeModel[], version: string): void {
  document.info = { title: 'SyncSets', version, description: about };
  document.servers = [{ url: '/' }];
  document.security = [{ token: [] }, {}];
  document.tags = types.map(({ type, description }) => ({ name: type, description }));
  const models = document.components.schemas;
  document.components = {
    schemas: models,
    responses: errorResponses,
    parameters,
    headers,
    securitySchemes: {
      token: { type: 'http', scheme: 'bearer', description: 'Needed if the server was started with API_TOKEN.' },
    },
  };
  for (const [path, methods] of Object.entries(document.paths)) {
    for (const operation of Object.values(methods)) general(path, operation);
  }
  completeModels(models, types);
  for (const type of types) {
    for (const route of routes(type)) {
      const path = `/v1/${type.type}${route.path === '' ? '' : `/${route.path}`}`;
      const operation = document.paths[path]?.[route.method.toLowerCase()];
      if (!operation) throw new Error(`tsoa made no route ${route.method} ${path}`);
      completeOperation(operation, route);
      if (reads.includes(route.name)) Object.assign(document.paths[path] ?? {}, { head: headOf(operation) });
    }
  }
  completeBatch(document);
  completeWork(document);
  for (const operation of Object.values(document.paths).flatMap(path => Object.values(path))) everywhere(operation);
  Object.assign(document.paths, platformRoutes());
  addExamples(document, types);
  document.paths = sorted(document.paths);
  document.components.schemas = used(document);
}

const about =
  'Typed objects, watches and work queues over HTTP. Below `/v1` whatever is not in this document is refused: fields, query parameters, content types. Every answer has one of the documented statuses, and every error the same body; decide by its `error.code`. HEAD is answered wherever GET is.';

/** What holds for every operation of `/v1`, hand-written ones included. */
function general(path: string, operation: Operation): void {
  const success = Object.keys(operation.responses).filter(code => code.startsWith('2'));
  if (success.length > 1) delete operation.responses['204'];
  // Every status has a place of its own: an answer that is not in the document is a defect.
  delete operation.responses['default'];
  const codes = [
    ...always,
    ...(operation.requestBody ? [415, 422] : []),
    ...(path.includes('{') || ['/v1/batch', '/v1/garbage'].includes(path) ? [404] : []),
  ];
  for (const code of [
    ...codes,
    ...Object.keys(operation.responses)
      .map(Number)
      .filter(code => code >= 400),
  ])
    operation.responses[code] = errorResponse(code);
  delete operation.security;
}

/** What every request may carry and every answer does. */
function everywhere(operation: Operation): void {
  operation.parameters = [...(operation.parameters ?? []), reference('parameters', 'RequestId')];
  for (const answer of Object.values(operation.responses)) {
    if (answer && answer.$ref === undefined) answer.headers = { ...answer.headers, ...headersOf(['X-Request-Id']) };
  }
}

/** The routes that answer an object as it is stored, with its version as ETag. */
const reads = ['read', 'readStatus', 'readMetadata'];

/** The same question without the object in the answer: whether it is there, and in which version. */
function headOf(operation: Operation): Operation {
  const responses = Object.entries(operation.responses).map(([code, answer]): [string, Answer] => {
    const headers = answer?.headers === undefined ? {} : { headers: answer.headers };
    return [code, bareError(Number(code)) ?? { description: answer?.description ?? '', ...headers }];
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
  for (const code of [...route.errors, ...(write && route.name !== 'recordNotice' ? [429] : [])])
    operation.responses[code] = errorResponse(code);
  for (const code of route.success) {
    const response = operation.responses[code];
    if (!response) throw new Error(`tsoa made no answer ${code} for ${operation.operationId}`);
    const object = !['list', 'reveal', 'listNotices', 'recordNotice'].includes(route.name);
    const names = [
      ...(['Post', 'Put', 'Patch'].includes(route.method) ? ['Idempotency-Replayed'] : []),
      ...(route.name === 'reveal' ? ['Cache-Control'] : []),
      ...(object && route.name !== 'deleteAll' ? ['ETag'] : []),
      ...(code === 201 && object ? ['Location'] : []),
      ...(object && write && route.name !== 'deleteAll' ? ['Preference-Applied', 'Warning'] : []),
    ];
    if (names.length > 0) response.headers = headersOf(names);
    if (route.name === 'list') {
      const stream = {
        schema: { type: 'string', description: 'With `watch=true`: one event a line, see `x-line`.' },
        'x-line': schemaOf(`${route.returns.replace(/List$/, '')}Event`),
      };
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
    ...(write ? ['Traceparent'] : []),
    ...(route.name === 'list' ? ['LastEventId'] : []),
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
      headers: headersOf([
        'ETag',
        'Preference-Applied',
        'Warning',
        ...(route.method === 'Delete' ? [] : ['Idempotency-Replayed']),
      ]),
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
  const names = ['Claim', 'IdempotencyKey', 'Traceparent'];
  operation.parameters = [...(operation.parameters ?? []), ...names.map(name => reference('parameters', name))];
  operation.requestBody.content['application/x-ndjson'] = lines(
    'One operation a line, see `x-line`.',
    'BatchOperation',
  );
  const answer = operation.responses[200];
  if (!answer) throw new Error('tsoa made no answer of POST /v1/batch');
  answer.content = {
    ...answer.content,
    'application/x-ndjson': lines('One result a line, see `x-line`.', 'BatchLine'),
  };
  answer.headers = headersOf(['Idempotency-Replayed']);
  for (const code of [409, 429]) operation.responses[code] = errorResponse(code);
}

/** The routes of work that are more than a question and an answer. */
function completeWork({ paths }: Document): void {
  const renew = paths['/v1/controllers/{name}/claims/renew']?.['post']?.responses[200];
  const garbage = paths['/v1/garbage']?.['post'];
  if (!renew || !garbage) throw new Error('tsoa made no routes of work');
  renew.content = { ...renew.content, 'application/x-ndjson': lines('With `stream=true`, see `x-line`.', 'Renewal') };
  garbage.parameters = [...(garbage.parameters ?? []), reference('parameters', 'Claim')];
}

/** A body of lines; OpenAPI 3.0 has no word for what a line is. */
function lines(description: string, model: string) {
  return { schema: { type: 'string', description }, 'x-line': schemaOf(model) };
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
