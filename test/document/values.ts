import fc from 'fast-check';
import type { ApiDocument, Schema } from './document.js';

/**
 * Stands for something that only the server can say, such as an object's uid; replaced when the request is sent, so that what is
 * generated depends on the seed alone.
 */
export const placeholder = (word: string) => `\u27e6${word}\u27e7`;

const one = (...words: string[]) => fc.constantFrom(...words);
const known = (word: string, ...others: string[]) => one(placeholder(word), placeholder(word), ...others);

/** Values that make sense for a field or parameter of this name, so that requests meet objects that exist. */
const sensible: Partial<Record<string, fc.Arbitrary<unknown>>> = {
  name: one('one', 'two', 'three'),
  namespace: one('default', 'foo'),
  generateName: one('made-'),
  type: one('clusters', 'secrets', 'syncsets'),
  uid: known('uid'),
  ownerUid: known('uid'),
  resourceVersion: known('resourceVersion', '1'),
  continue: known('continue'),
  token: known('claim'),
  Claim: known('claim'),
  claim: known('claim'),
  worker: one('w1', 'w2'),
  'If-Match': known('etag'),
  'If-None-Match': known('etag', '*'),
  'Idempotency-Key': one('key-1', 'key-2', 'key-3'),
  'Last-Event-ID': known('resourceVersion'),
  // A long poll is a right answer that nobody waits for here.
  waitSeconds: fc.constantFrom(0, 0.01),
};

const key = fc.oneof(
  { weight: 4, arbitrary: fc.stringMatching(/^[a-z]{1,6}$/) },
  { weight: 1, arbitrary: fc.string() },
);

/** Values that the schema allows, now and then those of the example. */
export function valid(document: ApiDocument, given: Schema, name = ''): fc.Arbitrary<unknown> {
  const schema = document.flat(given);
  const hint = schema.enum ? undefined : sensible[name];
  if (hint && schema.type !== 'array' && schema.type !== 'object') {
    if (name === 'waitSeconds') return hint;
    return fc.oneof({ weight: 5, arbitrary: hint }, { weight: 1, arbitrary: plain(document, schema) });
  }
  if (schema.example !== undefined && !schema.enum)
    return fc.oneof(
      { weight: 1, arbitrary: fc.constant(schema.example) },
      { weight: 1, arbitrary: plain(document, schema) },
    );
  return plain(document, schema);
}

function plain(document: ApiDocument, schema: Schema): fc.Arbitrary<unknown> {
  const choices = schema.anyOf ?? schema.oneOf;
  if (choices) return fc.oneof(...choices.map(choice => valid(document, choice)));
  if (schema.enum) return fc.constantFrom(...schema.enum);
  const arbitrary = ofType(document, schema);
  return schema.nullable ? fc.option(arbitrary) : arbitrary;
}

function ofType(document: ApiDocument, schema: Schema): fc.Arbitrary<unknown> {
  const { minimum = -1_000_000, maximum = 1_000_000, minItems = 0, maxItems = minItems + 3 } = schema;
  switch (schema.type) {
    case 'string':
      return text(schema);
    case 'boolean':
      return fc.boolean();
    case 'integer':
      return fc.integer({ min: minimum, max: maximum });
    case 'number':
      return fc.double({ min: minimum, max: maximum, noNaN: true });
    case 'array': {
      const length = { minLength: minItems, maxLength: Math.min(maxItems, minItems + 3) };
      const element = valid(document, schema.items ?? {});
      return schema.uniqueItems
        ? fc.uniqueArray(element, { ...length, comparator: 'SameValue' })
        : fc.array(element, length);
    }
    case 'object':
      return object(document, schema);
    default:
      return fc.jsonValue({ maxDepth: 3 });
  }
}

