import { expect } from 'chai';
import { request } from 'node:http';
import { createInterface } from 'node:readline';
import { models } from '../build/models.js';
import { startApi, type TestApi } from '../test/platform.js';
import { until } from '../test/until.js';
import type { TypeDefinition } from './type-definition.js';

const text = { dataType: 'string' } as const;
const plain = { description: '', secrets: [], immutable: [], indexes: [], defaults: {}, uniques: [], references: [] };

/** Types for these tests, as the generator would make them. */
const gadgets: TypeDefinition = {
  ...plain,
  type: 'gadgets',
  kind: 'Gadget',
  namespaced: true,
  fields: ['serial', 'part'],
  input: 'GadgetInput',
  uniques: [{ fields: ['serial'], everywhere: true }],
  references: [{ field: 'part', target: 'parts', onDelete: 'refuse' }],
};
const parts: TypeDefinition = {
  ...plain,
  type: 'parts',
  kind: 'Part',
  namespaced: true,
  fields: ['size'],
  input: 'PartInput',
};
const envelope = {
  type: text,
  name: { ...text, required: true },
  namespace: text,
  uid: text,
  resourceVersion: text,
  labels: { dataType: 'any' },
  annotations: { dataType: 'any' },
  finalizers: { dataType: 'any' },
} as const;

