import { expect } from 'chai';
import { TestController, type TestClaim } from '../test/controller.js';
import { startApi, type TestApi } from '../test/platform.js';
import { until } from '../test/until.js';

describe('the order of claims', () => {
  let api: TestApi;
  let controller: TestController;
  let serial = 0;
  before(async () => {
    api = await startApi();
  });
  beforeEach(async () => {
    controller = new TestController(api, `fair${++serial}`);
    await controller.register();
  });
  afterEach(() => controller.remove());
  after(() => api.stop());

  const keys = (namespace: string, count: number) =>
    Array.from({ length: count }, (_, i) => ({ namespace, name: `k${i}` }));
  const namespaces = (claims: TestClaim[]) => claims.map(({ namespace }) => namespace);
  /** The whole order in which the keys are claimed. */
  async function order(): Promise<string[]> {
    const all: TestClaim[] = [];
    for (;;) {
      const claims = await controller.claim({ max: 7 });
      if (claims.length === 0) return namespaces(all);
      all.push(...claims);
    }
  }
  /** Queues 100,000 keys of a namespace in one statement, as the relay does, which is in no hurry over HTTP. */
  const crowd = (priority: number) =>
    api.database.query({
      text: `select syncsets.enqueue(array(select row($1, 'clusters', 'crowd', 'k' || n, null, null, $2::integer, 'resync')::syncsets.key
        from generate_series(1, 100000) n))`,
      values: [controller.name, priority],
    });

  it('lets no namespace of 100,000 keys delay an edit in another one: it is among the next three', async function () {
    this.timeout(60_000);
    await crowd(10);
    expect(namespaces(await controller.claim({ max: 3 }))).to.deep.equal(['crowd', 'crowd', 'crowd']);
    await api.call('POST', '/v1/clusters', { name: 'edited', namespace: 'quiet' });
    await until(
      async () => {
        const [row] = await api.database.query<{ n: number }>({
          text: `select count(*)::integer as n from syncsets.work where controller = $1 and namespace = 'quiet'`,
          values: [controller.name],
        });
        return row?.n === 1;
      },
      { what: 'the edit to be queued' },
    );
    // Behind the key that is next, and perhaps the one beside it.
    expect(namespaces(await controller.claim({ max: 3 }))).to.include('quiet');
    // What the crowd does again stands behind itself, not before the others.
    const [again] = await controller.claim({ max: 1 });
    await controller.enqueue({ keys: [{ namespace: 'later', name: 'one' }], priority: 10 });
    await controller.done([again!], { result: 'released' });
    expect(namespaces(await controller.claim({ max: 3 }))).to.include('later');
  });

  it('serves namespaces in turn and the oldest key first within each', async () => {
    for (const name of ['a', 'b', 'c']) await controller.enqueue({ keys: keys(name, 20) });
    const served = await order();
    expect(served).to.have.length(60);
    for (let end = 1; end <= 57; end++) {
      const counts = ['a', 'b', 'c'].map(name => served.slice(0, end).filter(one => one === name).length);
      expect(Math.max(...counts) - Math.min(...counts), served.slice(0, end).join('')).to.be.at.most(2);
    }
  });

  it('serves what is due together in turn too, however many keys of one namespace that are', async () => {
    await controller.enqueue({ keys: keys('crowd', 300), afterSeconds: 1 });
    await controller.enqueue({ keys: keys('quiet', 3), afterSeconds: 1 });
    await controller.queued(303);
    const served = await order();
    expect(served.slice(0, 12).filter(one => one === 'quiet')).to.have.length(3);
  });

  it('serves what changed while it was claimed in turn too', async () => {
    await controller.enqueue({ keys: keys('crowd', 100) });
    const claims = await controller.claim({ max: 100 });
    await controller.enqueue({ keys: keys('crowd', 100) });
    await controller.enqueue({ keys: keys('quiet', 3) });
    await controller.done(claims);
    expect((await order()).slice(0, 12).filter(one => one === 'quiet')).to.have.length(3);
  });

  it('puts a more urgent key before any number of others, and moves one up that becomes urgent', async () => {
    await controller.enqueue({ keys: keys('crowd', 500), priority: -10 });
    await controller.enqueue({ keys: [{ namespace: 'crowd', name: 'k400' }], priority: 10 });
    expect((await controller.claim({ max: 1 }))[0]?.name).to.equal('k400');
  });

  it('gives for messages the most urgent keys, and sends again what they named', async () => {
    await controller.enqueue({ keys: keys('crowd', 10), priority: -10 });
    const sent = (state: string) =>
      api.database.query({
        text: `select name from syncsets.work where controller = $1 and state = 'queued' and sent_at is ${state}`,
        values: [controller.name],
      });
    await api.database.query({
      text: `update syncsets.work set sent_at = clock_timestamp() where controller = $1`,
      values: [controller.name],
    });
    await controller.enqueue({ keys: keys('urgent', 2), priority: 10 });
    const messages = ['k3', 'k4', 'k5'].map(name => ({ namespace: 'crowd', name }));
    const claims = await controller.claim({ max: 3, messages });
    expect(namespaces(claims)).to.deep.equal(['urgent', 'urgent', 'crowd']);
    // k3 to k5 lost their messages; the one of the claimed key is still out and will be a spare one.
    expect((await sent('null')).map(({ name }) => name).sort()).to.deep.equal(['k3', 'k4', 'k5']);
    expect(await sent('not null')).to.have.length(6);
  });

  it('hands out the events of watched types in turn', async () => {
    await controller.register({ watches: ['secrets', 'syncsets'], revision: 2 });
    await api.call('POST', '/v1/secrets', { name: `s${serial}` });
    await api.call('POST', '/v1/syncsets', { name: `s${serial}`, clusterRefs: ['a'], allowMissing: true });
    const types: string[] = [];
    await until(
      async () => {
        const maps = (await controller.claim({ waitSeconds: 1 })).filter(({ kind }) => kind === 'map');
        types.push(...maps.map(({ type }) => type));
        // Tried again at once, so that the first one would be first for ever.
        await controller.done(maps, { result: 'released' });
        return types.length >= 4;
      },
      { what: 'four maps' },
    );
    expect(new Set(types.slice(0, 2)).size).to.equal(2);
    expect(new Set(types.slice(2, 4)).size).to.equal(2);
  });
});
