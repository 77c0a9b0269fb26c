import { expect } from 'chai';
import { startApi, type TestApi } from '../test/platform.js';
import { connect, type Client } from './connect.js';
import { isPlatformError } from './errors.js';
import { FullCollection } from './subresources.js';
import { watch } from './watch.js';

describe('collections', () => {
  let api: TestApi;
  let client: Client;

  before(async () => {
    api = await startApi({ token: 'sesame' });
    client = connect({ url: api.url, token: 'sesame' });
  });

  after(async () => {
    await client.close();
    await api.stop();
  });

  const codeOf = async (promise: Promise<unknown>): Promise<string | undefined> =>
    promise.then(
      () => undefined,
      (error: unknown) => (isPlatformError(error) ? error.code : String(error)),
    );

  it('creates, reads, changes, replaces and deletes objects of a type', async () => {
    const created = await client.clusters.create({ name: 'c1', namespace: 'foo', labels: { env: 'test' } });
    expect(created).to.include({ type: 'clusters', name: 'c1', namespace: 'foo', generation: 1 });
    expect(await codeOf(client.clusters.create({ name: 'c1', namespace: 'foo' }))).to.equal('AlreadyExists');
    expect(await client.clusters.read(created)).to.deep.equal(created);

    const patched = await client.clusters.patch(created, { labels: { env: null, tier: 'web' }, verifySeconds: 60 });
    expect(patched).to.deep.include({ labels: { tier: 'web' }, verifySeconds: 60 });
    const stale = { ...created, verifySeconds: 61 };
    expect(await codeOf(client.clusters.replace(stale))).to.equal('Conflict');
    const replaced = await client.clusters.replace({ ...patched, verifySeconds: 61 });
    expect(replaced.verifySeconds).to.equal(61);

    expect(await codeOf(client.clusters.remove(created, { uid: '00000000-0000-4000-8000-000000000000' }))).to.equal(
      'Conflict',
    );
    const removed = await client.clusters.remove(created, { uid: created.uid });
    expect(removed.uid).to.equal(created.uid);
    expect(await codeOf(client.clusters.read(created))).to.equal('NotFound');
  });

  it('changes an object by a JSON patch, in the part and the state that it is meant for', async () => {
    const cluster = await client.clusters.create({ name: 'jp', namespace: 'foo', labels: { env: 'stage' } });
    const changed = await client.clusters.jsonPatch(cluster, [
      { op: 'test', path: '/labels/env', value: 'stage' },
      { op: 'move', from: '/labels/env', path: '/labels/was' },
    ]);
    expect(changed.labels).to.deep.equal({ was: 'stage' });
    const seconds = { op: 'add', path: '/verifySeconds', value: 60 } as const;
    const stale = { resourceVersion: cluster.resourceVersion };
    expect(await codeOf(client.clusters.jsonPatch(cluster, [seconds], stale))).to.equal('Conflict');
    expect(await codeOf(client.clusters.jsonPatch(cluster, [seconds], { uid: 'another' }))).to.equal('Conflict');
    const missing = [{ op: 'remove', path: '/labels/none' }] as const;
    expect(await codeOf(client.clusters.jsonPatch(cluster, [...missing]))).to.equal('Invalid');
    const status = [{ op: 'add', path: '/status', value: { nodeCount: 3 } }, seconds] as const;
    const written = await client.clusters.jsonPatch(cluster, [...status], { subresource: 'status', uid: cluster.uid });
    expect(written.status).to.deep.equal({ nodeCount: 3 });
    expect(written).not.to.have.property('verifySeconds');
    const untyped = client.collection('clusters');
    const labelled = await untyped.jsonPatch(cluster, [{ op: 'add', path: '/labels/a', value: 'b' }], {
      subresource: 'metadata',
    });
    expect(labelled.labels).to.deep.equal({ was: 'stage', a: 'b' });
    await client.selectorsyncsets.create({ name: 'jp', matchAll: true });
    const wide = await client.selectorsyncsets.jsonPatch({ name: 'jp' }, [seconds]);
    expect(wide.verifySeconds).to.equal(60);
  });

  it('writes metadata alone', async () => {
    const cluster = await client.clusters.create({
      name: 'md',
      namespace: 'foo',
      labels: { a: '1' },
      verifySeconds: 60,
    });
    const patched = await client.clusters.patchMetadata(cluster, { labels: { b: '2' } }, { uid: cluster.uid });
    expect(patched).to.deep.include({ labels: { a: '1', b: '2' }, generation: 1 });
    const replaced = await client.clusters.replaceMetadata(cluster, { annotations: { n: 'x' } });
    expect(replaced)
      .to.deep.include({ annotations: { n: 'x' }, verifySeconds: 60 })
      .and.not.to.have.property('labels');
    const stale = { resourceVersion: cluster.resourceVersion };
    expect(await codeOf(client.clusters.replaceMetadata(cluster, {}, stale))).to.equal('Conflict');
  });

  it('answers a dry run as the write would be and stores nothing', async () => {
    const dryRun = true;
    const planned = await client.clusters.create({ generateName: 'dry-', kubeconfig: 'k' }, { dryRun });
    expect(planned.name).to.match(/^dry-.{5}$/);
    expect(planned).to.include({ resourceVersion: '0', kubeconfig: '••••••' });
    expect(await codeOf(client.clusters.read(planned))).to.equal('NotFound');
    const cluster = await client.clusters.create({ generateName: 'dry-' });
    const dry = client.with({ dryRun }).clusters;
    expect((await dry.patch(cluster, { verifySeconds: 60 })).verifySeconds).to.equal(60);
    expect((await dry.remove(cluster)).uid).to.equal(cluster.uid);
    expect((await dry.replaceStatus(cluster, { status: { nodeCount: 3 } })).status).to.deep.equal({ nodeCount: 3 });
    expect(await codeOf(dry.patch(cluster, { verifySeconds: 1 }))).to.equal('Invalid');
    expect(await dry.read(cluster)).to.deep.equal(cluster);
  });

  it('takes the namespace default when none is given, and none for cluster-wide types', async () => {
    await client.clusters.create({ name: 'plain' });
    expect((await client.clusters.read({ name: 'plain' })).namespace).to.equal('default');
    const set = await client.selectorsyncsets.create({ name: 'all', matchAll: true, resources: [] });
    expect((await client.selectorsyncsets.read({ name: 'all' })).uid).to.equal(set.uid);
    expect((await client.collection('selectorsyncsets').read({ name: 'all' })).uid).to.equal(set.uid);
    expect((await client.collection('clusters').read({ namespace: 'default', name: 'plain' })).name).to.equal('plain');
  });

  it('lists parts of objects, in the order of an indexed field', async () => {
    for (const [name, secretType] of Object.entries({ a: 'y', b: 'x', c: 'z' }))
      await client.secrets.create({ name, namespace: 'parts', secretType, labels: { part: 'yes' } });
    const query = { namespace: 'parts', orderBy: 'secretType desc', fields: 'secretType' };
    const { items } = await client.secrets.list(query);
    expect(items.map(({ name, secretType }) => [name, secretType])).to.deep.equal([
      ['c', 'z'],
      ['a', 'y'],
      ['b', 'x'],
    ]);
    expect(items[0]).to.have.all.keys('name', 'namespace', 'resourceVersion', 'secretType');
    const names: string[] = [];
    for await (const { name } of client.secrets.all({ ...query, limit: 2 })) names.push(name);
    expect(names).to.deep.equal(['c', 'a', 'b']);
  });

  it('is told of a state that is forgotten, and how to go on without it', async () => {
    for (const name of ['a', 'b', 'c'])
      await client.syncsets.create({ name, namespace: 'gone', clusterRefs: [], resources: [] });
    const first = await client.syncsets.list({ namespace: 'gone', limit: 1 });
    await client.syncsets.create({ name: 'd', namespace: 'gone', clusterRefs: [], resources: [] });
    await api.database.query({ text: `update syncsets.types set log_start = version where type = 'syncsets'` });
    const error: unknown = await client.syncsets
      .list({ namespace: 'gone', continue: first.continue })
      .catch((reason: unknown) => reason);
    if (!isPlatformError(error, 'Expired') || error.continue === undefined) throw error;
    const { items } = await client.syncsets.list({ namespace: 'gone', continue: error.continue });
    expect(items.map(({ name }) => name)).to.deep.equal(['b', 'c', 'd']);
  });

  it('lists by labels, page by page and through all pages', async () => {
    for (let i = 0; i < 5; i++) {
      await client.clusters.create({ name: `p${i}`, namespace: 'pages', labels: { even: String(i % 2 === 0) } });
    }
    const page = await client.clusters.list({ namespace: 'pages', limit: 2 });
    expect(page.items.map(({ name }) => name)).to.deep.equal(['p0', 'p1']);
    const next = await client.clusters.list({ namespace: 'pages', limit: 2, continue: page.continue });
    expect(next.items.map(({ name }) => name)).to.deep.equal(['p2', 'p3']);
    expect(next.resourceVersion).to.equal(page.resourceVersion);
    const names: string[] = [];
    for await (const { name } of client.clusters.all({ namespace: 'pages', labelSelector: 'even=true', limit: 2 })) {
      names.push(name);
    }
    expect(names).to.deep.equal(['p0', 'p2', 'p4']);
  });

  it('writes status apart from the object, and only of the object that is meant', async () => {
    const cluster = await client.clusters.create({ name: 'status', namespace: 'foo' });
    await client.clusters.patchStatus(cluster, { serverVersion: 'v1.34.4', nodeCount: 3 }, { uid: cluster.uid });
    const again = await client.clusters.patchStatus(cluster, { nodeCount: null });
    expect(again.status).to.deep.equal({ serverVersion: 'v1.34.4' });
    expect(again.generation).to.equal(1);
    const replaced = await client.clusters.replaceStatus(cluster, { status: { nodeCount: 4 } });
    expect((await client.clusters.readStatus(cluster)).status).to.deep.equal(replaced.status);
    const other = { uid: '00000000-0000-4000-8000-000000000000' };
    expect(await codeOf(client.clusters.patchStatus(cluster, { nodeCount: 5 }, other))).to.equal('Conflict');
  });

  it('records notices and shows them', async () => {
    const cluster = await client.clusters.create({ name: 'noticed', namespace: 'foo' });
    await client.clusters.recordNotice(cluster, 'Greeted', 'Hello');
    await client.clusters.recordNotice(cluster, 'Greeted', 'Hello');
    const [notice, ...rest] = await client.clusters.notices(cluster);
    expect(notice).to.include({ reason: 'Greeted', message: 'Hello', count: 2 });
    expect(rest).to.deep.equal([]);
  });

  it('says every violation with its path, and what is not allowed', async () => {
    const error: unknown = await client.clusters
      .create({ name: 'Bad Name', namespace: 'foo', verifySeconds: 1 })
      .catch((thrown: unknown) => thrown);
    expect(isPlatformError(error, 'Invalid')).to.equal(true);
    expect(isPlatformError(error) && error.details.map(({ path }) => path).sort()).to.deep.equal([
      'name',
      'verifySeconds',
    ]);
    const stranger = connect({ url: api.url });
    expect(await codeOf(stranger.clusters.list())).to.equal('Unauthorized');
    await stranger.close();
  });

  it('fences writes by a claim, and reveals secrets to the holder of one', async () => {
    await client.clusters.create({ name: 'claimed', namespace: 'claims', kubeconfig: 'sesame' });
    await client.controllers.register('revealer', { type: 'clusters', reveal: ['clusters'] });
    const claims = await client.controllers.claim('revealer', { worker: 'w1', max: 1000, waitSeconds: 5 });
    const claim = claims.find(one => one.kind === 'key' && one.name === 'claimed');
    if (claim?.kind !== 'key') throw new Error('the key was not claimed');
    const key = { namespace: 'claims', name: 'claimed' };
    const fenced = client.clusters.withClaim(claim.token);
    expect((await fenced.reveal(key)).fields).to.deep.equal({ kubeconfig: 'sesame' });
    expect(claim.object).to.have.property('kubeconfig').that.does.not.include('sesame');
    expect(
      (await client.with({ claim: claim.token }).clusters.patch(key, { labels: { a: 'b' } })).labels,
    ).to.deep.equal({ a: 'b' });
    const { lost } = await client.controllers.renew('revealer', { worker: 'w1', tokens: [claim.token, 'made-up'] });
    expect(lost).to.deep.equal(['made-up']);

    const [answer] = await client.controllers.done('revealer', [{ token: claim.token, result: 'done' }]);
    expect(answer?.state).to.equal('ok');
    expect(await codeOf(fenced.patch(key, { labels: { late: 'true' } }))).to.equal('Fenced');
    expect((await client.controllers.done('revealer', [{ token: claim.token, result: 'done' }]))[0]?.state).to.equal(
      'fenced',
    );
    expect(await codeOf(fenced.reveal(key))).not.to.equal(undefined);
  });

  it('queues, shows and forgets the work of a controller', async () => {
    await client.controllers.register('manual', { type: 'clusters' });
    expect(await client.controllers.enqueue('manual', { type: 'clusters', labelSelector: 'even=true' })).to.equal(3);
    expect(
      await client.controllers.enqueue('manual', { keys: [{ namespace: 'foo', name: 'none' }], afterSeconds: 60 }),
    ).to.equal(1);
    const waiting = await client.controllers.work('manual', { state: 'waiting' });
    expect(waiting.items.map(({ name }) => name)).to.deep.equal(['none']);
    expect((await client.controllers.read('manual')).waiting).to.equal(1);
    expect((await client.controllers.list()).map(({ name }) => name)).to.include('manual');
    await client.controllers.remove('manual');
    expect(await codeOf(client.controllers.read('manual'))).to.equal('NotFound');
  });

  it('watches a type with a selector: what begins and ceases to match', async () => {
    const told: string[] = [];
    const stop = new AbortController();
    const options = { namespace: 'watched', labelSelector: 'on=true', signal: stop.signal };
    const watching = (async () => {
      for await (const { type, object } of watch(client.clusters, options)) {
        told.push(`${type} ${object.name}`);
        if (told.length === 4) stop.abort();
      }
    })();
    const key = { namespace: 'watched', name: 'w1' };
    await client.clusters.create({ ...key, labels: { on: 'true' } });
    await client.clusters.create({ namespace: 'watched', name: 'w2' });
    await client.clusters.patch(key, { verifySeconds: 60 });
    await client.clusters.patch(key, { labels: { on: 'false' } });
    await client.clusters.patch({ namespace: 'watched', name: 'w2' }, { labels: { on: 'true' } });
    await watching;
    expect(told).to.deep.equal(['ADDED w1', 'MODIFIED w1', 'DELETED w1', 'ADDED w2']);
  });
});

