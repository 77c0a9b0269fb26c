import type { StoredAnswer } from '../db/index.js';
import { ApiError, toApiError, type ErrorBody } from './errors.js';
import type { Platform } from './platform.js';

/** What became of an operation: JSON text of the object, or the error. */
export interface ItemResult {
  status: number;
  object?: string;
  /** The object is not shown. */
  truncated?: boolean;
  /** What the rules of the type have to say beside it. */
  warnings?: string[];
  error?: ApiError;
  /** The answer of before, as it was kept. */
  repeated?: StoredAnswer;
}

/** What the results of one JSON answer have together, in bytes; as much as the largest body of a batch. */
const largestAnswer = 32 * 2 ** 20;

/**
 * The results of a batch that is answered as one JSON text. It is bounded: 1,000 patches of 100 bytes could be answered with
 * 1.5 GB of objects. Those that do not fit are left out, with `truncated` in their place; what was written stays written.
 */
export class Results {
  readonly #requestId: string;
  readonly #texts: string[] = [];
  #left = largestAnswer;
  #size = 0;

  constructor(requestId: string) {
    this.#requestId = requestId;
  }

  /** Bytes of all results so far, with what was left out. */
  get size(): number {
    return this.#size;
  }

  set(index: number, result: ItemResult): void {
    let text = resultJson(result, this.#requestId);
    const bytes = Buffer.byteLength(text);
    this.#size += bytes;
    if (bytes > this.#left && !result.error) text = resultJson({ ...result, truncated: true }, this.#requestId);
    else this.#left -= bytes;
    this.#texts[index] = `{${text}}`;
  }

  /** Throws where an operation has no result. */
  json(count: number): string {
    for (let i = 0; i < count; i++) if (this.#texts[i] === undefined) throw new Error(`operation ${i} has no result`);
    return `{"results":[${this.#texts.join(',')}]}`;
  }
}

/** The error of the catalogue for what an operation threw; a bug is logged. */
export function explained(platform: Platform, error: unknown): ApiError {
  const known = toApiError(error);
  if (!known) platform.log('error', 'operation of a batch failed', { error });
  return known ?? new ApiError('Internal', 'This is a defect of the server. Its log says more under the request id.');
}

/** A result as a line or element of the answer, without the braces. */
export function resultJson(
  { status, object, truncated, warnings = [], error, repeated }: ItemResult,
  requestId: string,
): string {
  if (repeated && repeated.status >= 400) return `"status":${repeated.status},"error":${repeated.body}`;
  if (error) return `"status":${status},"error":${JSON.stringify(errorJson(error, requestId))}`;
  const shown = truncated ? '"truncated":true' : `"object":${repeated?.body ?? object ?? 'null'}`;
  const more = warnings.length > 0 ? `,"warnings":${JSON.stringify(warnings)}` : '';
  return `"status":${repeated?.status ?? status},${shown}${more}`;
}

/** An error as it is shown. */
export function errorJson(error: ApiError, requestId: string): ErrorBody['error'] {
  const { code, status, message, details } = error;
  return { code, status, message, ...(details ? { details } : {}), requestId };
}
