import { expect } from 'chai';
import { models } from '../build/models.js';
import { startApi, type TestApi } from '../test/platform.js';
import type { TypeDefinition } from './type-definition.js';

const text = { dataType: 'string' } as const;
const input = {
  dataType: 'refObject',
  properties: { name: { ...text, required: true }, namespace: text, owners: { dataType: 'any' }, egg: text },
  additionalProperties: false,
} as const;
const plain = { description: '', secrets: [], immutable: [], indexes: [], defaults: {}, uniques: [], references: [] };

/** Types for these tests, as the generator would make them. */
const types: TypeDefinition[] = [
  { ...plain, type: 'twigs', kind: 'Twig', namespaced: true, fields: [], input: 'EggInput', writer: 'builder' },
  { ...plain, type: 'eggs', kind: 'Egg', namespaced: true, fields: [], input: 'EggInput' },
  {
    ...plain,
    type: 'notes',
    kind: 'Note',
    namespaced: true,
    fields: ['egg'],
    input: 'EggInput',
    references: [{ field: 'egg', target: 'eggs', onDelete: 'refuse' }],
  },
];

describe('garbage', () => {
  let api: TestApi;
  let claim = '';
  before(async () => {
    models['EggInput'] = input;
    api = await startApi({ types });
    await create('secrets', { name: 'claimed' });
    await api.call('PUT', '/v1/controllers/builder', { type: 'secrets', claimSeconds: 600 });
    const { body } = await api.call('POST', '/v1/controllers/builder/claims', { worker: 'w', max: 1 });
    claim = body.claims[0].token;
  });
  after(() => api.stop());

  /** These types have no routes of their own. */
  async function write(operation: object): Promise<{ status: number; object: { name: string; uid: string } }> {
    const { body } = await api.call('POST', '/v1/batch', { operations: [operation] });
    return body.results[0];
  }
  async function create(type: string, object: object) {
    const created = await write({ op: 'create', type, object, ...(type === 'twigs' ? { claim } : {}) });
    expect(created.status, JSON.stringify(created)).to.equal(201);
    return created.object;
  }
  const remove = async (type: string, name: string) => (await write({ op: 'delete', type, name })).status;
  const owned = ({ name, uid }: { name: string; uid: string }) => [
    { type: 'secrets', namespace: 'default', name, uid },
  ];
  const collect = async (owners: string[], headers: Record<string, string> = {}) => {
    const objects = owners.map(name => ({ type: 'secrets', name }));
    const answer = await api.call('POST', '/v1/garbage', { objects }, headers);
    expect(answer.status, JSON.stringify(answer.body)).to.equal(200);
    return answer.body;
  };
  const names = async (type: string) => {
    const text = 'select name from syncsets.objects where type = $1 order by name';
    return (await api.database.query<{ name: string }>({ text, values: [type] })).map(({ name }) => name);
  };

  it('deletes and releases objects of a type that only its controller writes', async () => {
    const going = await create('secrets', { name: 'going' });
    const staying = await create('secrets', { name: 'staying' });
    await create('twigs', { name: 'goes', owners: owned(going) });
    await create('twigs', { name: 'stays', owners: [...owned(going), ...owned(staying)] });
    expect(await remove('twigs', 'goes')).to.equal(403);
    await remove('secrets', 'going');
    const many = { 'Idempotency-Key': 'collect-once' };
    expect(await collect(['going'], many)).to.deep.equal({
      deleted: 1,
      released: 1,
      waiting: [false],
      refused: [null],
    });
    expect(await names('twigs')).to.deep.equal(['stays']);
  });

  it('goes on with all others when something refers to one of them, and says what', async () => {
    const owner = await create('secrets', { name: 'one' });
    const other = await create('secrets', { name: 'two' });
    await create('eggs', { name: 'held', owners: owned(owner) });
    await create('eggs', { name: 'free', owners: owned(other) });
    await create('notes', { name: 'holder', egg: 'held' });
    for (const name of ['one', 'two']) expect(await remove('secrets', name)).to.equal(200);
    const { deleted, waiting, refused } = await collect(['one', 'two']);
    expect({ deleted, waiting }).to.deep.equal({ deleted: 1, waiting: [true, false] });
    expect(refused[0]).to.contain('eggs default/held is referred to by');
    await remove('notes', 'holder');
    expect(await collect(['one'])).to.include({ deleted: 1 });
    expect(await names('eggs')).to.deep.equal([]);
  });
});
