import fc from 'fast-check';
import { badBytes, badHeader, badMediaType, badPath, badQuery, badText, encoded } from './bad-parts.js';
import type { ApiDocument, MediaType, Operation, Parameter } from './document.js';
import type { Wire } from './exchange.js';
import { damage, hostile, placeholder, spoiled, valid } from './values.js';

/** A request before it is encoded and placeholders are filled in. */
export interface Draft {
  /** Path parameters, encoded. */
  path: Record<string, string>;
  /** Encoded; in their order, names perhaps twice. */
  query: [name: string, value: string][];
  headers: Record<string, string>;
  body: Body | undefined;
}

export type Body = { type: string | undefined } & ({ json: unknown } | { bytes: Buffer });

/** Looks up what a placeholder stands for; undefined while the server has not said it. */
export type Known = (word: string) => string | undefined;

/** Requests that the document allows. */
export function allowed(document: ApiDocument, operation: Operation): fc.Arbitrary<Draft> {
  const of = (place: Parameter['in']) => operation.parameters.filter(parameter => parameter.in === place);
  const texts = (parameters: Parameter[], encode: (text: string) => string) =>
    fc.record(
      Object.fromEntries(
        parameters.map(one => [one.name, parameterOf(document, one).map(value => encode(String(value)))]),
      ),
      { requiredKeys: parameters.filter(({ required }) => required === true).map(({ name }) => name) },
    );
  // Most parameters at once seldom make sense together: few are sent, and often none.
  const few = (parameters: Parameter[]) =>
    fc
      .subarray(parameters, { maxLength: Math.min(2, parameters.length) })
      .map(some => [...some, ...parameters.filter(one => one.required === true && !some.includes(one))]);
  return fc.record({
    path: texts(of('path'), encoded),
    query: few(of('query'))
      .chain(some => texts(some, encoded))
      .map(query => Object.entries(query)),
    headers: few(of('header')).chain(some => texts(some, text => text)),
    body: operation.body ? bodyOf(document, operation.body, operation.path.includes('{name}')) : fc.constant(undefined),
  });
}

/** Requests with something in them that is wrong, absurd or malicious; a few turn out to be right after all. */
export function wrong(document: ApiDocument, operation: Operation): fc.Arbitrary<Draft> {
  const good = allowed(document, operation);
  const names = operation.parameters.map(({ name }) => name);
  const kinds: fc.Arbitrary<Draft>[] = [
    fc.tuple(good, badQuery(names)).map(([draft, pair]) => ({ ...draft, query: [...draft.query, pair] })),
    fc.tuple(good, badHeader).map(([draft, header]) => ({ ...draft, headers: { ...draft.headers, ...header } })),
  ];
  const places = operation.parameters.filter(one => one.in === 'path');
  if (places.length > 0) {
    kinds.push(
      fc
        .tuple(good, fc.constantFrom(...places), badPath)
        .map(([draft, { name }, bad]) => ({ ...draft, path: { ...draft.path, [name]: bad } })),
    );
  }
  const asked = operation.parameters.filter(one => one.in === 'query');
  if (asked.length > 0) {
    const twice = fc.tuple(good, fc.constantFrom(...asked), badText, fc.boolean());
    kinds.push(
      twice.map(([draft, { name }, bad, again]) => {
        const pair: [string, string] = [name, bad];
        return { ...draft, query: again ? [...draft.query, pair, pair] : [...draft.query, pair] };
      }),
    );
  }
  if (operation.body) {
    const spoil = fc.tuple(good, damage).map(([draft, [dice, bad, name]]): Draft => {
      const { body } = draft;
      return body && 'json' in body
        ? { ...draft, body: { ...body, json: spoiled(body.json, dice, bad, name) } }
        : draft;
    });
    kinds.push(spoil, spoil, spoil);
    kinds.push(
      fc.tuple(good, badBytes).map(([draft, bytes]) => ({ ...draft, body: { type: draft.body?.type, bytes } })),
    );
    kinds.push(
      fc
        .tuple(good, badMediaType)
        .map(([draft, type]) => (draft.body ? { ...draft, body: { ...draft.body, type } } : draft)),
    );
    kinds.push(good.map(draft => ({ ...draft, body: undefined })));
  } else {
    kinds.push(
      fc.tuple(good, hostile).map(([draft, json]) => ({ ...draft, body: { type: 'application/json', json } })),
    );
  }
  return fc.oneof(...kinds);
}

