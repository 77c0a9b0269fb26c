import { isUtf8 } from 'node:buffer';
import { randomUUID } from 'node:crypto';
import type { Readable } from 'node:stream';
import { createBrotliDecompress, createGunzip, createInflate } from 'node:zlib';
import type { NextFunction, Request, Response } from 'express';
import type { Log } from '../db/index.js';
import { beginSpan } from '../tracing/index.js';
import { ApiError } from './errors.js';
import { parseBody, parseListBody } from './json.js';
import { JsonPatch } from './json-patch.js';
import type { Metrics } from './metrics.js';

declare module 'express-serve-static-core' {
  interface Request {
    /** Names the request in the answer's header X-Request-Id, in error bodies and in the log. */
    id: string;
    /** It waits for something to happen, as it asked to. */
    waits?: true;
  }
}

const jsonPatch = 'application/json-patch+json';
const maxBodyBytes = 3 * 2 ** 20;
const maxBatchBytes = 32 * 2 ** 20;
/** An answer that takes more ms is told of in the log. */
const slow = 1_000;
// A map: of an object, "constructor" and the like would be encodings too.
const unpackers = new Map([
  ['gzip', createGunzip],
  ['deflate', createInflate],
  ['br', createBrotliDecompress],
]);

/** Questions of workers, asked every second without end, and streams. */
const polling = /^\/v1\/controllers\/[^/]+\/claims|[?&]watch=/;

/**
 * Begins a span for a request where somebody records spans. The header `traceparent` names it from then on, as that of the
 * client did before: what the request causes, events and runs, follows from it.
 */
function traced(request: Request): { end(status: number, requestId: string): void } | undefined {
  const { method, path } = request;
  if (!path.startsWith('/v1/') || polling.test(request.originalUrl)) return undefined;
  const span = beginSpan(method, {
    kind: 'server',
    parent: request.get('traceparent'),
    attributes: { 'http.request.method': method, 'url.path': path },
  });
  if (!span) return undefined;
  request.headers['traceparent'] = span.traceparent;
  return {
    end(status, requestId) {
      // Set once the routes have been looked at; a batch has none.
      const route: unknown = Reflect.get(Object(request.route), 'path');
      const name = typeof route === 'string' ? `${method} ${route}` : `${method} ${path.split('/', 3).join('/')}`;
      const attributes = { 'http.response.status_code': status, 'syncsets.request_id': requestId };
      span.end({ name, attributes, ...(status >= 500 ? { error: `status ${status}` } : {}) });
    },
  };
}

/**
 * Gives each request an id, counts it, and logs it: failures and slow ones as warnings, the rest for debugging. A client that
 * reads nothing of its answer for `stalled` milliseconds is given up: the answer would be kept for it for ever.
 */
export function observe(log: Log, metrics: Metrics, stalled: number) {
  return (request: Request, response: Response, next: NextFunction): void => {
    const given = request.get('X-Request-Id');
    request.id = given !== undefined && /^[\w.:-]{1,128}$/.test(given) ? given : randomUUID();
    response.setHeader('X-Request-Id', request.id);
    const begun = performance.now();
    const span = traced(request);
    // The time runs while nothing is read or written. A long poll writes nothing either, and has nothing that waits.
    response.setTimeout(stalled, () => {
      if (response.writableLength > 0) response.destroy();
    });
    response.once('close', () => {
      const milliseconds = performance.now() - begun;
      span?.end(response.statusCode, request.id);
      const streamed = /ndjson|event-stream/.test(String(response.getHeader('Content-Type')));
      // The 30 s that a claim may wait for keys say nothing of how fast we answer; one that fails counts among the failures.
      const polled = request.waits && response.statusCode < 500;
      if (!streamed && !polled) metrics.request(request.method, response.statusCode, milliseconds / 1_000);
      const late = milliseconds > slow && !streamed && !request.waits;
      const level = response.statusCode >= 500 || late ? 'warn' : 'debug';
      log(level, 'request', {
        requestId: request.id,
        method: request.method,
        path: request.path,
        status: response.statusCode,
        milliseconds: Math.round(milliseconds),
      });
    });
    next();
  };
}

