import { expect } from 'chai';
import { once } from 'node:events';
import { failure, json } from '../../client/testing/fake-server.js';
import { claim, FakeApi } from '../../test/fake-api.js';
import { until } from '../../test/until.js';

describe('worker, when the server or the network fails', () => {
  let api: FakeApi;

  beforeEach(async () => {
    api = await FakeApi.start();
  });

  afterEach(() => api.stop());

  it('stops within seconds although nobody answers its last results', async () => {
    let unanswered = 0;
    api.instead.set('/done', () => unanswered++);
    api.claims = [[claim('a')]];
    const { reconcile, begun, finish } = slowRun();
    await api.work({ reconcile });
    await until(begun, { what: 'the run' });
    const since = performance.now();
    const stopping = api.worker?.stop();
    finish();
    await stopping;
    expect(unanswered).to.equal(1);
    expect(performance.now() - since).to.be.lessThan(15_000);
  });

  it('waits at a stop for work in hand even if it may for longer than a timer can wait', async () => {
    api.claims = [[claim('a')]];
    api.held = ['token-a'];
    const { reconcile, begun, finish } = slowRun();
    await api.work({ reconcile }, 4, 30 * 86_400_000);
    await until(begun, { what: 'the run' });
    const stopping = api.worker?.stop();
    const before = api.renewals;
    await until(() => api.renewals > before + 1, { what: 'renewals during the stop' });
    finish();
    await stopping;
    expect(api.results).to.deep.equal([{ token: 'token-a', result: 'done' }]);
  });

  it('does not wait at a stop for what it asks of other replicas', async () => {
    let unanswered = 0;
    api.instead.set('/controllers/c', (seen, response) => {
      if (seen.method === 'GET') unanswered++;
      else json(response, 200, { ...(seen.body as object), name: 'c', claimSeconds: 2 });
    });
    await api.work({ longRunning: true });
    await until(() => unanswered > 0, { what: 'the question' });
    const since = performance.now();
    await api.worker?.stop();
    expect(performance.now() - since).to.be.lessThan(15_000);
  });

  it('registers again when the server has forgotten it', async () => {
    await api.work({});
    const registrations = () => api.seen.filter(seen => seen.method === 'PUT').length;
    expect(registrations()).to.equal(1);
    api.instead.set('/claims', (_, response) => {
      api.instead.delete('/claims');
      failure(response, 404, 'NotFound');
    });
    await until(() => registrations() === 2, { what: 'the second registration' });
  });

  it('works beside a newer release by its registration, and refuses one that contradicts at the same revision', async () => {
    api.instead.set('/controllers/c', (seen, response) => {
      if (seen.method === 'PUT') failure(response, 409, 'Conflict');
      else if (seen.method === 'GET')
        json(response, 200, { name: 'c', type: 'clusters', revision: 2, claimSeconds: 2 });
      else response.writeHead(204).end();
    });
    api.claims = [[claim('a')]];
    api.held = ['token-a'];
    await api.work({ revision: 1 });
    await until(() => api.results.length === 1, { what: 'the result' });
    await api.worker?.stop();
    const refused: unknown = await api.work({ revision: 2 }).catch((error: unknown) => error);
    expect(refused).to.include({ code: 'Conflict' });
  });

  it('does not reconcile an object that was deleted before its finalizer was put on', async () => {
    const object = { type: 'clusters', namespace: 'foo', name: 'a', uid: 'uid-a', resourceVersion: '1' };
    const deleted = { ...object, resourceVersion: '2', deletedAt: '2026-01-01T00:00:00Z', finalizers: ['other'] };
    const calls: string[] = [];
    api.instead.set('/clusters/foo/a', ({ method }, response) => {
      calls.push(method);
      if (method === 'PATCH') failure(response, 409, 'Conflict');
      else json(response, 200, deleted);
    });
    api.claims = [[{ ...claim('a'), object }]];
    const call = (what: string) => () => {
      calls.push(what);
      return Promise.resolve();
    };
    await api.work({ finalizer: 'mine', reconcile: call('reconcile'), finalize: call('finalize') });
    await until(() => api.results.length > 0, { what: 'the result' });
    expect(calls).to.deep.equal(['PATCH', 'GET']);
    expect(api.results).to.deep.equal([{ token: 'token-a', result: 'done' }]);
  });

  it('stays ready while its only slot is busy, for as long as the API answers its renewals', async () => {
    let begunAt = 0;
    api.claims = [[claim('a')]];
    api.held = ['token-a'];
    await api.work(
      {
        reconcile: async (_, context) => {
          begunAt = performance.now();
          await once(context.signal, 'abort');
        },
      },
      1,
    );
    const silence = () => api.worker?.silence ?? Infinity;
    await until(() => begunAt > 0, { what: 'the run' });
    // No claim is made now: what is heard of the API since is not of one.
    await until(() => performance.now() - silence() > begunAt + 500, { what: 'a word of the API' });
    expect(api.worker?.ready).to.equal(true);
    api.instead.set('/renew', (_, response) => failure(response, 503, 'Unavailable'));
    for (const stream of api.streams) stream.destroy();
    const heardAt = performance.now();
    await until(() => silence() > 1000, { what: 'silence' });
    expect(performance.now() - silence()).to.be.lessThan(heardAt + 500);
  });
});

/** A run that has begun when `begun` says so, and lasts until `finish`. */
function slowRun() {
  let hasBegun = false;
  let finish: () => void = () => undefined;
  const slow = new Promise<void>(resolve => (finish = resolve));
  const reconcile = () => {
    hasBegun = true;
    return slow;
  };
  return { reconcile, begun: () => hasBegun, finish: () => finish() };
}
