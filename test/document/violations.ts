import type { ApiDocument, Operation, Schema } from './document.js';
import type { Wire } from './exchange.js';

/** What the document forbids about a request; empty when it allows it. */
export function violations(document: ApiDocument, operation: Operation, { target, headers, body }: Wire): string[] {
  const found: string[] = [];
  const [path = '', ...rest] = target.split('?');
  const query = new URLSearchParams(rest.join('?'));
  for (const name of new Set(query.keys())) {
    const parameter = operation.parameters.find(one => one.in === 'query' && one.name === name);
    // As the document says of itself: pages beside it take what is asked of them.
    if (!path.startsWith('/v1')) continue;
    if (!parameter) found.push(`query parameter ${name} is unknown`);
    else if (query.getAll(name).length > 1) found.push(`query parameter ${name} is repeated`);
    else if (!allows(document, parameter.schema, query.get(name) ?? '')) found.push(`query parameter ${name} is wrong`);
  }
  if (!isEncoded(path)) found.push('the path is not well encoded');
  for (const { name, required, schema, in: place } of operation.parameters) {
    const given = place === 'header' ? headers[name] : (query.get(name) ?? undefined);
    if (required === true && place !== 'path' && given === undefined) found.push(`${name} is missing`);
    if (place === 'header' && given !== undefined && !allows(document, schema, given))
      found.push(`header ${name} is wrong`);
  }
  if (operation.body) found.push(...bodyViolations(document, operation.body, headers, body));
  return found;
}

function bodyViolations(
  document: ApiDocument,
  { required, content }: NonNullable<Operation['body']>,
  headers: Record<string, string>,
  body: Buffer | undefined,
): string[] {
  const length = body?.length ?? 0;
  const type = (headers['Content-Type'] ?? '').split(';')[0]?.trim().toLowerCase() ?? '';
  const media = Object.hasOwn(content, type) ? content[type] : undefined;
  // No lines are a body of lines as well.
  if (body === undefined || (length === 0 && !media?.['x-line'])) return required ? ['the body is missing'] : [];
  if (!media) return [`the content type ${type} is none of the document`];
  // Its lines are judged one by one, in the answer.
  if (media['x-line']) return [];
  const encoding = headers['Content-Encoding'];
  if (encoding !== undefined && encoding !== 'identity') return ['the body is not encoded as its header says'];
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(body));
  } catch {
    return ['the body is no JSON'];
  }
  return document.mayBeSent(media.schema ?? {}, json) ? [] : ['the body does not fit its schema'];
}

function allows(document: ApiDocument, given: Schema, text: string): boolean {
  const schema = document.flat(given);
  if (schema.type === 'boolean') return ['true', 'false', '1', '0'].includes(text);
  const isNumber = schema.type === 'integer' || schema.type === 'number';
  return document.mayBeSent(schema, isNumber && /^-?\d+(\.\d+)?$/.test(text) ? Number(text) : text);
}

function isEncoded(path: string): boolean {
  try {
    decodeURIComponent(path);
    return true;
  } catch {
    return false;
  }
}