describe('a collection of a type without status and secrets', () => {
  it('rejects what the type has not, and throws nothing at whoever only makes the call', async () => {
    const client = connect();
    const { syncsets } = client;
    if (!(syncsets instanceof FullCollection)) throw new Error('it has not all methods');
    const key = { name: 'a' };
    const errors: unknown[] = [
      syncsets.jsonPatch(key, [], { subresource: 'status' }),
      syncsets.readStatus(key),
      syncsets.replaceStatus(key, {}),
      syncsets.patchStatus(key, {}),
      syncsets.reveal(key),
    ].map(call => call.catch((thrown: unknown) => thrown));
    for (const error of await Promise.all(errors)) expect(error).to.be.instanceOf(TypeError);
    await client.close();
  });
});

/** Never called: the compiler checks what the types accept and what they do not. */
export function typed(client: Client): unknown[] {
  return [
    client.clusters.patch({ name: 'a' }, { labels: { gone: null }, paused: { reason: 'why', until: null } }),
    // @ts-expect-error there is no such field
    client.clusters.create({ name: 'a', nonsense: 1 }),
    // @ts-expect-error it is a number
    client.clusters.patch({ name: 'a' }, { verifySeconds: '60' }),
    // @ts-expect-error it has no secret fields
    client.selectorsyncsets.reveal({ name: 'a' }),
    // @ts-expect-error it has no status
    client.syncsets.patchStatus({ name: 'a' }, {}),
    // @ts-expect-error there is no such type
    client.nonsense,
  ];
}