/** Fills in placeholders and encodes. */
export function encode(operation: Operation, draft: Draft, known: Known): Wire {
  const fill = (text: string) => filled(text, known);
  const path = operation.path.replace(/\{(\w+)\}/g, (_, name: string) => fill(draft.path[name] ?? ''));
  const query = draft.query.map(([name, value]) => `${name}=${fill(value)}`).join('&');
  const headers = Object.fromEntries(Object.entries(draft.headers).map(([name, value]) => [name, fill(value)]));
  const { body } = draft;
  return {
    method: operation.method,
    target: query === '' ? path : `${path}?${query}`,
    headers: { ...headers, ...(body?.type === undefined ? {} : { 'Content-Type': body.type }) },
    ...(body ? { body: bytesOf(body, known) } : {}),
  };
}

function parameterOf(document: ApiDocument, { name, schema, example, in: place }: Parameter): fc.Arbitrary<unknown> {
  const values = valid(document, example === undefined ? schema : { ...document.flat(schema), example }, name);
  // Empty segments make other paths, and headers carry Latin letters only.
  if (place === 'path') return values.filter(value => !/^\.{0,2}$/.test(String(value)));
  return place === 'header' ? values.filter(value => /^[\x20-\x7e\u27e6\u27e7]+$/.test(String(value))) : values;
}

function bodyOf(
  document: ApiDocument,
  { content }: NonNullable<Operation['body']>,
  named: boolean,
): fc.Arbitrary<Body | undefined> {
  return fc.oneof(
    ...Object.entries(content).map(([type, media]): fc.Arbitrary<Body> => {
      if (!media['x-line']) return jsonOf(document, media, named).map(json => ({ type, json }));
      const lines = fc.array(valid(document, media['x-line']), { maxLength: 4 });
      return lines.map(all => ({ type, bytes: Buffer.from(all.map(line => `${JSON.stringify(line)}\n`).join('')) }));
    }),
  );
}

/** Bodies of the schema, and others that are an example with some fields of such bodies in it. */
function jsonOf(document: ApiDocument, media: MediaType, named: boolean): fc.Arbitrary<unknown> {
  const free = valid(document, media.schema ?? {});
  const example = exampleBody(media, named);
  if (typeof example !== 'object' || example === null || Array.isArray(example))
    return example === undefined ? free : fc.oneof(free, fc.constant(example));
  const mixed = fc.tuple(free, fc.array(fc.nat(), { maxLength: 2 })).map(([made, dice]) => {
    const fields = typeof made === 'object' && made !== null ? Object.entries(made) : [];
    const some = dice.flatMap(die => fields.slice(die % Math.max(1, fields.length)).slice(0, 1));
    return { ...example, ...Object.fromEntries(some) };
  });
  return fc.oneof(free, mixed);
}

/** The example of a body for an object that the path names, or for one of a name that is not taken. */
function exampleBody({ example }: MediaType, named: boolean): unknown {
  if (typeof example !== 'object' || example === null || !('name' in example)) return example;
  const kept = Object.entries(example).filter(([field]) => field !== 'name' && !(named && field === 'namespace'));
  return { ...Object.fromEntries(kept), ...(named ? {} : { generateName: 'made-' }) };
}

/** The request that the document's examples make, about objects that are there. */
export function exemplary({ method, path, parameters, body }: Operation): Draft {
  const [[type, media] = []] = Object.entries(body?.content ?? {});
  const places = parameters.filter(one => one.in === 'path').map(({ name, example }) => [name, String(example)]);
  const selector = parameters.find(one => method === 'DELETE' && one.name === 'labelSelector');
  return {
    path: { ...(Object.fromEntries(places) as Record<string, string>), name: 'one' },
    query: selector ? [['labelSelector', encodeURIComponent(String(selector.example))]] : [],
    headers: path.endsWith('/reveal') ? { Claim: placeholder('claim') } : {},
    body: media && { type, json: exampleBody(media, path.includes('{name}')) },
  };
}

function bytesOf(body: Body, known: Known): Buffer {
  if ('bytes' in body)
    return body.bytes.includes('\u27e6') ? Buffer.from(filled(body.bytes.toString(), known)) : body.bytes;
  return Buffer.from(filled(JSON.stringify(body.json), known));
}

function filled(text: string, known: Known): string {
  return text.replace(/\u27e6([\w-]+)\u27e7/g, (_, word: string) => known(word) ?? '0');
}
