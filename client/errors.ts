/** One thing that is wrong with a request, and where. */
export interface ErrorDetail {
  /** Path of the field, such as `labels.env`; or the name of a query parameter or header. */
  path: string;
  /** What is wrong with it and what is allowed. */
  message: string;
}

/**
 * The server's answer was an error of its catalogue. Decide by `code`: it is stable, messages are for people.
 *
 * @example
 * try {
 *   await client.clusters.create({ name: 'cluster1' });
 * } catch (error) {
 *   if (!isPlatformError(error, 'AlreadyExists')) throw error;
 * }
 */
export class PlatformError extends Error {
  override readonly name = 'PlatformError';
  /** Such as `Conflict` or `Invalid`; `Http<status>` where no server of the platform answered. */
  readonly code: string;
  /** The HTTP status. */
  readonly status: number;
  /** All violations, each with its path; empty where the error is not about a field. */
  readonly details: ErrorDetail[];
  /** The server's log says more under this id. */
  readonly requestId?: string;
  /** Of an `Expired` page of a list: as `continue`, goes on after the same object, in the state of now. */
  readonly continue?: string;
  /** Seconds after which the server wants to be asked again (429 and 503). */
  readonly retryAfter?: number;

  constructor(
    status: number,
    error: { code: string; message: string; details?: ErrorDetail[]; requestId?: string; continue?: string },
    retryAfter?: number,
  ) {
    super(error.message);
    this.status = status;
    this.code = error.code;
    this.details = error.details ?? [];
    if (error.requestId !== undefined) this.requestId = error.requestId;
    if (error.continue !== undefined) this.continue = error.continue;
    if (retryAfter !== undefined) this.retryAfter = retryAfter;
  }

  /** Reads an error body; an answer without one (of a proxy, say) becomes code `Http<status>`. */
  static of(status: number, text: string, retryAfter?: number): PlatformError {
    const error = errorOf(text);
    const fallback = { code: `Http${status}`, message: `The server answered ${status} without saying why.` };
    return new PlatformError(status, error ?? fallback, retryAfter);
  }
}

/**
 * Whether something thrown is an answer of the server with this code, such as `NotFound` or `Conflict`.
 *
 * @example
 * const cluster = await client.clusters.read({ name: 'cluster1' }).catch((error: unknown) => {
 *   if (isPlatformError(error, 'NotFound')) return undefined;
 *   throw error;
 * });
 */
export function isPlatformError(error: unknown, code?: string): error is PlatformError {
  return error instanceof PlatformError && (code === undefined || error.code === code);
}

/**
 * No answer, or not all of it: refused, reset, timed out. `cause` is Node's error.
 *
 * @example
 * await client.clusters.create({ name: 'cluster1' }).catch((error: unknown) => {
 *   if (error instanceof ConnectionError && error.sent) console.error('the cluster may be there');
 *   throw error;
 * });
 */
export class ConnectionError extends Error {
  override readonly name = 'ConnectionError';

  /**
   * @param code Node's code, such as `ECONNREFUSED`, or `Timeout`
   * @param sent false: the request never reached the server; true: it may have been carried out
   */
  constructor(
    readonly code: string,
    readonly sent: boolean,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

/** What a broken answer's error means; other errors, such as an abort signal's reason, stay what they are. */
export function interrupted(error: unknown): unknown {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  if (error instanceof ConnectionError || typeof code !== 'string') return error;
  return new ConnectionError(code, true, `The connection ended in the middle of an answer: ${code}`, { cause: error });
}

function errorOf(text: string) {
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch {
    return undefined;
  }
  return isRecord(body) ? readError(body.error) : undefined;
}

/** Checks that something is the `error` of an answer or of a watch line. */
export function readError(error: unknown) {
  if (!isRecord(error) || typeof error.code !== 'string' || typeof error.message !== 'string') return undefined;
  const details: unknown[] = Array.isArray(error.details) ? error.details : [];
  return {
    code: error.code,
    status: typeof error.status === 'number' ? error.status : 500,
    message: error.message,
    details: details.flatMap(detail =>
      isRecord(detail) && typeof detail.path === 'string' && typeof detail.message === 'string'
        ? [{ path: detail.path, message: detail.message }]
        : [],
    ),
    ...(typeof error.requestId === 'string' && { requestId: error.requestId }),
    ...(typeof error.continue === 'string' && { continue: error.continue }),
  };
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}
