import { expect } from 'chai';
import type { TypeDefinition } from '../../api/index.js';
import type { TestApi } from '../platform.js';

/** What `@writer` declares: the objects of a type, status and all, are one controller's to write. */
export function written({ type, namespaced, writer = '' }: TypeDefinition, server: () => TestApi): void {
  const other = `${writer}-not`;
  const claims = new Map<string, string>();
  before(async () => {
    const { status } = await server().call('POST', '/v1/secrets', { name: `claimed-for-${type}` });
    expect(status).to.equal(201);
    for (const controller of [writer, other]) {
      await server().call('PUT', `/v1/controllers/${controller}`, { type: 'secrets', claimSeconds: 600 });
      const { body } = await server().call('POST', `/v1/controllers/${controller}/claims`, { worker: 'w', max: 1 });
      claims.set(controller, body.claims[0].token as string);
    }
  });
  after(async () => {
    for (const controller of [writer, other]) await server().call('DELETE', `/v1/controllers/${controller}`);
  });

  const operation = (op: string, name: string, more: object) => ({
    op,
    type,
    name,
    ...(namespaced ? { namespace: 'here' } : {}),
    ...more,
  });
  const operations = (name: string) => [
    operation('create', name, { object: {} }),
    operation('upsert', name, { object: { mood: 'loud' } }),
    operation('replace', name, { object: { mood: 'wild' } }),
    operation('patch', name, { patch: { mood: 'calm' } }),
    operation('patch', name, { subresource: 'metadata', patch: { labels: { a: 'b' } } }),
    operation('replace', name, { subresource: 'metadata', object: { labels: { a: 'c' } } }),
    operation('patch', name, { subresource: 'status', patch: { status: { mood: 'glad' } } }),
    operation('replace', name, { subresource: 'status', object: { status: { mood: 'sad' } } }),
    operation('delete', name, {}),
  ];
  const send = async (list: object[], { query = '', ...more }: { query?: string; atomic?: boolean } = {}) => {
    const { body } = await server().call('POST', `/v1/batch${query}`, { operations: list, ...more });
    const { results, error } = body as {
      results?: { status: number; error?: { code: string; message: string } }[];
      error?: { status: number; code: string };
    };
    return (results ?? [{ status: error?.status, error }]).map(one => [one.status, one.error?.code]);
  };
  const stored = (name: string) =>
    server().database.query<{ version: number; object: object }>({
      text: 'select version, object from syncsets.objects where type = $1 and name = $2',
      values: [type, name],
    });

  it('with a claim of the controller every write is done', async () => {
    const claim = claims.get(writer);
    for (const atomic of [false, true]) {
      const list = operations(`done-${atomic}`).map(one => ({ ...one, claim }));
      expect(await send(list, { atomic })).to.deep.equal([201, ...Array<number>(8).fill(200)].map(s => [s, undefined]));
    }
  });

  for (const [whose, controller] of [
    ['without a claim', undefined],
    ["with another controller's claim", other],
  ] as const) {
    it(`${whose} every write is 403 Forbidden, of the status and the metadata too, and changes nothing`, async () => {
      const name = `kept-${controller ?? 'nobody'}`;
      const [create, ...more] = operations(name).map(one => ({
        ...one,
        ...(controller === undefined ? {} : { claim: claims.get(controller) }),
      }));
      const refused = [403, 'Forbidden'];
      expect(await send([create ?? {}])).to.deep.equal([refused]);
      expect(await stored(name)).to.deep.equal([]);
      expect(await send([{ ...create, claim: claims.get(writer) }])).to.deep.equal([[201, undefined]]);
      const before = await stored(name);
      expect(await send(more)).to.deep.equal(more.map(() => refused));
      expect(await send(more, { query: '?dryRun=All' })).to.deep.equal(more.map(() => refused));
      for (const one of more) expect(await send([one], { atomic: true }), one.op).to.deep.equal([refused]);
      expect(await stored(name)).to.deep.equal(before);
    });
  }
}
