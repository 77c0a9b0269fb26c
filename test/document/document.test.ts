import { expect } from 'chai';
import fc from 'fast-check';
import { startApi, type TestApi } from '../platform.js';
import { complaints } from './answers.js';
import { ApiDocument, type Operation } from './document.js';
import { exchange, hangUp } from './exchange.js';
import { allowed, encode, exemplary, wrong, type Draft } from './requests.js';
import { State } from './state.js';
import { violations } from './violations.js';

// DOCUMENT_RUNS=2000 DOCUMENT_SEED=… for long runs and to see a failure again; the seed is fixed otherwise, so that a red test
// means a change of the code.
const runs = Number(process.env['DOCUMENT_RUNS'] ?? 3);
const seed = Number(process.env['DOCUMENT_SEED'] ?? 7);

/** Operations that answer no success, or no error, to whatever is sent here; and why. */
const never: Partial<Record<string, { success?: string; error?: string }>> = {
  healthz: { error: 'takes no input, and answers as long as the process runs' },
  docs: { error: 'takes no input' },
  metrics: { error: 'takes no input' },
  openapi: { error: 'takes no input' },
  readyz: { error: 'takes no input' },
};

describe('the server, asked whatever comes to mind about its OpenAPI document,', function () {
  this.timeout(600_000);
  let api: TestApi;
  let document: ApiDocument;
  let state: State;

  before(async () => {
    api = await startApi();
    document = new ApiDocument((await api.call('GET', '/openapi.json')).body);
    state = new State();
    await prepare();
  });

  after(async () => {
    hangUp();
    await api.stop();
  });

  /** Objects that requests can meet: those of the examples, under the names that requests use, whole again. */
  async function prepare(): Promise<void> {
    const operations = document.operations.flatMap(({ method, path, body }) => {
      const [, , type, ...rest] = path.split('/');
      const example = body?.content['application/json']?.example;
      const has = (field: string) => document.operations.some(one => one.path.endsWith(`/${type}/${field}`));
      if (method !== 'POST' || rest.length > 0 || type === undefined || !(has('{namespace}/{name}') || has('{name}')))
        return [];
      const places = has('{name}') ? [{}] : [{ namespace: 'default' }, { namespace: 'foo' }];
      return places.flatMap(place =>
        ['one', 'two'].flatMap(name => [
          { op: 'patch', type, ...place, name, subresource: 'metadata', patch: { finalizers: null, owners: null } },
          { op: 'upsert', type, object: { ...(example as object), ...place, name } },
        ]),
      );
    });
    const answer = await api.call('POST', '/v1/batch', { operations });
    expect(answer.status, JSON.stringify(answer.body)).to.equal(200);
    for (const controller of ['one', 'keeper']) {
      const registration = { type: 'clusters', reveal: ['clusters', 'secrets'], claimSeconds: 3_600, revision: 0 };
      await api.call('PUT', `/v1/controllers/${controller}`, registration);
    }
    if (state.claim !== undefined) return;
    const { body } = await api.call('POST', '/v1/controllers/keeper/claims', {
      worker: 'keeper',
      max: 1,
      waitSeconds: 20,
    });
    state.claim = (body as { claims: { token: string }[] }).claims[0]?.token;
  }

  async function ask(operation: Operation, draft: Draft): Promise<number> {
    const wire = encode(operation, draft, state.known(operation, draft));
    const forbidden = violations(document, operation, wire);
    const answer = await exchange(api.url, wire);
    state.learn(operation, answer);
    const found = complaints(document, operation, answer);
    if (forbidden.length > 0 && answer.status < 400) found.push(`${answer.status} though ${forbidden.join(', ')}`);
    if (found.length > 0) {
      const shown = { ...wire, target: wire.target.slice(0, 500), body: wire.body?.toString().slice(0, 1_000) };
      throw new Error(`${found.join('\n')}\nto ${JSON.stringify(shown)}`);
    }
    return answer.status;
  }

  async function examine(operation: Operation, seen: Set<number>, found: Set<string>) {
    let asked = 0;
    const plain = exemplary(operation);
    const drafts = fc.oneof(allowed(document, operation), wrong(document, operation));
    const property = fc.asyncProperty(drafts, async draft => {
      if (asked++ % 10 === 0) await prepare();
      // Noted, not thrown: one run shows everything that is wrong, and requests depend on what was stored before.
      await ask(operation, draft).then(
        status => seen.add(status),
        (error: unknown) => found.add(error instanceof Error ? error.message : String(error)),
      );
    });
    // The first two reach a success and an error, however few there are.
    const examples: [Draft][] = [[plain], [{ ...plain, query: [['unknown', '1']] }]];
    await fc.assert(property, { seed, numRuns: 2 * runs + examples.length, examples });
  }

  it('answers as documented, and never takes what the document forbids', async function () {
    const failures: string[] = [];
    const only = process.env['DOCUMENT_ONLY'];
    for (const operation of document.operations) {
      if (only !== undefined && !operation.id.includes(only)) continue;
      const seen = new Set<number>();
      const found = new Set<string>();
      await examine(operation, seen, found);
      const { success, error } = never[operation.id] ?? {};
      const codes = [...seen].join(', ');
      if (success === undefined && ![...seen].some(code => code < 300)) found.add(`no success, but ${codes}`);
      if (error === undefined && ![...seen].some(code => code >= 400)) found.add(`no error, but ${codes}`);
      failures.push(...[...found].map(text => `${operation.method} ${operation.path}\n${text}`));
    }
    expect(failures.length, `with DOCUMENT_SEED=${seed}:\n${failures.join('\n\n')}`).to.equal(0);
  });
});
