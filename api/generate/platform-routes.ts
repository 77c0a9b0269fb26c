import { errorResponse } from './errors.js';
import { headersOf } from './headers.js';
import type { Document, Operation } from './document.js';

/** The routes beside `/v1` that `api/app.ts` answers by itself; tsoa does not know them. */
export function platformRoutes(): Document['paths'] {
  return {
    '/healthz': { get: route('healthz', 'Whether the process runs', json(status), [500]) },
    '/readyz': {
      get: route(
        'readyz',
        'Whether requests can be answered: the database is there and the process is not stopping',
        json({
          ...status,
          required: ['status', 'database'],
          properties: {
            ...status.properties,
            database: { type: 'string', enum: ['ok'] },
            broker: {
              type: 'string',
              enum: ['ok', 'away'],
              description: 'There when RabbitMQ is used. While it is away, work goes on over the database.',
            },
          },
        }),
        [500, 503],
      ),
    },
    '/metrics': {
      get: route('metrics', 'Metrics in the text format of Prometheus', { 'text/plain': { schema: text } }),
    },
    '/openapi.json': {
      get: route('openapi', 'This document', json({ type: 'object', additionalProperties: true })),
    },
    '/docs/': { get: route('docs', 'This document as a page', { 'text/html': { schema: text } }) },
  };
}

const text = { type: 'string' };
const status = {
  type: 'object',
  required: ['status'],
  properties: { status: { type: 'string', enum: ['ok'] } },
  additionalProperties: false,
};
const json = (schema: object) => ({ 'application/json': { schema } });

function route(operationId: string, summary: string, content: object, codes = [401, 403, 500]): Operation {
  return {
    operationId,
    tags: ['platform'],
    summary,
    parameters: [],
    responses: {
      200: { description: 'OK', headers: headersOf(['X-Request-Id']), content: content as Record<string, object> },
      ...Object.fromEntries([413, ...codes].map(code => [code, errorResponse(code)])),
    },
  };
}
