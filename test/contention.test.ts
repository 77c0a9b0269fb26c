import { expect } from 'chai';
import { models } from '../build/models.js';
import type { TypeDefinition } from '../api/index.js';
import { Backoff, connect, isPlatformError, type Client } from '../client/index.js';
import { call, startApi, type TestApi } from './platform.js';

// CONTENTION=1: all 6,400 increments. Of 32 who read the same version only one can write: beginning anew at once would be
// 400,000 requests and 10 minutes; those who wait a while, as everybody should, need about 5 requests for each increment.
const long = process.env['CONTENTION'] !== undefined;
const clients = 32;
const increments = long ? 200 : 2;
const races = long ? 1_000 : 80;

const text = { dataType: 'string' } as const;
const plain = { description: '', secrets: [], immutable: [], indexes: [], defaults: {}, uniques: [], references: [] };
const envelope = { type: text, name: { ...text, required: true }, namespace: text } as const;
const harbours: TypeDefinition = {
  ...plain,
  type: 'harbours',
  kind: 'Harbour',
  namespaced: true,
  fields: ['code'],
  input: 'HarbourInput',
  uniques: [{ fields: ['code'], everywhere: true }],
};
const ships: TypeDefinition = {
  ...plain,
  type: 'ships',
  kind: 'Ship',
  namespaced: true,
  fields: ['home'],
  input: 'ShipInput',
  references: [{ field: 'home', target: 'harbours', onDelete: 'refuse' }],
};