/**
 * Reads JSON bodies below `/v1` ourselves: numbers stay exact, errors have their place. Everything that has a body must say that
 * it is JSON, and send it within `patience` milliseconds.
 */
export function readBody(patience: number) {
  return (request: Request, _response: Response, next: NextFunction): void => {
    if (!/^\/v1(?:\/|$)/i.test(request.path)) {
      next();
      return;
    }
    const length = request.get('Content-Length');
    const hasBody = request.get('Transfer-Encoding') !== undefined || (length !== undefined && length !== '0');
    if (!['POST', 'PUT', 'PATCH'].includes(request.method)) {
      if (hasBody) next(new ApiError('InvalidJson', `${request.method} takes no body; leave it out.`));
      else next();
      return;
    }
    const limit = request.path === '/v1/batch' ? maxBatchBytes : maxBodyBytes;
    if (Number(length) > limit) {
      next(tooLarge(limit));
      return;
    }
    const type = mediaType(request);
    const accepted =
      request.method === 'PATCH'
        ? ['application/merge-patch+json', 'application/json', jsonPatch]
        : ['application/json'];
    if (hasBody && !accepted.includes(type)) {
      const given = type === '' ? 'no content type' : `"${type}"`;
      next(
        new ApiError(
          'UnsupportedMediaType',
          `The body has ${given}; send it with Content-Type: ${accepted.join(' or ')}.`,
        ),
      );
      return;
    }
    readText(request, limit, patience)
      .then(text => {
        request.body = type === jsonPatch ? new JsonPatch(parseListBody(text)) : parseBody(text);
        next();
      }, next)
      .catch(next);
  };
}

/** The body as text, unpacked. Throws TooLarge, UnsupportedMediaType, InvalidJson. */
async function readText(request: Request, limit: number, patience: number): Promise<string> {
  const bytes = await collect(unpacked(request), limit, patience);
  if (!isUtf8(bytes)) throw new ApiError('InvalidJson', 'The body is not UTF-8.');
  return bytes.toString('utf8');
}

/** The content type of a request, without its parameters; empty when there is none. */
export function mediaType(request: Request): string {
  return (request.get('Content-Type') ?? '').split(';')[0]?.trim().toLowerCase() ?? '';
}

/** The body as it was before it was packed. Throws UnsupportedMediaType. */
export function unpacked(request: Request): Readable {
  const encoding = (request.get('Content-Encoding') ?? 'identity').toLowerCase();
  if (encoding === 'identity') return request;
  const unpack = unpackers.get(encoding);
  if (!unpack)
    throw new ApiError(
      'UnsupportedMediaType',
      `Content-Encoding "${encoding}" is not read; send gzip, deflate, br or none.`,
    );
  const stream = unpack();
  request.on('error', error => stream.destroy(error)).pipe(stream);
  return stream;
}

// By events: an async iterator over the request costs a tenth of the whole request.
function collect(stream: Readable, limit: number, patience: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let bytes = 0;
    const late = setTimeout(() => {
      stream.removeAllListeners('data').pause();
      reject(
        new ApiError('Timeout', `The body did not arrive within ${patience / 1_000} s.`, {
          headers: { Connection: 'close' },
        }),
      );
    }, patience);
    stream.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes <= limit) chunks.push(chunk);
      else {
        stream.removeAllListeners('data').pause();
        clearTimeout(late);
        reject(tooLarge(limit));
      }
    });
    stream.once('end', () => {
      clearTimeout(late);
      resolve(chunks.length === 1 && chunks[0] ? chunks[0] : Buffer.concat(chunks));
    });
    stream.once('error', () => {
      clearTimeout(late);
      reject(new ApiError('InvalidJson', 'The body could not be read; it ended early or its encoding is broken.'));
    });
  });
}

// The rest of the body is not read: the connection cannot be used again.
function tooLarge(limit: number): ApiError {
  return new ApiError('TooLarge', `The body is larger than the limit of ${limit} bytes.`, {
    headers: { Connection: 'close' },
  });
}
