import { expect } from 'chai';
import { claimKeys, finishAndClaimKeys, sentKeys, takeUnsent } from '../db/index.js';
import { TestController, type TestClaim } from '../test/controller.js';
import { startApi, type TestApi } from '../test/platform.js';

/** Objects of 1 MB. */
const heavy = 40;
const bound = 32 * 2 ** 20;
const bytes = (claims: { object: unknown }[]) =>
  claims.reduce((sum, { object }) => sum + Buffer.byteLength(JSON.stringify(object)), 0);

describe('claims of large objects', function () {
  this.timeout(60_000);
  let api: TestApi;
  let controller: TestController;
  let serial = 0;
  before(async () => {
    api = await startApi();
    await api.call('POST', '/v1/clusters', { name: 'heavy0', kubeconfig: 'k', context: 'x'.repeat(2 ** 20) });
    await api.database.query({
      text: `insert into syncsets.objects (type, namespace, name, uid, version, labels, object)
        select o.type, o.namespace, 'heavy' || i, gen_random_uuid(), o.version, o.labels,
          o.object || jsonb_build_object('name', 'heavy' || i)
        from syncsets.objects o, generate_series(1, $1::integer - 1) i where o.name = 'heavy0'`,
      values: [heavy],
    });
  });
  beforeEach(async () => {
    controller = new TestController(api, `bytes${++serial}`);
    // All objects are enqueued by it.
    await api.call('PUT', controller.path, { type: 'clusters', claimSeconds: 60 });
  });
  afterEach(() => controller.remove());
  after(() => api.stop());

  it('bring 32 MiB at most and leave the rest queued, until each was claimed once', async () => {
    const names: string[] = [];
    const answers: number[] = [];
    for (let left = heavy; left > 0 && answers.length < heavy;) {
      const claims = await controller.claim({ max: answers.length === 0 ? 1_000 : 32 });
      expect(bytes(claims)).to.be.within(1, bound);
      names.push(...claims.map(({ name }) => name));
      answers.push(claims.length);
      left -= claims.length;
      expect(await controller.view()).to.include({ queued: left, claimed: heavy - left });
    }
    expect(new Set(names).size).to.equal(heavy);
    expect(names).to.have.length(heavy);
    // A large claim looks at few objects first; a small one uses all of the bytes.
    expect(answers[0]).to.be.within(10, 31);
    expect(answers).to.have.length.below(4);
  });

  it('bring one object whatever it weighs', async () => {
    const claims = await Promise.all(
      ['w1', 'w2'].map(worker => controller.claim({ worker, max: 1, keys: [{ name: 'heavy7' }] })),
    );
    expect(claims.flat().map(({ name }) => name)).to.deep.equal(['heavy7']);
    // Heavier than an answer.
    await api.database.query({
      text: `update syncsets.objects set object = object || jsonb_build_object('context', repeat('x', 34 * 1024 * 1024))
        where type = 'clusters' and name = 'heavy39'`,
    });
    const keys = [{ name: 'heavy39' }, { name: 'heavy8' }];
    expect((await controller.claim({ keys })).map(({ name }) => name)).to.have.length(1);
    expect((await controller.claim({ keys })).map(({ name }) => name)).to.have.length(1);
    await api.database.query({
      text: `update syncsets.objects set object = object || '{"context": "light"}' where type = 'clusters' and name = 'heavy39'`,
    });
  });

  it('tell other waiting workers of what they left', async () => {
    await controller.done(await controller.claim({ max: 32 }));
    await controller.done(await controller.claim({ max: 32 }));
    const waiting = ['a', 'b'].map(worker => controller.claim({ worker, max: 1_000, waitSeconds: 10 }));
    await controller.enqueue({ type: 'clusters', all: true });
    const got = await Promise.all(waiting);
    expect(got.map(claims => claims.length > 0)).to.deep.equal([true, true]);
    const names = got.flat().map(({ name }) => name);
    expect(new Set(names).size).to.equal(names.length);
  });

  it('on RabbitMQ send again what their messages named and they left, and nothing else', async () => {
    const { database } = api;
    const claim = { controller: controller.name, worker: 'w', max: heavy, seconds: 60 };
    const room = { controller: controller.name, keys: heavy };
    const sent = await takeUnsent(database, [room]);
    expect(sent).to.have.length(heavy);
    // The worker took half of them off the queue; messages of the others are still there.
    const taken = sent.slice(0, heavy / 2);
    const first = await claimKeys(database, { ...claim, messages: taken });
    expect(first.more).to.equal(true);
    const claimed = new Set(first.keys.map(({ name }) => name));
    const again = async () => (await takeUnsent(database, [room])).map(({ name }) => name).sort();
    const lost = (keys: { name: string }[]) => keys.flatMap(({ name }) => (claimed.has(name) ? [] : [name])).sort();
    expect(await again()).to.deep.equal(lost(taken));
    const out = (await sentKeys(database)).find(one => one.controller === controller.name)?.out;
    expect(out).to.equal(heavy - claimed.size);
    // The same with results.
    const results = first.keys.map(key => ({ ...key, result: 'released' as const }));
    const next = await finishAndClaimKeys(database, results, { ...claim, messages: sent });
    expect(next.results.every(({ held }) => held)).to.equal(true);
    expect(next.claimed.more).to.equal(true);
    claimed.clear();
    for (const { name } of next.claimed.keys) claimed.add(name);
    expect(await again()).to.deep.equal(lost(sent));
  });

  it('of watched objects bring as many events as have 32 MiB with the states before and after, in order', async () => {
    const mapper = new TestController(api, `mapper${serial}`);
    await mapper.register({ type: 'syncsets', watches: ['clusters'], claimSeconds: 60 });
    for (let i = 0; i < 18; i++) {
      const { status } = await api.call('PATCH', '/v1/clusters/default/heavy0', { labels: { at: String(i) } });
      expect(status).to.equal(200);
    }
    const seen: string[] = [];
    for (let maps = 0; seen.length < 18; maps++) {
      expect(maps).to.be.below(4);
      const [map] = (await mapper.claim({ waitSeconds: 5 })) as (TestClaim & {
        events: { before: unknown; object: { labels: { at: string } } }[];
      })[];
      expect(map?.kind).to.equal('map');
      const states = map!.events.flatMap(({ before, object }) => [{ object: before }, { object }]);
      expect(bytes(states)).to.be.below(bound);
      seen.push(...map!.events.map(({ object }) => object.labels.at));
      await mapper.done([map!]);
    }
    expect(seen).to.deep.equal(Array.from({ length: 18 }, (_, i) => String(i)));
    await mapper.remove();
  });
});
