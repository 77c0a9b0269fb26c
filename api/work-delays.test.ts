import { expect } from 'chai';
import { TestController, type TestClaim } from '../test/controller.js';
import { startApi, type TestApi } from '../test/platform.js';

interface Item {
  name: string;
  state: string;
  reason: string;
  priority: number;
  notBefore: string | null;
}

describe('keys that are enqueued for later', () => {
  let api: TestApi;
  let controller: TestController;
  let serial = 0;
  const keys = [{ name: 'one' }];
  before(async () => {
    api = await startApi();
  });
  beforeEach(async () => {
    controller = new TestController(api, `later${++serial}`);
    await controller.register();
  });
  afterEach(() => controller.remove());
  after(() => api.stop());

  async function claimed(): Promise<TestClaim> {
    await controller.enqueue({ keys });
    const [claim] = await controller.claim();
    return claim!;
  }
  const shown = async () => (await api.call('GET', `${controller.path}/work`)).body.items[0] as Item | undefined;
  /** Seconds until a key is due. */
  const due = (item: Item | undefined) => (Date.parse(item?.notBefore ?? '') - Date.now()) / 1_000;

  it('while they are claimed wait until then after their run', async () => {
    const claim = await claimed();
    await controller.enqueue({ keys, afterSeconds: 3_600, priority: 3 });
    expect(await shown()).to.include({ state: 'claimed' });
    expect(due(await shown())).to.be.within(3_500, 3_600);
    expect(await controller.done([claim])).to.deep.equal(['ok']);
    expect(await shown()).to.include({ state: 'waiting', reason: 'enqueued', priority: 3 });
    expect(due(await shown())).to.be.within(3_500, 3_600);
    expect(await controller.claim()).to.deep.equal([]);
  });

  it('and by their result come at the earlier time, of several the earliest', async () => {
    for (const [delays, requeueAfterSeconds, expected, reason] of [
      [[3_600], 600, 600, 'requeueAfter'],
      [[3_600, 100, 200], 600, 100, 'enqueued'],
    ] as const) {
      const claim = await claimed();
      for (const afterSeconds of delays) await controller.enqueue({ keys, afterSeconds });
      await controller.done([claim], { result: 'done', requeueAfterSeconds });
      expect(await shown()).to.include({ state: 'waiting', reason });
      expect(due(await shown())).to.be.within(expected - 60, expected);
    }
  });

  it('while they wait for a later time are due then, as urgent as they were asked for', async () => {
    const claim = await claimed();
    await controller.done([claim], { result: 'done', requeueAfterSeconds: 3_600 });
    await controller.enqueue({ keys, afterSeconds: 7_200, priority: 50 });
    expect(await shown()).to.include({ state: 'waiting', reason: 'requeueAfter', priority: -10 });
    await controller.enqueue({ keys, afterSeconds: 600, priority: 3 });
    expect(await shown()).to.include({ state: 'waiting', reason: 'enqueued', priority: 3 });
    expect(due(await shown())).to.be.within(500, 600);
    await controller.enqueue({ keys, afterSeconds: 500, priority: -20 });
    expect(await shown()).to.include({ priority: 3 });
  });

  it('come after a failed run when that would be later, and once for all', async () => {
    const claim = await claimed();
    await controller.enqueue({ keys, afterSeconds: 0 });
    await controller.done([claim], { result: 'terminal', message: 'never' });
    const [again] = await controller.claim({ waitSeconds: 10 });
    expect(again).to.include({ name: 'one', reason: 'enqueued', attempts: 1 });
    await controller.done([again!]);
    expect(await shown()).to.equal(undefined);
  });

  it('run at once when they change meanwhile, are given back or lose their worker, and then no more', async () => {
    for (const lose of [
      async (claim: TestClaim) => {
        await controller.enqueue({ keys, priority: 5 });
        await controller.done([claim]);
      },
      (claim: TestClaim) => controller.done([claim], { result: 'released' }),
      () => api.call('DELETE', `${controller.path}/workers/w1`),
    ]) {
      const claim = await claimed();
      await controller.enqueue({ keys, afterSeconds: 3_600 });
      await lose(claim);
      expect(await shown()).to.include({ state: 'queued', notBefore: null });
      await controller.done(await controller.claim());
      expect(await shown()).to.equal(undefined);
    }
  });
});
