/** Headers of requests, as parameters that operations refer to. */
export const parameters = {
  IfMatch: {
    name: 'If-Match',
    in: 'header',
    description: 'The `ETag` (or resourceVersion) that the object must still have, else 409; `*`: any.',
    schema: { type: 'string' },
    example: '"42"',
  },
  IfNoneMatch: {
    name: 'If-None-Match',
    in: 'header',
    description: 'One or more `ETag`s, or `*`: if the object still has one of them, the answer is 304 without a body.',
    schema: { type: 'string' },
    example: '"42"',
  },
  IfAbsent: {
    name: 'If-None-Match',
    in: 'header',
    description: '`*`: create the object, and fail (409) if it exists. Anything else is ignored.',
    schema: { type: 'string' },
    example: '*',
  },
  Prefer: {
    name: 'Prefer',
    in: 'header',
    description:
      '`return=minimal`: the answer comes without the object, as 204 or as 201 without a body. Other preferences are ignored.',
    schema: { type: 'string' },
    example: 'return=minimal',
  },
  Claim: {
    name: 'Claim',
    in: 'header',
    description: 'The token of a claim: the write is refused (409 Fenced) when the claim is no longer held.',
    schema: { type: 'string' },
  },
  IdempotencyKey: {
    name: 'Idempotency-Key',
    in: 'header',
    description:
      'A text of up to 255 visible ASCII characters that names this request. Sent again with the same key within 24 hours, it gets the first answer and stores nothing; another request under the key gets 422. A dry run ignores it.',
    schema: { type: 'string', minLength: 1, maxLength: 255 },
    example: '0b9e7c0e-2f4b-4b0e-9d2f-1f6f0c8a7f11',
  },
  Traceparent: {
    name: 'traceparent',
    in: 'header',
    description:
      'The trace that the write belongs to, as W3C Trace Context writes it. It goes on with the events of the write; anything else is ignored.',
    schema: { type: 'string' },
    example: '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01',
  },
  RequestId: {
    name: 'X-Request-Id',
    in: 'header',
    description:
      'Names the request in the answer, in errors and in the log of the server: up to 128 letters, digits, `_`, `.`, `:` and `-`. Anything else is replaced by a name that the server makes.',
    schema: { type: 'string' },
    example: 'deploy-17',
  },
  LastEventId: {
    name: 'Last-Event-ID',
    in: 'header',
    description:
      'With `watch=true`: goes on after this version, in place of `resourceVersion`; browsers send it when they reconnect to an event stream.',
    schema: { type: 'string', pattern: '^[0-9]{1,19}$' },
    example: '1',
  },
};

const text = { type: 'string' };

/** Headers of answers. */
export const headers = {
  ETag: {
    description: "The object's resourceVersion in double quotes; missing in a dry run.",
    schema: { type: 'string', pattern: '^"[0-9]+"$' },
    example: '"42"',
  },
  Location: { description: 'The path of the object; missing in a dry run.', schema: text },
  Warning: {
    description:
      'What the caller should know though the write is done, as `299 - "text"`; once for each warning, at most 10. An answer that is repeated for its `Idempotency-Key` has none.',
    schema: { type: 'string', pattern: '^299 - ".*"' },
  },
  PreferenceApplied: {
    description: '`return=minimal` if that was asked for.',
    schema: { type: 'string', enum: ['return=minimal'] },
  },
  IdempotencyReplayed: {
    description: '`true`: this is the first answer to this `Idempotency-Key`, and nothing was done again.',
    schema: { type: 'string', enum: ['true'] },
  },
  RequestId: {
    description: 'Names the request in the log of the server: what `X-Request-Id` said, or a UUID.',
    required: true,
    schema: { type: 'string', minLength: 1, maxLength: 128 },
  },
  RetryAfter: {
    description: 'Seconds after which to try again.',
    schema: { type: 'integer', format: 'int32', minimum: 0 },
  },
  Authenticate: { description: '`Bearer`.', required: true, schema: text },
  CacheControl: { description: '`no-store`.', required: true, schema: { type: 'string', enum: ['no-store'] } },
};

const places: Record<string, string> = {
  'X-Request-Id': 'RequestId',
  'WWW-Authenticate': 'Authenticate',
};

/** References to headers of answers, by their names. */
export function headersOf(names: string[]): Record<string, { $ref: string }> {
  return Object.fromEntries(
    names.map(name => [name, { $ref: `#/components/headers/${places[name] ?? name.replace(/-/g, '')}` }]),
  );
}
