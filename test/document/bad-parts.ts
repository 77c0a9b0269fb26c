import fc from 'fast-check';
import { placeholder } from './values.js';

/** A text as part of a URL. */
export const encoded = (text: string) => {
  // Placeholders are filled in later; a lone surrogate has no encoding.
  if (text.startsWith('\u27e6')) return text;
  return encodeURIComponent(text.toWellFormed());
};

/** Values of query parameters, encoded or not. */
export const badText = fc.oneof(
  fc.constantFrom(
    '',
    '%',
    '%zz',
    '%ff',
    '%00',
    'a%00b',
    '%C3',
    '%ED%A0%80',
    '-1',
    '0',
    '1e3',
    '1.5',
    '99999999999999999999',
    'NaN',
    'true',
    'TRUE',
    'null',
    '[]',
    'a=b=c',
    '%28%28%28',
    'x'.repeat(9_000),
    'x'.repeat(20_000),
    `${'a%2C'.repeat(1_000)}a`,
    'constructor',
    '__proto__',
    '%27%3B--',
    placeholder('continue'),
  ),
  fc.string({ unit: 'binary' }).map(encoded),
);

/** Query parameters with such values: unknown ones, and those of an operation. */
export const badQuery = (names: string[]): fc.Arbitrary<[string, string]> =>
  fc.tuple(
    fc.constantFrom('x', '__proto__', 'constructor', 'a%5Bb%5D', 'a[b]', '%', '%00', '', 'dryRun', 'pretty', ...names),
    badText,
  );

/** Segments of paths. */
export const badPath = fc.oneof(
  fc.constantFrom(
    '%',
    '%zz',
    '%ff',
    '%00',
    'a%00b',
    '%2e%2e',
    '%2F',
    '..%2f..',
    'x'.repeat(300),
    'ONE',
    'a_b',
    '-',
    '%20',
  ),
  fc.constantFrom('%E2%80%AE', '%F0%9F%98%80', '__proto__', 'constructor', '*', '+', ';a=b', '%5C', 'x'.repeat(17_000)),
  fc
    .string({ unit: 'binary', minLength: 1 })
    .map(encoded)
    .filter(text => !/^\.{1,2}$/.test(text)),
);

const latin = fc.string({
  unit: fc
    .integer({ min: 0x20, max: 0xff })
    .filter(code => code !== 0x7f)
    .map(code => String.fromCharCode(code)),
});

/** One header that means something to somebody. */
export const badHeader: fc.Arbitrary<Record<string, string>> = fc
  .tuple(
    fc.constantFrom(
      'If-Match',
      'If-None-Match',
      'Idempotency-Key',
      'Claim',
      'Prefer',
      'traceparent',
      'X-Request-Id',
      'Accept',
      'Accept-Encoding',
      'Accept-Language',
      'Last-Event-ID',
      'Origin',
      'Authorization',
      'Range',
      'If-Modified-Since',
      'Content-Encoding',
      'Expect',
      'Upgrade',
      'X-HTTP-Method-Override',
      'Forwarded',
      'Cookie',
    ),
    fc.oneof(
      fc.constantFrom(
        '',
        '*',
        '"1", "2"',
        '"',
        'W/"1"',
        '1',
        '0',
        '-1',
        'null',
        'gzip',
        'br',
        'bytes=0-1',
        'x'.repeat(300),
      ),
      fc.constantFrom(
        'return=minimal',
        'text/event-stream',
        'application/xml',
        '00-0-0-00',
        'x'.repeat(17_000),
        'constructor',
      ),
      latin,
    ),
  )
  .map(([name, value]) => ({ [name]: value.trim() }));

/** Bodies. */
export const badBytes = fc.oneof(
  fc
    .constantFrom(
      '',
      ' ',
      '{',
      '}',
      '[]',
      '{}',
      'null',
      '1',
      '"a"',
      '{"a":1}}',
      "{'a': 1}",
      '{"a":1,}',
      '{"a":NaN}',
      '\ufeff{}',
    )
    .map(text => Buffer.from(text)),
  fc
    .constantFrom(
      '{"name":"a","name":"b"}',
      '{"a":01}',
      '{"a":1e999}',
      '{"a":"\u0001"}',
      '{"a":"\\x"}',
      '{"\\ud800":1}',
      '\n\n',
    )
    .map(text => Buffer.from(text)),
  fc.constantFrom(Buffer.from([0xff, 0xfe, 0x7b, 0x7d]), Buffer.from('{"a":"\xff"}', 'latin1'), Buffer.alloc(1000)),
  fc.constantFrom(0, 0, 0, 0, 0, 0, 3, 33).map(mebibytes => Buffer.alloc(mebibytes * 2 ** 20 + 1, ' ')),
  fc.uint8Array({ maxLength: 60 }).map(bytes => Buffer.from(bytes)),
);

/** Values of `Content-Type`; undefined: there is none. */
export const badMediaType = fc.constantFrom(
  undefined,
  '',
  'text/plain',
  'application/xml',
  'application/x-www-form-urlencoded',
  'multipart/form-data',
  'application/json; charset=utf-16',
  'APPLICATION/JSON',
  'application/json, application/json',
  'application/json-patch+json',
  'application/merge-patch+json',
  'application/x-ndjson',
  'constructor',
  '*/*',
  'x'.repeat(300),
);
