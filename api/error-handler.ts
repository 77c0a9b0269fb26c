import { ValidateError } from '@tsoa/runtime';
import type { NextFunction, Request, RequestHandler, Response } from 'express';
import type { Log } from '../db/index.js';
import { sendStored, usedKey } from './idempotency.js';
import { ApiError, toApiError, type ErrorBody } from './errors.js';
import { ClientGone } from './list.js';
import { invalid, Repeated, unknownFieldError } from './refusals.js';
import type { TypeDefinition } from './type-definition.js';
import { fieldErrors } from './validation.js';

/** Turns whatever was thrown into an answer, once. What is not of the catalogue is a bug: 500, and the log has its stack. */
export function answerErrors(log: Log) {
  return (error: unknown, request: Request, response: Response, _next: NextFunction): void => {
    if (error instanceof ClientGone || response.destroyed) return;
    if (error instanceof Repeated && !response.headersSent) {
      if (error.answer.request === request.answer?.request) sendStored(response, error.answer);
      else answerErrors(log)(usedKey(), request, response, _next);
      return;
    }
    if (response.headersSent) {
      log('error', 'answer broken off', { requestId: request.id, error });
      response.destroy();
      return;
    }
    const known = error instanceof ValidateError ? translate(error) : (toApiError(error) ?? malformed(error));
    if (!known)
      log('error', 'request failed', { requestId: request.id, method: request.method, path: request.path, error });
    else if (known.status >= 500) log('warn', 'request refused', { requestId: request.id, code: known.code, error });
    const shown =
      known ??
      new ApiError('Internal', `This is a defect of the server. Its log says more under the request id ${request.id}.`);
    const { code, status, message, details, headers, continueToken } = shown;
    const body: ErrorBody = {
      error: {
        code,
        status,
        message,
        ...(details ? { details } : {}),
        ...(continueToken === undefined ? {} : { continue: continueToken }),
        requestId: request.id,
      },
    };
    // A request whose body is not read to its end leaves a connection that cannot be used again.
    if (!request.complete) response.setHeader('Connection', 'close');
    response.status(status).set(headers).json(body);
  };
}

/**
 * Answers what no route took: says what is wrong, the type or the way below it. Both are UnknownType: who reads NotFound may take an
 * object for deleted.
 */
export function noRoute(types: ReadonlyMap<string, TypeDefinition>): RequestHandler {
  return (request, _response, next) => {
    const [, version, name = ''] = request.path.split('/');
    const nowhere = `${request.method} ${request.path} leads nowhere`;
    const type = types.get(name);
    if (version !== 'v1' || name === '') {
      next(new ApiError('NotFound', `${nowhere}. The API is below /v1, its documentation at /docs.`));
      return;
    }
    const remedy = type
      ? `All ${name} are at /v1/${name}, one of them at /v1/${name}/${type.namespaced ? '{namespace}/' : ''}{name}`
      : 'There is no such type or no such way. GET /v1 lists the types';
    next(new ApiError('UnknownType', `${nowhere}. ${remedy}; /docs shows all ways.`));
  };
}

function translate(error: ValidateError): ApiError {
  const errors = fieldErrors(error);
  if (errors.some(one => one.query)) {
    const details = errors.filter(one => one.query).map(({ path, message }) => ({ path, message }));
    return new ApiError('InvalidQuery', details.map(one => `${one.path}: ${one.message}`).join('; '), { details });
  }
  const unknown = errors.filter(one => one.unknown);
  if (unknown.length > 0) return unknownFieldError(unknown);
  return invalid(errors.map(({ path, message }) => ({ path, message })));
}

// express itself refuses paths that are not well encoded.
function malformed(error: unknown): ApiError | undefined {
  const status = typeof error === 'object' && error !== null && 'status' in error ? error.status : undefined;
  return status === 400 ? new ApiError('InvalidQuery', 'The path or query is not well encoded.') : undefined;
}