/** Many who want the same at once, on two processes of the platform. */
describe('contention', function () {
  this.timeout(long ? 1_800_000 : 60_000);
  let api: TestApi;
  let replica: TestApi;
  let urls: string[];

  before(async () => {
    models['HarbourInput'] = {
      dataType: 'refObject',
      properties: { ...envelope, code: text },
      additionalProperties: false,
    };
    models['ShipInput'] = {
      dataType: 'refObject',
      properties: { ...envelope, home: text },
      additionalProperties: false,
    };
    const types = [harbours, ships];
    api = await startApi({ types });
    replica = await startApi({ types, databaseUrl: api.databaseUrl });
    urls = [api.url, replica.url];
  });
  after(async () => {
    await replica.stop();
    await api.stop();
  });

  const url = (i: number) => urls[i % urls.length] ?? '';
  const batch = (at: number, operations: object[], more: object = {}) =>
    call(url(at), 'POST', '/v1/batch', { operations, ...more });

  it('adds up what clients add by GET and PUT with the version, who begin anew at 409, and gives no version twice', async () => {
    const connections = urls.map(one => connect({ url: one }));
    const key = { name: 'counter' };
    await connections[0]?.clusters.create({ ...key, annotations: { count: '0' } });
    const versions: string[] = [];
    let conflicts = 0;
    const increment = async ({ clusters }: Client) => {
      const backoff = new Backoff(50, 1_000);
      for (;;) {
        const cluster = await clusters.read(key);
        const annotations = { count: String(Number(cluster.annotations?.['count']) + 1) };
        try {
          const { resourceVersion } = await clusters.replace({ ...cluster, annotations });
          return versions.push(resourceVersion);
        } catch (error) {
          if (!isPlatformError(error, 'Conflict')) throw error;
          conflicts++;
          await backoff.pause();
        }
      }
    };
    await Promise.all(
      Array.from({ length: clients }, async (_, i) => {
        const client = connections[i % connections.length] ?? expect.fail('no client');
        for (let done = 0; done < increments; done++) await increment(client);
      }),
    );
    for (const one of connections) await one.close();
    const { body } = await api.call('GET', '/v1/clusters/default/counter');
    expect(body.annotations.count).to.equal(String(clients * increments));
    expect(new Set(versions).size).to.equal(clients * increments);
    expect(Math.max(...versions.map(Number))).to.equal(Number(body.resourceVersion));
    expect(conflicts).to.be.greaterThan(0);
  });

  it('gives a unique value to one of 16 clients, and each other is told who has it', async () => {
    const answers = await Promise.all(
      Array.from({ length: 16 }, (_, i) =>
        batch(i, [{ op: 'create', type: 'harbours', name: `same${i}`, object: { code: 'one' } }]),
      ),
    );
    const results = answers.map(({ body }) => body.results[0]);
    const winners = results.filter(({ status }) => status === 201);
    expect(winners).to.have.length(1);
    const losers = results.filter(({ error }) => error?.code === 'NotUnique');
    expect(losers).to.have.length(15);
    for (const { error } of losers) expect(error.message).to.contain(winners[0].object.name);
  });

  it('lets no deadlock out when atomic batches take the same objects in opposite order', async () => {
    const types = ['clusters', 'syncsets', 'secrets'];
    const names = ['a', 'b', 'c', 'd'];
    const operations = names.flatMap(name =>
      types.map(type => ({
        op: 'upsert',
        type,
        name: `overlap-${name}`,
        object: { ...(type === 'syncsets' ? { clusterRefs: [] } : {}), labels: { by: '' } },
      })),
    );
    const write = (by: string) => operations.map(one => ({ ...one, object: { ...one.object, labels: { by } } }));
    expect((await batch(0, operations, { atomic: true })).status).to.equal(200);
    const answers = await Promise.all(
      Array.from({ length: 24 }, (_, i) => {
        const mine = write(`w${i}`);
        return batch(i, i % 3 === 0 ? mine.reverse() : i % 3 === 1 ? mine : [...mine.slice(6), ...mine.slice(0, 6)], {
          atomic: true,
        });
      }),
    );
    expect(answers.map(({ status }) => status)).to.deep.equal(answers.map(() => 200));
    const seen = await Promise.all(
      types.flatMap(type => names.map(name => api.call('GET', `/v1/${type}/default/overlap-${name}`))),
    );
    // Each batch as a whole: all objects are of the one that came last.
    expect(new Set(seen.map(({ body }) => body.labels.by)).size).to.equal(1);
  });

  it('never leaves a referrer behind when what it refers to is deleted at the same moment', async () => {
    const outcomes = new Map<string, number>();
    // How many answers ahead of the other a deletion begins. Whoever wins begins later the next time, so that they keep meeting.
    let lead = 0;
    const after = async (at: number, answers: number) => {
      for (let n = 0; n < answers; n++) await call(url(at), 'GET', '/healthz');
    };
    const race = async (i: number) => {
      const name = `race${i}`;
      const [made] = (await batch(0, [{ op: 'create', type: 'harbours', name, object: {} }])).body.results;
      expect(made.status).to.equal(201);
      const remove = () => batch(i, [{ op: 'delete', type: 'harbours', name }], { atomic: i % 3 === 0 });
      const refer = () => batch(i + 1, [{ op: 'create', type: 'ships', name, object: { home: name } }]);
      const answers = await Promise.all([after(i, -lead).then(remove), after(i + 1, lead).then(refer)]);
      const codes = answers.map(({ body }) => {
        const { status, error } = body.results?.[0] ?? body.error;
        return error?.code ?? body.error?.code ?? String(status);
      });
      lead += codes[0] === '200' ? -1 : 1;
      const outcome = codes.join(' ');
      outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
    };
    for (let i = 0; i < races; i += 10) await Promise.all(Array.from({ length: 10 }, (_, j) => race(i + j)));
    expect([...outcomes.keys()], JSON.stringify([...outcomes])).to.have.members(['200 Invalid', 'Referenced 201']);
    const dangling = await api.database.query({
      text: `select name from syncsets.objects s where type = 'ships' and not exists (
        select from syncsets.objects h where h.type = 'harbours' and h.name = s.object->>'home')`,
    });
    expect(dangling).to.deep.equal([]);
  });
});
