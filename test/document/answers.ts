import type { ApiDocument, MediaType, Operation } from './document.js';
import type { Received } from './exchange.js';

/**
 * Everything about an answer that is not as the document says: status, headers, content type, body. The document's `default` is
 * for what stands between; a status of the server's own has a place of its own.
 */
export function complaints(document: ApiDocument, operation: Operation, answer: Received): string[] {
  const { status, headers, text } = answer;
  const response = operation.responses[String(status)];
  if (!response) return [`status ${status} is not documented: ${text.slice(0, 300)}`];
  const found: string[] = status >= 500 ? [`status ${status}: ${text.slice(0, 300)}`] : [];
  for (const [name, { required, schema }] of Object.entries(response.headers)) {
    const given = headers[name.toLowerCase()];
    if (given === undefined) {
      if (required === true) found.push(`${status} comes without the header ${name}`);
      continue;
    }
    for (const value of [given].flat()) {
      const errors = document.answerErrors(schema, schema.type === 'integer' ? Number(value) : value);
      found.push(...errors.map(error => `${status}, header ${name}: ${value} ${error}`));
    }
  }
  return [...found, ...bodyComplaints(document, operation, answer, response.content)];
}

function bodyComplaints(
  document: ApiDocument,
  { method }: Operation,
  { status, headers, text, cut }: Received,
  content: Record<string, MediaType>,
): string[] {
  if (method === 'HEAD' || Object.keys(content).length === 0)
    return text === '' ? [] : [`${status} has a body: ${text.slice(0, 100)}`];
  // Where the object was not wanted, the answer that would have it is empty; one status has no second form in a document.
  if (text === '' && headers['preference-applied'] === 'return=minimal') return [];
  const type = headers['content-type']?.split(';')[0]?.trim() ?? '';
  const media = content[type];
  if (!media) return [`${status} has the content type "${type}": ${text.slice(0, 100)}`];
  if (!media['x-line']) return jsonComplaints(document, `${status}`, text, headers['x-request-id'], media);
  const lines = text.split('\n');
  // What follows the last line break has not come in full.
  if (cut) lines.pop();
  return lines
    .map(line => (type === 'text/event-stream' ? (/^data: ?(.*)$/.exec(line)?.[1] ?? '') : line))
    .filter(line => line !== '')
    .flatMap(line => jsonComplaints(document, `${status}, a line`, line, undefined, { schema: media['x-line'] ?? {} }));
}

function jsonComplaints(
  document: ApiDocument,
  where: string,
  text: string,
  requestId: string | string[] | undefined,
  { schema = {} }: MediaType,
): string[] {
  // Texts, such as metrics and pages, have no form of their own in the document.
  if (schema.type === 'string') return [];
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    return [`${where} is no JSON: ${text.slice(0, 100)}`];
  }
  const found = document.answerErrors(schema, json).map(error => `${where}: ${error}`);
  const error = typeof json === 'object' && json !== null ? (Reflect.get(json, 'error') as unknown) : undefined;
  if (requestId !== undefined && typeof error === 'object' && error !== null) {
    if (Reflect.get(error, 'requestId') !== requestId) found.push(`${where} has another request id than its header`);
    if (String(Reflect.get(error, 'status')) !== where) found.push(`${where} has another status in its body`);
  }
  return found.length > 0 ? [...found, text.slice(0, 600)] : [];
}
