import { expect } from 'chai';
import type { TypeDefinition } from '../../api/index.js';
import { models } from '../../build/models.js';
import type { TestApi } from '../platform.js';

const text = { dataType: 'string' } as const;

/**
 * Types that declare everything a type file may, one in namespaces and one cluster-wide, both without status; and the same with
 * a controller that alone may write them, with status. They have no routes of their own: batches reach them.
 */
export const declaring: TypeDefinition[] = [
  declared('berths', true),
  declared('buoys', false),
  { ...declared('cranes', true), writer: 'cranedriver', status: statusModel('cranes') },
  { ...declared('ferries', false), writer: 'ferryman', status: statusModel('ferries') },
];

function statusModel(type: string): string {
  const name = `${type}Status`;
  models[name] = { dataType: 'refObject', properties: { mood: text }, additionalProperties: false };
  return name;
}

function declared(type: string, namespaced: boolean): TypeDefinition {
  const fields = ['code', 'slot', 'row', 'colour', 'mood', 'needs', 'likes', 'within'];
  const input = `${type}Input`;
  models[input] = {
    dataType: 'refObject',
    properties: {
      ...Object.fromEntries([...fields, 'type', 'name', 'resourceVersion', 'uid'].map(field => [field, text])),
      ...(namespaced ? { namespace: text } : {}),
      ...Object.fromEntries(['labels', 'finalizers'].map(field => [field, { dataType: 'any' as const }])),
    },
    additionalProperties: false,
  };
  const reference = (field: string, onDelete: 'refuse' | 'cascade' | 'null') => ({ field, target: type, onDelete });
  return {
    type,
    kind: type,
    namespaced,
    description: '',
    fields,
    input,
    secrets: [],
    indexes: [],
    immutable: ['colour'],
    defaults: { mood: 'calm' },
    uniques: [
      { fields: ['code'], everywhere: true },
      { fields: ['row', 'slot'], everywhere: false },
    ],
    references: [reference('needs', 'refuse'), reference('likes', 'null'), reference('within', 'cascade')],
  };
}

/** What a type file may declare of fields: `@unique`, `@ref`, `@immutable`, `@default`. */
export function declarations({ type, namespaced }: TypeDefinition, server: () => TestApi): void {
  let serial = 0;
  const fresh = (prefix = 'd') => `${prefix}${++serial}`;
  const send = async (operation: object) => {
    const { body } = await server().call('POST', '/v1/batch', { operations: [{ type, ...operation }] });
    return body.results[0] as {
      status: number;
      object: Record<string, unknown>;
      error?: { code: string; message: string; details: { path: string; message: string }[] };
    };
  };
  const create = (name: string, object: object = {}, namespace = 'here') =>
    send({ op: 'create', name, object, ...(namespaced ? { namespace } : {}) });
  const at = (op: string, name: string, more: object = {}) =>
    send({ op, name, ...more, ...(namespaced ? { namespace: 'here' } : {}) });
  /** The object as it is; undefined when it is gone. A patch of nothing tells. */
  const find = async (name: string) => (await at('patch', name, { patch: {} })).object;
  const place = (name: string) => `${type} ${namespaced ? `here/${name}` : name}`;

  it('a @unique value is held by one object: 409 NotUnique names the field and the other object', async () => {
    const [code, name] = [fresh('code'), fresh()];
    expect((await create(name, { code })).status).to.equal(201);
    const other = fresh();
    expect((await create(other)).status).to.equal(201);
    for (const refused of [
      await create(fresh(), { code }, 'elsewhere'),
      await at('patch', other, { patch: { code } }),
    ]) {
      expect([refused.status, refused.error?.code]).to.deep.equal([409, 'NotUnique']);
      expect(refused.error?.details).to.deep.equal([{ path: 'code', message: `${place(name)} has this value` }]);
    }
    expect((await at('patch', name, { patch: { code: null } })).status).to.equal(200);
    expect((await at('patch', other, { patch: { code } })).status).to.equal(200);
  });

  it('@unique over several fields counts them together, within the namespace unless everywhere is said', async () => {
    const [row, slot] = [fresh('row'), fresh('slot')];
    expect((await create(fresh(), { row, slot })).status).to.equal(201);
    expect((await create(fresh(), { row, slot: fresh() })).status).to.equal(201);
    expect((await create(fresh(), { row })).status).to.equal(201);
    expect((await create(fresh(), { row, slot })).error?.details.map(({ path }) => path)).to.have.members([
      'row',
      'slot',
    ]);
    if (namespaced) expect((await create(fresh(), { row, slot }, 'elsewhere')).status).to.equal(201);
  });

  it('what a @ref names must exist: 422 with its path', async () => {
    const missing = await create(fresh(), { needs: 'nobody' });
    expect([missing.status, missing.error?.code]).to.deep.equal([422, 'Invalid']);
    expect(missing.error?.details[0]?.path).to.equal('needs');
    const doomed = fresh();
    await create(doomed, { finalizers: ['x'] });
    await at('delete', doomed);
    expect((await create(fresh(), { needs: doomed })).status, 'of what is being deleted').to.equal(422);
  });

  it('a @ref says what a deletion does: is refused with those who refer, cascades, or takes the value out', async () => {
    const [needed, liked, outer] = [fresh(), fresh(), fresh()];
    const [needing, liking, inner] = [fresh(), fresh(), fresh()];
    for (const name of [needed, liked, outer]) await create(name);
    await create(needing, { needs: needed });
    await create(liking, { likes: liked });
    await create(inner, { within: outer });
    const refused = await at('delete', needed);
    expect([refused.status, refused.error?.code]).to.deep.equal([409, 'Referenced']);
    expect(JSON.stringify(refused.error?.details)).to.contain(place(needing));
    expect((await at('delete', liked)).status).to.equal(200);
    expect(await find(liking))
      .to.include({ generation: 2 })
      .and.not.have.property('likes');
    expect((await at('delete', outer)).status).to.equal(200);
    expect(await find(inner)).to.equal(undefined);
    await at('delete', needing);
    expect((await at('delete', needed)).status).to.equal(200);
  });

  it('an @immutable field is set at creation and never changes', async () => {
    const name = fresh();
    await create(name, { colour: 'red' });
    for (const patch of [{ colour: 'blue' }, { colour: null }]) {
      const refused = await at('patch', name, { patch });
      expect([refused.status, refused.error?.details[0]?.path]).to.deep.equal([422, 'colour']);
    }
    expect((await at('replace', name, { object: {} })).status).to.equal(422);
    expect((await at('replace', name, { object: { colour: 'red', mood: 'wild' } })).status).to.equal(200);
    const without = fresh();
    await create(without);
    expect((await at('patch', without, { patch: { colour: 'red' } })).status, 'set later').to.equal(422);
  });

  it('a @default is stored where the client leaves the field out, at creation and on replace', async () => {
    const name = fresh();
    expect((await create(name)).object).to.include({ mood: 'calm' });
    expect((await at('patch', name, { patch: { mood: 'wild' } })).object).to.include({ mood: 'wild' });
    expect((await at('replace', name, { object: {} })).object).to.include({ mood: 'calm' });
  });
}
