import { expect } from 'chai';
import { connect, type Client } from '../client/index.js';
import { startApi, type TestApi } from '../test/platform.js';

describe('deleting a collection', () => {
  let api: TestApi;
  let client: Client;
  before(async () => {
    api = await startApi();
    client = connect({ url: api.url, retrySeconds: 60 });
  });
  after(async () => {
    await client.close();
    await api.stop();
  });

  const remove = (query: string) => api.call('DELETE', `/v1/secrets${query}`);
  const names = async (query = '') =>
    ((await api.call('GET', `/v1/secrets${query}`)).body.items as { name: string }[]).map(({ name }) => name);

  it('deletes what matches all that is given, of one namespace or all, and says how many that were', async () => {
    for (const namespace of ['one', 'two'])
      for (const tier of ['gold', 'iron'])
        for (const n of [1, 2]) await client.secrets.create({ name: `${tier}${n}`, namespace, labels: { tier } });
    expect((await remove('?labelSelector=tier=gold&namespace=one')).body).to.deep.equal({ count: 2 });
    expect(await client.secrets.removeAll({ labelSelector: 'tier=iron', fieldSelector: 'name=iron2' })).to.equal(2);
    expect(await names()).to.deep.equal(['iron1', 'gold1', 'gold2', 'iron1']);
    expect(await client.secrets.removeAll({ labelSelector: 'tier=lead' })).to.equal(0);
    expect(await client.secrets.removeAll({ all: true, namespace: 'two' })).to.equal(3);
    expect(await client.secrets.removeAll({ all: true })).to.equal(1);
    expect(await names()).to.deep.equal([]);
  });

  it('wants to be told what to delete, so that an empty variable does not delete everything', async () => {
    await client.secrets.create({ name: 'precious' });
    for (const query of ['', '?labelSelector=', '?fieldSelector=', '?ownerUid=', '?namespace=default', '?all=false']) {
      const { status, body } = await remove(query);
      expect([status, body.error?.code], query).to.deep.equal([400, 'InvalidQuery']);
    }
    for (const query of [
      '?all=true&labelSelector=a',
      '?labelSelector=((',
      '?propagationPolicy=Sideways&all=true',
      '?x=1',
    ])
      expect((await remove(query)).status, query).to.equal(400);
    expect(await names()).to.deep.equal(['precious']);
    expect(await client.with({ dryRun: true }).secrets.removeAll({ all: true })).to.equal(1);
    expect(await names()).to.deep.equal(['precious']);
    expect(await client.secrets.removeAll({ all: true })).to.equal(1);
  });

  it('marks objects that have finalizers, and counts a mark once', async () => {
    await client.secrets.create({ name: 'held', finalizers: ['example.com/slow'] });
    await client.secrets.create({ name: 'free' });
    expect(await client.secrets.removeAll({ all: true })).to.equal(2);
    expect(await client.secrets.removeAll({ all: true })).to.equal(0);
    const held = await client.secrets.read({ name: 'held' });
    expect(held.deletedAt).to.be.a('string');
    expect(held.generation).to.equal(2);
    expect(await client.secrets.removeAll({ all: true, propagationPolicy: 'Orphan' })).to.equal(1);
    expect((await client.secrets.read({ name: 'held' })).finalizers).to.deep.equal(['example.com/slow', 'orphan']);
    await client.secrets.patch({ name: 'held' }, { finalizers: [] });
  });

  it('finds the dependents of an owner by its uid, through an index', async () => {
    const owner = await client.clusters.create({ name: 'owner' });
    const reference = { type: 'clusters', name: 'owner', uid: owner.uid };
    const other = { type: 'clusters', name: owner.uid, uid: 'another' };
    for (const n of [1, 2, 3]) await client.secrets.create({ name: `d${n}`, owners: [reference] });
    // Named as the owner's uid: the index finds it, the condition does not.
    await client.secrets.create({ name: 'stranger', owners: [other] });
    expect(await client.secrets.removeAll({ ownerUid: owner.uid, fieldSelector: 'name=d1' })).to.equal(1);
    expect(await client.secrets.removeAll({ ownerUid: owner.uid })).to.equal(2);
    expect(await names()).to.deep.equal(['stranger']);
    await client.secrets.removeAll({ all: true });

    await api.database.query({
      text: `insert into syncsets.objects (type, namespace, name, uid, version, labels, object, owner_keys)
        select o.*, case when o.object ? 'owners' then syncsets.owner_keys(o.object) end from (
        select 'secrets', 'many', 'm' || n, id, 1, '{}'::jsonb, jsonb_build_object('type', 'secrets', 'name', 'm' || n,
            'namespace', 'many', 'uid', id, 'resourceVersion', '1', 'generation', 1)
          || case when n % 10 = 0 then jsonb_build_object('owners', jsonb_build_array(jsonb_build_object('type', 'clusters',
            'name', 'c' || n / 1000, 'uid', 'uid' || n / 1000))) else '{}' end
        from (select n, gen_random_uuid() as id from generate_series(1, 50000) n) made
        ) o(type, namespace, name, uid, version, labels, object)`,
    });
    await api.database.query({ text: 'analyze syncsets.objects' });
    const plan = await api.database.query({
      text: `explain select o.name from syncsets.objects o where o.type = 'secrets' and o.owner_keys ?| array['uid7', 'c9']`,
    });
    expect(JSON.stringify(plan)).to.include('Bitmap Index Scan').and.not.include('Seq Scan');
    expect(await client.secrets.removeAll({ ownerUid: 'uid7' })).to.equal(100);
    await api.database.query({ text: `delete from syncsets.objects where type = 'secrets'` });
  });

  it('reaches all of many objects, some of which change meanwhile', async () => {
    const created = Array.from({ length: 1_200 }, (_, i) =>
      client.secrets.create({ name: `n${i}`, labels: { set: 'many' }, annotations: { filling: 'x'.repeat(1_000) } }),
    );
    await Promise.all(created);
    const [count] = await Promise.all([
      client.secrets.removeAll({ labelSelector: 'set=many' }),
      ...Array.from({ length: 50 }, (_, i) =>
        client.secrets.patch({ name: `n${1_199 - i}` }, { annotations: { changed: 'yes' } }).catch(() => undefined),
      ),
    ]);
    expect(count).to.equal(1_200);
    expect(await names()).to.deep.equal([]);
  });
});