describe('batches', () => {
  let api: TestApi;
  let serial = 0;
  const fresh = () => `b${++serial}`;
  before(async () => {
    models['GadgetInput'] = {
      dataType: 'refObject',
      properties: { ...envelope, serial: text, part: text },
      additionalProperties: false,
    };
    models['PartInput'] = {
      dataType: 'refObject',
      properties: { ...envelope, size: { dataType: 'integer' } },
      additionalProperties: false,
    };
    api = await startApi({ types: [gadgets, parts] });
  });
  after(() => api.stop());

  const cluster = (name: string, fields: object = {}) => ({ name, namespace: 'foo', ...fields });
  const batch = (operations: object[], more: object = {}, headers: Record<string, string> = {}) =>
    api.call('POST', '/v1/batch', { operations, ...more }, headers);
  const read = (name: string) => api.call('GET', `/v1/clusters/foo/${name}`);
  const statuses = (answer: { body: { results: { status: number }[] } }) =>
    answer.body.results.map(({ status }) => status);

  it('answers every operation with a result of its own', async () => {
    const [a, b] = [fresh(), fresh()];
    await api.call('POST', '/v1/clusters', cluster(b));
    const answer = await batch([
      { op: 'create', type: 'clusters', object: cluster(a, { context: 'x', kubeconfig: 'hidden' }) },
      { op: 'create', type: 'clusters', object: cluster(b) },
      { op: 'create', type: 'clusters', object: cluster(fresh(), { context: '' }) },
      { op: 'patch', type: 'clusters', namespace: 'foo', name: b, patch: { context: 'y' } },
      { op: 'delete', type: 'clusters', namespace: 'foo', name: 'nobody' },
      { op: 'create', type: 'nothings', object: {} },
      { op: 'delete', type: 'clusters', namespace: 'foo', name: b, object: {} },
    ]);
    expect(answer.status).to.equal(200);
    expect(statuses(answer)).to.deep.equal([201, 409, 422, 200, 404, 404, 422]);
    const [first, second] = answer.body.results;
    expect(first.object)
      .to.deep.equal((await read(a)).body)
      .and.include({ kubeconfig: '••••••' });
    expect(second.error).to.include({ code: 'AlreadyExists', status: 409 });
  });

  it('carries operations on the same object out in their order', async () => {
    const name = fresh();
    const key = { type: 'clusters', namespace: 'foo', name };
    for (const atomic of [false, true]) {
      const answer = await batch(
        [
          { op: 'create', type: 'clusters', object: cluster(name) },
          { op: 'patch', ...key, patch: { context: 'a' } },
          { op: 'patch', ...key, patch: { labels: { x: 'y' } } },
          { op: 'replace', ...key, subresource: 'status', object: { status: { nodeCount: 3 } } },
          { op: 'delete', ...key },
          { op: 'create', type: 'clusters', object: cluster(name, { context: 'b' }) },
          { op: 'delete', ...key },
        ],
        { atomic },
      );
      expect(statuses(answer), JSON.stringify(answer.body)).to.deep.equal([201, 200, 200, 200, 200, 201, 200]);
      expect(answer.body.results[3].object).to.deep.include({
        context: 'a',
        labels: { x: 'y' },
        status: { nodeCount: 3 },
      });
      expect(answer.body.results[6].object).to.include({ context: 'b' });
    }
    const versions = await api.database.query<{ op: string }>({
      text: `select op from syncsets.events where name = $1 order by version`,
      values: [name],
    });
    const once = ['ADDED', 'MODIFIED', 'MODIFIED', 'MODIFIED', 'DELETED', 'ADDED', 'DELETED'];
    expect(versions.map(({ op }) => op)).to.deep.equal([...once, ...once]);
  });

  it('stores all of an atomic batch or nothing, and says which operation failed', async () => {
    const [a, b] = [fresh(), fresh()];
    const create = { op: 'create', type: 'clusters', object: cluster(a) };
    const stale = { op: 'create', type: 'syncsets', object: { name: b, namespace: 'foo', clusterRefs: 3 } };
    const answer = await batch([create, stale], { atomic: true });
    expect(answer.status).to.be.oneOf([422, 400]);
    expect(answer.body.error.details[0].path).to.equal('operations[1]');
    const taken = await batch([create, create], { atomic: true });
    expect([taken.status, taken.body.error.code]).to.deep.equal([409, 'AlreadyExists']);
    expect(taken.body.error.details[0].path).to.equal('operations[1]');
    expect((await read(a)).status).to.equal(404);
    const both = await batch([create, { op: 'create', type: 'secrets', object: { name: b } }], { atomic: true });
    expect(statuses(both)).to.deep.equal([201, 201]);
  });

  it('shows the rules of a type what the operations before it made, and all that is stored', async () => {
    for (const atomic of [false, true]) {
      const [stored, made] = [fresh(), fresh()];
      await api.call('POST', '/v1/clusters', cluster(stored));
      const set = (clusterRefs: string[]) => {
        const object = { name: fresh(), namespace: 'foo', clusterRefs };
        return { op: 'create', type: 'syncsets', object };
      };
      const answer = await batch(
        [{ op: 'create', type: 'clusters', object: cluster(made) }, set([made, stored]), set([stored])],
        { atomic },
      );
      expect(answer.status, JSON.stringify(answer.body)).to.equal(200);
      expect(statuses(answer), JSON.stringify(answer.body)).to.deep.equal([201, 201, 201]);
      const refused = await batch([{ op: 'delete', type: 'clusters', namespace: 'foo', name: made }, set([made])], {
        atomic,
      });
      if (atomic) expect(refused.status).to.equal(422);
      else expect(statuses(refused)).to.deep.equal([200, 422]);
    }
  });

  it('keeps the order of what rules look at, however the write names it, and stores the rest together', async () => {
    const [named, added] = [fresh(), fresh()];
    const set = { type: 'syncsets', namespace: 'foo', name: fresh() };
    const create = (name: string) => ({ op: 'create', type: 'clusters', object: cluster(name) });
    const add = [{ op: 'add', path: '/clusterRefs/-', value: added }];
    const answer = await batch([
      { op: 'create', type: 'syncsets', object: { ...set, clusterRefs: [named] } },
      create(named),
      { op: 'create', type: 'syncsets', object: { ...set, clusterRefs: [named] } },
      { op: 'patch', ...set, patch: { clusterRefs: [added] } },
      create(added),
      { op: 'patch', ...set, patch: add, patchType: 'json' },
      { op: 'delete', type: 'clusters', namespace: 'foo', name: named },
      { op: 'replace', ...set, object: { clusterRefs: [added] } },
      { op: 'replace', ...set, object: { clusterRefs: [named] } },
    ]);
    expect(statuses(answer)).to.deep.equal([422, 201, 201, 422, 201, 200, 200, 200, 422]);

    const types = ['clusters', 'secrets', 'syncsets'];
    const names = Array.from({ length: 16 }, () => fresh());
    const each = (write: (type: string, name: string) => object) =>
      names.flatMap(name => types.map(type => write(type, name)));
    await batch(
      each((type, name) => {
        const object = { name, namespace: 'foo', ...(type === 'syncsets' && { clusterRefs: [] }) };
        return { op: 'create', type, object };
      }),
    );
    const labels = { of: 'all' };
    const patched = await batch(
      each((type, name) => ({ op: 'patch', type, namespace: 'foo', name, patch: { labels } })),
    );
    expect(new Set(statuses(patched))).to.deep.equal(new Set([200]));
    const [stored] = await api.database.query<{ transactions: number }>({
      text: `select count(distinct xmin::text)::int as transactions from syncsets.events
        where op = 'MODIFIED' and name = any ($1)`,
      values: [names],
    });
    expect(stored?.transactions).to.be.at.most(types.length);
  });

  it('tries a batch without storing anything, an atomic one as a whole', async () => {
    const [there, made] = [fresh(), fresh()];
    const stored = (await api.call('POST', '/v1/clusters', cluster(there))).body;
    const operations = [
      { op: 'create', type: 'clusters', object: cluster(made) },
      { op: 'patch', type: 'clusters', namespace: 'foo', name: made, patch: { context: 'a' } },
      { op: 'patch', type: 'clusters', namespace: 'foo', name: there, patch: { context: 'b' } },
      { op: 'patch', type: 'clusters', namespace: 'foo', name: there, patch: { context: 'c' } },
    ];
    const dry = (atomic: boolean) =>
      api.call('POST', '/v1/batch?dryRun=All', { operations, atomic }, { 'Idempotency-Key': made });
    const whole = await dry(true);
    expect(statuses(whole), JSON.stringify(whole.body)).to.deep.equal([201, 200, 200, 200]);
    const { resourceVersion } = stored;
    expect(whole.body.results.map((one: { object: object }) => one.object)).to.containSubset([
      { name: made, resourceVersion: '0' },
      { name: made, resourceVersion: '0', context: 'a' },
      { name: there, resourceVersion, context: 'b' },
      { name: there, resourceVersion, context: 'c' },
    ]);
    const each = await dry(false);
    expect(statuses(each)).to.deep.equal([201, 404, 200, 200]);
    expect((await read(made)).status).to.equal(404);
    expect((await read(there)).body).to.deep.equal(stored);
    expect((await api.call('POST', '/v1/batch?dryRun=yes', { operations })).status).to.equal(400);
  });

  it('deletes with the propagation that is asked for, and knows it for nothing else', async () => {
    const name = fresh();
    await api.call('POST', '/v1/clusters', cluster(name));
    const key = { type: 'clusters', namespace: 'foo', name, propagationPolicy: 'Foreground' };
    const answer = await batch([
      { op: 'delete', ...key },
      { op: 'patch', ...key, patch: {} },
    ]);
    expect(statuses(answer)).to.deep.equal([200, 422]);
    expect(answer.body.results[0].object.finalizers).to.deep.equal(['foreground']);
  });

  it('lets overlapping atomic batches in opposite order succeed, without a deadlock', async () => {
    const names = [fresh(), fresh(), fresh(), fresh()];
    for (const name of names) await api.call('POST', '/v1/clusters', cluster(name));
    for (const name of names) await api.call('POST', '/v1/secrets', { name, namespace: 'foo' });
    const change = (order: string[], who: string, turn: number) =>
      batch(
        order.flatMap((name, i) => {
          const types = i % 2 === 0 ? ['clusters', 'secrets'] : ['secrets', 'clusters'];
          const patch = { annotations: { [who]: String(turn) } };
          return types.map(type => ({ op: 'patch', type, namespace: 'foo', name, patch }));
        }),
        { atomic: true },
      );
    await Promise.all(
      ['w1', 'w2', 'w3', 'w4'].map(async (who, n) => {
        for (let turn = 0; turn < 10; turn++) {
          const answer = await change(n % 2 === 0 ? names : [...names].reverse(), who, turn);
          expect(answer.status, JSON.stringify(answer.body)).to.equal(200);
        }
      }),
    );
    expect((await read(names[0] ?? '')).body.annotations).to.deep.equal({ w1: '9', w2: '9', w3: '9', w4: '9' });
  }).timeout(30_000);

  it('upserts: creates, replaces, and leaves what is newer alone', async () => {
    const name = fresh();
    const upsert = (at: string, context: string) =>
      batch([
        {
          op: 'upsert',
          type: 'clusters',
          object: cluster(name, { context, annotations: { at } }),
          unlessNewer: 'annotations.at',
        },
      ]);
    expect(statuses(await upsert('9', 'first'))).to.deep.equal([201]);
    expect(statuses(await upsert('10', 'second'))).to.deep.equal([200]);
    const older = await upsert('9', 'late');
    expect(older.body.results[0]).to.deep.include({ status: 200 });
    expect(older.body.results[0].object).to.include({ context: 'second' });
  });

  it('holds a unique value against 16 clients who want it, and names the other object', async () => {
    const answers = await Promise.all(
      Array.from({ length: 16 }, (_, i) =>
        batch([{ op: 'create', type: 'gadgets', object: cluster(`same${i}`, { serial: 'one' }) }]),
      ),
    );
    const results = answers.map(answer => answer.body.results[0]);
    expect(results.filter(({ status }) => status === 201)).to.have.length(1);
    const winner = results.find(({ status }) => status === 201).object.name;
    const loser = results.find(({ status }) => status === 409);
    expect(loser.error.code).to.equal('NotUnique');
    expect(loser.error.details).to.deep.equal([{ path: 'serial', message: `gadgets foo/${winner} has this value` }]);
  });

  it('takes a target and its referrer in one batch, and refuses to delete the target alone', async () => {
    for (const atomic of [false, true]) {
      const name = fresh();
      const create = [
        { op: 'create', type: 'parts', object: cluster(name) },
        { op: 'create', type: 'gadgets', object: cluster(name, { part: name }) },
      ];
      expect(statuses(await batch(create, { atomic }))).to.deep.equal([201, 201]);
      const removal = { op: 'delete', type: 'parts', namespace: 'foo', name };
      const refused = await batch([removal]);
      expect(refused.body.results[0].error).to.include({ code: 'Referenced', status: 409 });
      expect(refused.body.results[0].error.details[0]).to.deep.include({ path: 'part' });
      expect(JSON.stringify(refused.body)).to.contain(`gadgets foo/${name} refers to it`);
      const both = await batch([{ ...removal, type: 'gadgets' }, removal], { atomic });
      expect(statuses(both), JSON.stringify(both.body)).to.deep.equal([200, 200]);
    }
    const [missing] = (await batch([{ op: 'create', type: 'gadgets', object: cluster(fresh(), { part: 'none' }) }]))
      .body.results;
    expect(missing).to.nested.include({ status: 422, 'error.details[0].path': 'part' });
  });

  /** A stream of operations: lines are sent one by one, results come meanwhile. */
  function stream(headers: Record<string, string> = {}, query = '') {
    const results: { index: number; status: number; object?: Record<string, unknown>; error?: { code: string } }[] = [];
    const sending = request(`${api.url}/v1/batch${query}`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/x-ndjson', ...headers },
    });
    const done = new Promise<number>((resolve, reject) => {
      sending.once('error', reject);
      sending.once('response', response => {
        const lines = createInterface({ input: response });
        lines.on('line', line => results.push(JSON.parse(line)));
        lines.once('close', () => resolve(response.statusCode ?? 0));
      });
    });
    return {
      results,
      sending,
      done,
      send: (line: string | object) => sending.write(`${typeof line === 'string' ? line : JSON.stringify(line)}\n`),
    };
  }

  it('answers lines while more of them are still to come; a bad one is its own error', async () => {
    const { results, sending, done, send } = stream();
    const name = fresh();
    send({ op: 'create', type: 'clusters', object: cluster(name) });
    await until(() => results.length === 1, { what: 'the first result' });
    expect(results[0]).to.deep.include({ index: 0, status: 201 });
    send('{"op": "create", ');
    send('');
    send('[1]');
    send({ op: 'create', type: 'clusters', objekt: {} });
    send('x'.repeat(3 * 2 ** 20 + 1));
    send({ op: 'patch', type: 'clusters', namespace: 'foo', name, patch: { context: 'a' } });
    sending.end(JSON.stringify({ op: 'delete', type: 'clusters', namespace: 'foo', name }));
    expect(await done).to.equal(200);
    expect(results.map(({ index, status }) => [index, status])).to.deep.equal([
      [0, 201],
      [1, 400],
      [2, 400],
      [3, 400],
      [4, 413],
      [5, 200],
      [6, 200],
    ]);
    expect(results[6]?.object).to.include({ context: 'a' });
  });

  it('shows the rules of a type what lines of another type long before have made', async () => {
    const { results, sending, done, send } = stream();
    const names = Array.from({ length: 600 }, () => fresh());
    for (const name of names) send({ op: 'create', type: 'clusters', object: cluster(name) });
    send({ op: 'create', type: 'syncsets', object: { name: fresh(), namespace: 'foo', clusterRefs: names } });
    sending.end();
    expect(await done).to.equal(200);
    expect(results.filter(({ status }) => status !== 201)).to.deep.equal([]);
  });

  it('stores no line of a dry run', async () => {
    const { results, sending, done, send } = stream({}, '?dryRun=All');
    const name = fresh();
    send({ op: 'create', type: 'clusters', object: cluster(name) });
    sending.end();
    expect([await done, results[0]?.status]).to.deep.equal([200, 201]);
    expect((await read(name)).status).to.equal(404);
  });

  it('takes more lines than fit in memory buffers, in their order for each object, and replays them by key and line', async () => {
    const headers = { 'Idempotency-Key': `load-${fresh()}` };
    const count = 3_000;
    const run = async () => {
      const { results, sending, done, send } = stream(headers);
      for (let i = 0; i < count; i++) {
        const object = cluster(`load${i % 1_000}`, { annotations: { turn: String(i) } });
        send({ op: i < 1_000 ? 'create' : 'replace', type: 'clusters', object });
      }
      sending.end();
      expect(await done).to.equal(200);
      return results;
    };
    const first = await run();
    expect(first.map(({ index }) => index)).to.deep.equal(Array.from({ length: count }, (_, i) => i));
    expect(new Set(first.map(({ status }) => status))).to.deep.equal(new Set([200, 201]));
    expect((await read('load7')).body.annotations).to.deep.equal({ turn: '2007' });
    const again = await run();
    expect(again).to.deep.equal(first);
    expect((await read('load7')).body.generation).to.equal(1);
  }).timeout(30_000);

  it('answers with 32 MiB at most: of what does not fit, that it is done', async function () {
    this.timeout(30_000);
    const name = fresh();
    await api.call('POST', '/v1/clusters', cluster(name, { context: 'x'.repeat(1_400_000) }));
    const operations = Array.from({ length: 25 }, (_, i) => ({
      op: 'patch',
      type: 'clusters',
      namespace: 'foo',
      name,
      patch: i === 24 ? { labels: { last: 'yes' } } : {},
    }));
    const answer = await batch(operations);
    expect(statuses(answer)).to.deep.equal(operations.map(() => 200));
    const { results } = answer.body as { results: { status: number; object?: object; truncated?: boolean }[] };
    expect(results.filter(({ object }) => object !== undefined)).to.have.length(23);
    expect(results.at(-1)).to.deep.equal({ status: 200, truncated: true });
    expect((await read(name)).body.labels).to.deep.equal({ last: 'yes' });
  });

  it('refuses too many operations and too large a body', async () => {
    const many = await batch(Array.from({ length: 1_001 }, () => ({ op: 'delete', type: 'clusters', name: 'x' })));
    expect(many.status).to.equal(422);
    expect((await batch([])).status).to.equal(422);
    const large = await api.call('POST', '/v1/batch', `{"x":"${'x'.repeat(32 * 2 ** 20)}"}`).catch(() => undefined);
    expect(large?.status ?? 413).to.equal(413);
  });
});
