import { headersOf } from './headers.js';

/** The answers of the catalogue in `api/errors.ts`, by status: name of the component, what it means, further headers. */
const errors: Record<number, [name: string, description: string, headers?: string[]]> = {
  400: [
    'BadRequest',
    'The body is not JSON, or something in the body, the query or the headers is unknown or malformed (InvalidJson, UnknownField, InvalidQuery).',
  ],
  401: ['Unauthorized', 'The bearer token is missing or wrong.', ['WWW-Authenticate']],
  403: ['Forbidden', 'The request is not allowed.'],
  404: ['NotFound', 'There is no such object (NotFound), or no such type or way (UnknownType).'],
  409: [
    'Conflict',
    'Something else was there first: AlreadyExists, Conflict (the object has changed, read it again), Fenced, NotUnique, Referenced.',
    ['Retry-After'],
  ],
  410: ['Expired', 'The version asked for is no longer kept: list again and go on from there.'],
  413: [
    'TooLarge',
    'The body, or path, query and headers together, are larger than the limit, which the message names.',
  ],
  415: ['UnsupportedMediaType', 'The content type or encoding is none that the route takes.'],
  422: ['Invalid', 'Fields or parameters are wrong: `details` has every violation with its path.'],
  429: ['TooManyRequests', 'Writes of the type wait longer than a second; nothing was done.', ['Retry-After']],
  500: ['Internal', 'A bug; the request id leads to it in the log.'],
  503: ['Unavailable', 'The database does not answer, or this process is stopping; try again.', ['Retry-After']],
  504: ['Timeout', 'The request did not arrive in time, or the database took too long.'],
};

/** What any operation may answer. */
export const always = [400, 401, 403, 413, 500, 503, 504];

/** The answers as components. */
export const errorResponses = Object.fromEntries(
  Object.values(errors).map(([name, description, more = []]) => [
    name,
    {
      description,
      headers: headersOf(['X-Request-Id', ...more]),
      content: { 'application/json': { schema: { $ref: '#/components/schemas/ErrorBody' } } },
    },
  ]),
);

/** The same without a body, for HEAD. */
export function bareError(code: number): { description: string; headers: Record<string, unknown> } | undefined {
  const [, description, more = []] = errors[code] ?? [];
  return description === undefined ? undefined : { description, headers: headersOf(['X-Request-Id', ...more]) };
}

/** A reference to the answer of a status. */
export function errorResponse(code: number): { $ref: string } {
  const [name] = errors[code] ?? [];
  if (name === undefined) throw new Error(`there is no error of the status ${code}`);
  return { $ref: `#/components/responses/${name}` };
}
