import { expect } from 'chai';
import { startApi, type TestApi } from '../platform.js';
import { complaints } from './answers.js';
import { ApiDocument, type MediaType, type Operation, type Parameter } from './document.js';
import { exchange, hangUp, type Received, type Wire } from './exchange.js';

/** What the server sets itself: examples have such values, the same ones cannot be asked for. */
const made = ['uid', 'resourceVersion', 'generation', 'createdAt', 'updatedAt', 'first', 'last', 'count'];
/** Parameters without an example, and why. */
const without: Record<string, string> = {
  uid: 'made by the server',
  ownerUid: 'made by the server',
  resourceVersion: 'given by the server',
  continue: 'given by the server',
  Claim: 'given by the server',
  namespace: 'of a list: any',
  orderBy: 'only types with an indexed field',
  all: 'deletes everything',
  stream: 'one renewal after the other',
};

describe('examples in the OpenAPI document', function () {
  this.timeout(120_000);
  let api: TestApi;
  let document: ApiDocument;

  before(async () => {
    api = await startApi();
    document = new ApiDocument((await api.call('GET', '/openapi.json')).body);
  });

  after(async () => {
    hangUp();
    await api.stop();
  });

  /** Everything that an example is about, as the examples of creation make it; what it creates itself is not there. */
  async function restore({ id, path }: Operation): Promise<void> {
    const writes = document.operations.filter(one => creates(one));
    const operations = writes.flatMap(one => {
      const object = one.body?.content['application/json']?.example as { name: string };
      const type = one.path.split('/')[2];
      const { name, ...place } = Object.fromEntries(
        Object.entries(object).filter(([field]) => ['name', 'namespace'].includes(field)),
      );
      const gone = { op: 'delete', type, ...place, name };
      return one.id === id ? [gone] : [gone, { op: 'create', type, object }];
    });
    const { status } = await api.call('POST', '/v1/batch', { operations });
    expect(status).to.equal(200);
    const register = document.operations.find(one => one.id === 'registerController');
    if (path.includes('/controllers') && register) await send(register, 'application/json', []);
  }

  function send(operation: Operation, mediaType: string | undefined, optional: Parameter[]): Promise<Received> {
    return exchange(api.url, wire(operation, mediaType, optional));
  }

  function wire(
    { id, method, path, parameters, body }: Operation,
    mediaType: string | undefined,
    optional: Parameter[],
  ): Wire {
    const example = mediaType === undefined ? undefined : body?.content[mediaType]?.example;
    const text = (value: unknown) => encodeURIComponent(String(value));
    // A deletion of many that names nothing to delete is refused.
    const needed = parameters.filter(one => one.name === 'labelSelector' && method === 'DELETE');
    const asked = new Set([...needed, ...optional.filter(one => one.in === 'query')]);
    const query = [...asked].map(({ name, example }) => `${name}=${text(example)}`);
    const headers = optional
      .filter(one => one.in === 'header')
      .map(({ name, example }) => [
        name,
        // Each request needs a key of its own.
        name === 'Idempotency-Key' ? `${String(example)}-${id}` : String(example),
      ]);
    const target = path.replace(/\{(\w+)\}/g, (_, name: string) =>
      text(parameters.find(one => one.in === 'path' && one.name === name)?.example),
    );
    return {
      method,
      target: query.length > 0 ? `${target}?${query.join('&')}` : target,
      headers: {
        ...(Object.fromEntries(headers) as Record<string, string>),
        ...(mediaType === undefined ? {} : { 'Content-Type': mediaType }),
      },
      ...(example === undefined
        ? {}
        : { body: Buffer.from(typeof example === 'string' ? example : JSON.stringify(example)) }),
    };
  }

  it('are there for every body and every parameter that can have one', () => {
    const missing = document.operations.flatMap(({ id, parameters, body }) => [
      ...Object.entries(body?.content ?? {}).flatMap(([type, { example }]) =>
        example === undefined ? [`${id} ${type}`] : [],
      ),
      ...parameters.flatMap(one => {
        const excused = one.required !== true && one.name in without;
        return one.example === undefined && !excused ? [`${id} ${one.name}`] : [];
      }),
    ]);
    expect(missing).to.deep.equal([]);
  });

  it('fit their schemas', () => {
    for (const { id, body, responses } of document.operations) {
      for (const media of Object.values(body?.content ?? {})) {
        if (!media['x-line']) expect(document.mayBeSent(media.schema ?? {}, media.example), id).to.equal(true);
      }
      for (const { content } of Object.values(responses)) {
        const { schema = {}, example } = content['application/json'] ?? {};
        if (example !== undefined) expect(document.answerErrors(schema, example), id).to.deep.equal([]);
      }
    }
  });

  it('are answered as they say when they are sent', async () => {
    const failures: string[] = [];
    for (const operation of document.operations) {
      // Of a claim that there is not; see work.test.ts for one that there is.
      if (operation.id.startsWith('reveal')) continue;
      const types = operation.body ? Object.keys(operation.body.content) : [undefined];
      for (const type of types) {
        await restore(operation);
        const answer = await send(operation, type, []);
        const found = complaints(document, operation, answer);
        if (answer.status >= 300) found.push(`${answer.status}: ${answer.text}`);
        const media: MediaType | undefined = operation.responses[String(answer.status)]?.content['application/json'];
        if (media?.example !== undefined && operation.method !== 'HEAD' && type !== 'application/x-ndjson')
          found.push(...differences(media.example, JSON.parse(answer.text), ''));
        if (found.length > 0) failures.push(`${operation.id} ${type ?? ''}\n${found.join('\n')}`);
      }
    }
    expect(failures, failures.join('\n\n')).to.deep.equal([]);
  });

  it('of parameters and headers are taken, one by one, for one type of all', async () => {
    const tried = new Set<string>();
    const failures: string[] = [];
    for (const operation of document.operations) {
      if (operation.id.startsWith('reveal')) continue;
      const [type] = Object.keys(operation.body?.content ?? {});
      const family = `${operation.method} ${operation.path.replace(/^\/v1\/\w+(?=$|\/\{name|\/\{namespace)/, '')}`;
      for (const parameter of operation.parameters) {
        const which = `${family.replace('/{namespace}', '')} ${parameter.name}`;
        if (parameter.in === 'path' || parameter.example === undefined || tried.has(which)) continue;
        tried.add(which);
        await restore(operation);
        const answer = await send(operation, type, [parameter]);
        const found = complaints(document, operation, answer);
        // A version of an example is none that the object has: that is the answer then.
        const refused = ['If-Match', 'If-None-Match'].includes(parameter.name);
        if (answer.status >= 300 && !(refused && [304, 409].includes(answer.status)))
          found.push(`${answer.status}: ${answer.text}`);
        if (found.length > 0) failures.push(`${operation.id} ${parameter.name}\n${found.join('\n')}`);
      }
    }
    expect(failures, failures.join('\n\n')).to.deep.equal([]);
  });
});

function creates({ method, path, id }: Operation): boolean {
  return method === 'POST' && /^\/v1\/\w+$/.test(path) && id.startsWith('create');
}

/** Where an answer is another one than the example, but for what the server makes. */
function differences(example: unknown, answer: unknown, path: string): string[] {
  if (made.some(name => path.endsWith(`.${name}`))) return answer === undefined ? [`${path} is missing`] : [];
  if (Array.isArray(example) && Array.isArray(answer) && /\.(items|claims|held|changed)$/.test(path)) {
    // Which ones there are is not theirs to say.
    return [];
  }
  if (typeof example !== 'object' || example === null || typeof answer !== 'object' || answer === null)
    return example === answer ? [] : [`${path} is ${JSON.stringify(answer)}, not ${JSON.stringify(example)}`];
  const names = new Set([...Object.keys(example), ...Object.keys(answer)]);
  return [...names].flatMap(name =>
    differences(Reflect.get(example, name), Reflect.get(answer, name), `${path}.${name}`),
  );
}
