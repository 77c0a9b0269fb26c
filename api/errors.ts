import { isDatabaseAway, sqlState, VersionGone } from '../db/index.js';

/** Every error code and its HTTP status. Codes are stable: clients decide by them. */
const catalogue = {
  InvalidJson: 400,
  UnknownField: 400,
  InvalidQuery: 400,
  Unauthorized: 401,
  Forbidden: 403,
  NotFound: 404,
  UnknownType: 404,
  AlreadyExists: 409,
  Conflict: 409,
  Fenced: 409,
  NotUnique: 409,
  Referenced: 409,
  Expired: 410,
  TooLarge: 413,
  UnsupportedMediaType: 415,
  Invalid: 422,
  TooManyRequests: 429,
  Internal: 500,
  Unavailable: 503,
  Timeout: 504,
} as const;

/** A code of the catalogue. */
export type ErrorCode = keyof typeof catalogue;

/** One thing that is wrong, and where. */
export interface ErrorDetail {
  /** Path of the field, such as `labels.env` or `resources[2].kind`; or the name of a query parameter or header. */
  path: string;
  /** What is wrong with it and what is allowed. */
  message: string;
}

/** Every error answer has this body. */
export interface ErrorBody {
  error: {
    /** Stable code from the catalogue, such as `Conflict` or `Invalid`. */
    code: string;
    /**
     * The HTTP status again.
     * @isInt
     */
    status: number;
    /** What went wrong and what to do. */
    message: string;
    /** All violations, each with its path. */
    details?: ErrorDetail[];
    /** With `Expired`, for a page of a list: a token that goes on after the same object, in the state of now. */
    continue?: string;
    /** The request's id: the server's log says more under it. */
    requestId: string;
  };
}

/** What an error answer says beside its code and message. */
export interface ErrorParts {
  /** All violations, each with its path. */
  details?: ErrorDetail[];
  /** Further headers of the answer, such as `Retry-After`. */
  headers?: Record<string, string>;
  /** For a page of a list that is `Expired`: the token that goes on after the same object, in the state of now. */
  continueToken?: string;
}

/**
 * An answer that is an error of the catalogue. Throw it anywhere; the error handler translates it once.
 *
 * @example
 * throw new ApiError('Unavailable', 'The database cannot take this now; try again.', { headers: { 'Retry-After': '1' } });
 */
export class ApiError extends Error {
  readonly status: number;
  readonly details: ErrorDetail[] | undefined;
  readonly headers: Record<string, string>;
  readonly continueToken: string | undefined;

  constructor(
    readonly code: ErrorCode,
    message: string,
    { details, headers = {}, continueToken }: ErrorParts = {},
  ) {
    super(message);
    this.status = catalogue[code];
    this.details = details;
    this.headers = headers;
    this.continueToken = continueToken;
  }
}

/**
 * The error of the catalogue for anything thrown; undefined for a bug. The database's own words never leave: they may hold
 * values of the statement.
 */
export function toApiError(error: unknown): ApiError | undefined {
  if (error instanceof ApiError) return error;
  if (error instanceof VersionGone) return expired(error.version);
  if (isDatabaseAway(error)) {
    return new ApiError(
      'Unavailable',
      'The database does not answer. Try again; a write may have been stored, read before you repeat it.',
      { headers: { 'Retry-After': '1' } },
    );
  }
  // A foreign key: only workers have one, to their controller, which was deleted a moment ago.
  if (sqlState(error) === '23503') return notFound('The controller');
  // 40: serialization failure, deadlock; 53: out of disk, memory or connections; 25006: a standby that still has our connections
  if (/^(40|53|25006)/.test(sqlState(error) ?? '')) {
    return new ApiError('Unavailable', 'The database cannot take this now; try again.', {
      headers: {
        'Retry-After': '1',
      },
    });
  }
  // 57014: statement_timeout, 55P03: lock_timeout
  if (['57014', '55P03'].includes(sqlState(error) ?? '')) {
    return new ApiError(
      'Timeout',
      'The database took too long. Ask for less at once (limit, selectors), or try again.',
    );
  }
  return undefined;
}

/** For a version whose events are no longer kept, or that the log has not reached. */
export function expired(version: number | string): ApiError {
  return new ApiError(
    'Expired',
    `Version ${version} is outside of the kept event log. List again and go on from the version of that list.`,
  );
}

/** For something that is named and is not there, such as `The controller`. */
export function notFound(what: string): ApiError {
  return new ApiError('NotFound', `${what} does not exist.`);
}
