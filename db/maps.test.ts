import { expect } from 'chai';
import { TestController } from '../test/controller.js';
import { startApi, type TestApi } from '../test/platform.js';
import { until } from '../test/until.js';
import {
  claimMap,
  finishMap,
  releaseWorker,
  renewWorker,
  summarizeWork,
  wakeDueWork,
  type ClaimedMap,
} from './index.js';

describe('the map of a watched type', () => {
  const limits = { events: 10, bytes: 1_000_000 };
  let api: TestApi;
  let controller: TestController;
  let serial = 0;
  before(async () => {
    api = await startApi();
  });
  beforeEach(async () => {
    controller = new TestController(api, `map${++serial}`);
    await controller.register({ watches: ['secrets'] });
    await api.call('POST', '/v1/secrets', { name: controller.name });
  });
  afterEach(() => controller.remove());
  after(() => api.stop());

  /** Claimed by a worker that holds nothing else. */
  async function claimed(worker: string): Promise<ClaimedMap> {
    await renewWorker(api.database, controller.name, worker, 60);
    return until(
      async () => {
        const map = await claimMap(api.database, controller.name, worker, limits);
        return map === 'resynced' ? undefined : map;
      },
      { what: 'the map' },
    );
  }

  it('wakes others when its worker leaves, though that held no key', async () => {
    await claimed('leaving');
    expect(await releaseWorker(api.database, controller.name, 'leaving')).to.equal(true);
    expect(await releaseWorker(api.database, controller.name, 'leaving')).to.equal(false);
  });

  it('wakes others when the lease of its worker ends, though that held no key', async () => {
    await claimed('dead');
    // In one transaction, so that the platform's own housekeeping does not come first.
    const woken = await api.database.transaction(async queries => {
      await queries.query({
        text: 'update syncsets.workers set expires_at = clock_timestamp() where controller = $1 and worker = $2',
        values: [controller.name, 'dead'],
      });
      return wakeDueWork(queries);
    });
    expect(woken).to.deep.equal([controller.name]);
  });

  it('says so when it begins anew behind the log, and forgets that it failed', async () => {
    const { nonce } = await claimed('w');
    await finishMap(api.database, { controller: controller.name, type: 'secrets', nonce }, { error: 'broken' });
    await api.database.query({
      text: `update syncsets.maps set not_before = '-infinity', version = -1 where controller = $1`,
      values: [controller.name],
    });
    expect(await claimMap(api.database, controller.name, 'w', limits)).to.equal('resynced');
    const work = await summarizeWork(api.database, { controller: controller.name });
    expect(work.get(controller.name)?.maps).to.deep.equal([
      { type: 'secrets', behind: 0, attempts: 0, lastError: null, notBefore: null },
    ]);
  });
});