function text({ pattern, format, minLength = 0, maxLength = minLength + 40 }: Schema): fc.Arbitrary<string> {
  if (format === 'date-time') {
    const years = { min: new Date('1970-01-01'), max: new Date('2100-01-01'), noInvalidDate: true };
    return fc.date(years).map(date => date.toISOString());
  }
  if (format === 'uuid') return fc.uuid();
  if (pattern !== undefined) {
    return fc
      .stringMatching(new RegExp(pattern), { size: 'small' })
      .filter(made => made.length >= minLength && made.length <= maxLength);
  }
  return fc.string({ minLength, maxLength: Math.min(maxLength, minLength + 40), unit: 'grapheme' });
}

function object(document: ApiDocument, schema: Schema): fc.Arbitrary<unknown> {
  const { properties = {}, required = [], additionalProperties: others } = schema;
  const sent = Object.entries(properties).filter(([, property]) => !document.flat(property).readOnly);
  const fields = Object.fromEntries(sent.map(([name, property]) => [name, valid(document, property, name)]));
  const own = fc.record(fields, { requiredKeys: required.filter(name => name in fields) });
  if (others === undefined || others === false || (sent.length > 0 && others === true)) return own;
  const more = fc.dictionary(key, valid(document, others === true ? {} : others), { maxKeys: 3 });
  return fc.tuple(own, more).map(([mine, rest]) => ({ ...rest, ...mine }));
}

const deep = (depth: number, open: string, close: string) =>
  JSON.parse(`${open.repeat(depth)}1${close.repeat(depth)}`) as unknown;

/** Values that break programs. `JSON.parse` makes `__proto__` a field of its own, as it does for whoever receives it. */
export const hostile: fc.Arbitrary<unknown> = fc.oneof(
  fc.constantFrom<unknown>(
    null,
    true,
    0,
    -1,
    0.5,
    1e21,
    2 ** 53,
    2 ** 31,
    1.7976931348623157e308,
    '',
    ' ',
    '\0',
    'a\0b',
    '\ud800',
    'x\udc00y',
    '\u202e\ufeff',
    'constructor',
    '__proto__',
    "'; drop table objects; --",
    '../../etc/passwd',
    '${7*7}{{7*7}}',
    '••••••',
    '2027-02-30T12:00:00Z',
    'x'.repeat(300),
    'x'.repeat(100_000),
    [],
    [[]],
    {},
    deep(63, '[', ']'),
    deep(70, '{"a":', '}'),
    deep(1_000, '[', ']'),
    JSON.parse('{"__proto__": {"polluted": true}}'),
    JSON.parse('{"constructor": {"prototype": {"polluted": true}}, "toString": 1, "hasOwnProperty": null}'),
    Array.from({ length: 1_100 }, (_, i) => i),
    Object.fromEntries(Array.from({ length: 100 }, (_, i) => [`k${i}`, 'v'])),
    placeholder('uid'),
    placeholder('claim'),
  ),
  fc.jsonValue({ maxDepth: 2 }),
  fc.string({ unit: 'binary' }),
);

const names = one('__proto__', 'constructor', 'toString', 'status', 'spec', 'name', 'x', '', '\0', 'ä', '$ref');

/** A value with one thing in it changed for the worse; where it was, `dice` decides. */
export function spoiled(value: unknown, dice: number[], bad: unknown, name: string): unknown {
  const [die = 0, ...rest] = dice;
  if (Array.isArray(value) && value.length > 0 && rest.length > 0) {
    const at = die % value.length;
    return value.map((element: unknown, i) => (i === at ? spoiled(element, rest, bad, name) : element));
  }
  if (typeof value !== 'object' || value === null || rest.length === 0) return bad;
  const entries = Object.entries(value);
  const at = die % (entries.length + 2);
  if (at === entries.length) return Object.fromEntries([...entries, [name, bad]]);
  if (at > entries.length) return Object.fromEntries(entries.filter((_, i) => i !== die % Math.max(1, entries.length)));
  return Object.fromEntries(
    entries.map(([field, part], i) => [field, i === at ? spoiled(part, rest, bad, name) : part]),
  );
}

/** Ways to spoil: where, with what, and under which name. */
export const damage = fc.tuple(fc.array(fc.nat(), { minLength: 1, maxLength: 5 }), hostile, names);
