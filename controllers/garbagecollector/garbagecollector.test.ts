import { expect } from 'chai';
import { connect, isPlatformError, type Client, type Resource } from '../../client/index.js';
import { startApi, type TestApi } from '../../test/platform.js';
import { until } from '../../test/until.js';
import { startControllers } from '../start.js';

const absent = '00000000-0000-4000-8000-000000000000';

describe('garbagecollector', function () {
  this.timeout(60_000);
  let api: TestApi;
  let client: Client;
  let controllers: ReturnType<typeof startControllers>;
  let serial = 0;
  const fresh = (prefix = 'o') => `${prefix}${++serial}`;

  before(async () => {
    api = await startApi();
    client = connect({ url: api.url, retrySeconds: 60 });
    controllers = startControllers({ apiUrl: api.url, log: () => undefined });
    await controllers.start();
  });
  after(async () => {
    await controllers.stop();
    await client.close();
    await api.stop();
  });

  type Options = { owners?: Resource[]; block?: boolean; finalizers?: string[]; name?: string };
  const ownersOf = ({ owners = [], block = false }: Options) =>
    owners.map(({ type, namespace, name, uid }) => ({
      type,
      ...(namespace === undefined ? {} : { namespace }),
      name,
      uid,
      blockOwnerDeletion: block,
    }));
  const create = (type: string, options: Options = {}): Promise<Resource> => {
    const { name = fresh(), finalizers = [] } = options;
    const own = type === 'syncsets' ? { clusterRefs: [], allowMissing: true } : {};
    return client.collection(type).create({ name, namespace: 'foo', owners: ownersOf(options), finalizers, ...own });
  };
  const find = async (object: Resource): Promise<Resource | undefined> => {
    try {
      const found = await client.collection(object.type).read(object);
      return found.uid === object.uid ? found : undefined;
    } catch (error) {
      if (isPlatformError(error, 'NotFound')) return undefined;
      throw error;
    }
  };
  const gone = (...objects: Resource[]) =>
    until(async () => (await Promise.all(objects.map(find))).every(found => found === undefined), {
      what: `${objects.map(({ name }) => name).join()} to be gone`,
      deadline: 60_000,
    });
  /** Waits until the collector has nothing to do any more; what is there then stays. */
  const settled = async () => {
    // An object that is certainly collected, and after everything before it.
    await gone(
      await create('clusters', {
        owners: [{ type: 'clusters', namespace: 'foo', name: 'no', uid: absent } as Resource],
      }),
    );
    await until(
      async () => {
        const { queued, claimed } = await client.controllers.read('garbagecollector');
        return queued + claimed === 0;
      },
      { what: 'the collector to rest', deadline: 60_000 },
    );
  };
  const remove = (object: Resource, propagationPolicy?: 'Background' | 'Foreground' | 'Orphan') =>
    client.collection(object.type).remove(object, { propagationPolicy });

  it('is woken by the deletion of what owns something, and of nothing else', async () => {
    await client.controllers.register('counter', { type: '*', on: ['owners'] });
    const [owner, ...lonely] = await Promise.all(Array.from({ length: 20 }, () => create('clusters')));
    if (!owner) expect.fail('no owner');
    const child = await create('secrets', { owners: [owner] });
    await Promise.all(lonely.map(object => remove(object)));
    await remove(owner);
    await gone(child);
    // The child made a key when it came with its owner, and has it still.
    const keys = () => client.controllers.work('counter').then(({ items }) => items.map(({ name }) => name));
    await until(async () => (await keys()).length >= 2, { what: 'the keys' });
    expect(await keys()).to.have.members([owner.name, child.name]);
    await client.controllers.remove('counter');
  });

  it('deletes what a deleted object owned, of other types and over generations', async () => {
    const owner = await create('clusters');
    const child = await create('secrets', { owners: [owner] });
    const grandchild = await create('syncsets', { owners: [child] });
    const stranger = await create('secrets');
    await remove(owner);
    await gone(child, grandchild);
    expect(await find(stranger)).to.have.property('uid', stranger.uid);
  });

  it('keeps an object that has another owner, and takes the one from it that is gone', async () => {
    const [going, staying] = [await create('clusters'), await create('clusters')];
    const child = await create('secrets', { owners: [going, staying] });
    await remove(going);
    await until(async () => (await find(child))?.owners?.length === 1, { what: 'one owner' });
    expect((await find(child))?.owners?.[0]).to.include({ name: staying.name, uid: staying.uid });
    await remove(staying);
    await gone(child);
  });

  it('keeps the owner in foreground deletion until its blocking dependents are gone, and waits for no others', async () => {
    const owner = await create('clusters');
    const blocking = await create('secrets', { owners: [owner], block: true, finalizers: ['example.com/slow'] });
    const other = await create('syncsets', { owners: [owner], finalizers: ['example.com/slow'] });
    const quick = await create('secrets', { owners: [owner], block: true });
    const marked = await remove(owner, 'Foreground');
    expect(marked.finalizers).to.deep.equal(['foreground']);
    await gone(quick);
    await until(async () => (await find(blocking))?.deletedAt && (await find(other))?.deletedAt, {
      what: 'both marked',
    });
    expect(await find(owner)).to.have.property('deletedAt');
    await client.collection('secrets').patch(blocking, { finalizers: [] });
    await gone(owner, blocking);
    expect(await find(other)).to.have.property('deletedAt');
    await client.collection('syncsets').patch(other, { finalizers: [] });
    await gone(other);
  });

  it('waits in foreground deletion for the dependents of dependents', async () => {
    const owner = await create('clusters');
    const child = await create('secrets', { owners: [owner], block: true });
    const grandchild = await create('syncsets', { owners: [child], block: true, finalizers: ['example.com/slow'] });
    await remove(owner, 'Foreground');
    await until(async () => (await find(grandchild))?.deletedAt, { what: 'the grandchild to be marked' });
    expect((await find(child))?.finalizers).to.deep.equal(['foreground']);
    expect(await find(owner)).to.have.property('deletedAt');
    await client.collection('syncsets').patch(grandchild, { finalizers: [] });
    await gone(grandchild, child, owner);
  });

  it('leaves dependents alone that an owner orphans, and they no longer name it', async () => {
    const owner = await create('clusters');
    const children = [
      await create('secrets', { owners: [owner] }),
      await create('syncsets', { owners: [owner], block: true }),
    ];
    await remove(owner, 'Orphan');
    await gone(owner);
    await settled();
    for (const child of children) {
      const found = await find(child);
      expect(found).to.have.property('uid', child.uid);
      expect(found?.owners ?? []).to.deep.equal([]);
    }
  });

  it('follows the last policy that was asked for while the object waits', async () => {
    const owner = await create('clusters', { finalizers: ['example.com/slow'] });
    expect((await remove(owner, 'Foreground')).finalizers).to.deep.equal(['example.com/slow', 'foreground']);
    const turned = await remove(owner, 'Orphan');
    expect(turned.finalizers).to.deep.equal(['example.com/slow', 'orphan']);
    expect(turned.generation).to.equal(2);
    expect((await remove(owner, 'Background')).finalizers).to.deep.equal(['example.com/slow']);
    await client.collection('clusters').patch(owner, { finalizers: [] });
    await gone(owner);
  });

  it('ends cycles: two that own each other, three in a ring, one that owns itself', async () => {
    for (const policy of ['Background', 'Foreground'] as const) {
      for (const length of [1, 2, 3]) {
        const ring: Resource[] = [];
        for (let i = 0; i < length; i++) ring.push(await create('clusters'));
        for (const [i, object] of ring.entries()) {
          const owners = ownersOf({ owners: [ring[(i + 1) % length] ?? object], block: true });
          await client.clusters.patch(object, { owners });
        }
        const [first] = ring;
        if (first) await remove(first, policy);
        await gone(...ring);
      }
    }
  });

  it('deletes what comes after its owner has gone, or names one that never was or has another uid', async () => {
    const owner = await create('clusters');
    await remove(owner);
    const late = await create('secrets', { owners: [owner] });
    const never = await create('secrets', { owners: [{ ...owner, uid: absent, name: 'never' }] });
    const again = await create('clusters', { name: owner.name });
    const stale = await create('secrets', { owners: [owner] });
    const right = await create('secrets', { owners: [again] });
    await gone(late, never, stale);
    await settled();
    expect(await find(right)).to.have.property('uid', right.uid);
  });

  it('collects for an owner that was deleted and made again before anyone looked', async () => {
    const owner = await create('clusters');
    const child = await create('secrets', { owners: [owner] });
    await remove(owner);
    const next = await create('clusters', { name: owner.name });
    await gone(child);
    expect(await find(next)).to.have.property('uid', next.uid);
  });

  it('loses no dependent that is created while its owner is being deleted', async () => {
    const owners = await Promise.all(Array.from({ length: 40 }, () => create('clusters')));
    const children = await Promise.all(
      owners.flatMap(owner => [
        create('secrets', { owners: [owner] }),
        remove(owner).then(() => undefined),
        create('secrets', { owners: [owner] }),
      ]),
    );
    await gone(...children.filter(child => child !== undefined));
  });

  it('takes one call for many dependents', async () => {
    const owner = await create('clusters');
    const children = await Promise.all(Array.from({ length: 1_500 }, () => create('secrets', { owners: [owner] })));
    await settled();
    const before = api.log.filter(({ fields }) => fields['path'] === '/v1/garbage').length;
    await remove(owner, 'Foreground');
    await gone(owner, ...children.slice(0, 20));
    expect((await client.collection('secrets').list({ namespace: 'foo', limit: 1 })).items.length).to.be.at.most(1);
    const own = api.log.filter(({ fields }) => fields['path'] === '/v1/garbage').length - before;
    // Beside the one that deletes them, the deleted ones are looked at for dependents of their own, many in a call.
    expect(own).to.be.lessThan(1_500 / 4);
  });

  it('refuses owners in other namespaces, of no type, and of a namespace for a cluster-wide object', async () => {
    const owner = await create('clusters');
    const reference = { type: 'clusters', namespace: 'foo', name: owner.name, uid: owner.uid };
    const refused: [string, object, string][] = [
      ['secrets', { namespace: 'bar', owners: [reference] }, 'owners[0].namespace'],
      ['secrets', { namespace: 'foo', owners: [{ ...reference, type: 'nothings' }] }, 'owners[0].type'],
      ['selectorsyncsets', { matchAll: true, owners: [reference] }, 'owners[0].type'],
      ['secrets', { namespace: 'foo', owners: [{ ...reference, type: 'selectorsyncsets' }] }, 'owners[0].namespace'],
    ];
    for (const [type, body, path] of refused) {
      const answer = await api.call('POST', `/v1/${type}`, { name: fresh(), ...body });
      expect([answer.status, answer.body.error.details?.[0]?.path], JSON.stringify(answer.body)).to.deep.equal([
        422,
        path,
      ]);
    }
  });
});
