import type { StoredAnswer } from '../db/index.js';
import { ApiError, toApiError, type ErrorBody } from './errors.js';
import type { Platform } from './platform.js';

/** What became of an operation: JSON text of the object, or the error. */
export interface ItemResult {
  status: number;
  object?: string;
  /** What the rules of the type have to say beside it. */
  warnings?: string[];
  error?: ApiError;
  /** The answer of before, as it was kept. */
  repeated?: StoredAnswer;
}

/** The error of the catalogue for what an operation threw; a bug is logged. */
export function explained(platform: Platform, error: unknown): ApiError {
  const known = toApiError(error);
  if (!known) platform.log('error', 'operation of a batch failed', { error });
  return known ?? new ApiError('Internal', 'This is a defect of the server. Its log says more under the request id.');
}

/** A result as a line or element of the answer, without the braces. */
export function resultJson({ status, object, warnings = [], error, repeated }: ItemResult, requestId: string): string {
  if (repeated) {
    const failed = repeated.status >= 400;
    return `"status":${repeated.status},${failed ? `"error":${repeated.body}` : `"object":${repeated.body}`}`;
  }
  if (error) return `"status":${status},"error":${JSON.stringify(errorJson(error, requestId))}`;
  const more = warnings.length > 0 ? `,"warnings":${JSON.stringify(warnings)}` : '';
  return `"status":${status},"object":${object ?? 'null'}${more}`;
}

/** An error as it is shown. */
export function errorJson(error: ApiError, requestId: string): ErrorBody['error'] {
  const { code, status, message, details } = error;
  return { code, status, message, ...(details ? { details } : {}), requestId };
}
