import { expect } from 'chai';
import { failure, json } from '../../client/testing/fake-server.js';
import { claim, FakeApi, type Result } from '../../test/fake-api.js';
import { until } from '../../test/until.js';
import { Reporter } from './reporter.js';

describe('worker, and the results that it reports', () => {
  let api: FakeApi;

  beforeEach(async () => {
    api = await FakeApi.start();
  });

  afterEach(() => api.stop());

  it('reports nothing of a run that outlives its stop, which would keep the process alive', async () => {
    const { client, log } = api;
    const { controllers } = client;
    const reporter = new Reporter({ controllers, controller: 'c', log, fenced: () => undefined, company: () => false });
    reporter.add({ token: 'in time', result: 'done' });
    await reporter.flush(1_000);
    reporter.add({ token: 'late', result: 'done' });
    await reporter.flush(1_000);
    expect(api.results.map(({ token }) => token)).to.deep.equal(['in time']);
  });

  it('reports results again until they arrive', async () => {
    const ways: string[] = [];
    api.instead.set('/claims', (seen, response) => {
      const { results: reported } = seen.body as { results?: unknown[] };
      if (!reported) {
        json(response, 200, { claims: api.claims.shift() ?? [] });
        return;
      }
      ways.push('with a claim');
      api.instead.delete('/claims');
      response.destroy();
    });
    api.instead.set('/done', (_, response) => {
      ways.push('alone');
      api.instead.delete('/done');
      failure(response, 503, 'Unavailable');
    });
    api.claims = [[claim('a'), claim('b')]];
    await api.work({});
    await until(() => api.results.length === 2, { what: 'both results' });
    expect(api.results.map(({ token }) => token)).to.deep.equal(['token-a', 'token-b']);
    expect(ways).to.deep.equal(['with a claim', 'alone']);
  });

  it('does not let a result that the server refuses hold up others', async () => {
    api.instead.set('/done', (seen, response) => {
      const { results: reported } = seen.body as { results: (Result & { enqueue?: unknown })[] };
      if (reported.some(({ enqueue }) => enqueue !== undefined)) {
        failure(response, 422, 'Invalid');
        return;
      }
      json(response, 200, { results: api.take(reported) });
    });
    const event = { op: 'ADDED', before: null, object: { type: 'syncsets', name: 's', clusterRefs: ['x'] } };
    api.claims = [
      [
        claim('a'),
        { kind: 'map', token: 'token-map', type: 'syncsets', events: [event], expiresInSeconds: 2 },
        claim('b'),
      ],
    ];
    await api.work({ watches: [{ type: 'syncsets', enqueue: () => ({ labelSelector: '!!' }) }] });
    await until(() => api.results.length === 3, { what: 'all results' });
    expect(Object.fromEntries(api.results.map(({ token, result }) => [token, result]))).to.deep.equal({
      'token-a': 'done',
      'token-b': 'done',
      'token-map': 'error',
    });
    expect(api.warnings).to.deep.equal(['the server refused what a watch enqueues']);
  });

  it('queues more keys than one report takes before it reports, at the priority of the events', async () => {
    const enqueued: [number, number | undefined][] = [];
    api.instead.set('/enqueue', (seen, response) => {
      const { keys, priority } = seen.body as { keys: unknown[]; priority?: number };
      enqueued.push([keys.length, priority]);
      json(response, 200, { count: 1 });
    });
    const event = { op: 'ADDED', before: null, object: { type: 'syncsets', name: 's' } };
    const map = {
      kind: 'map',
      token: 'token-map',
      type: 'syncsets',
      priority: 10,
      events: [event],
      expiresInSeconds: 2,
    };
    api.claims = [[map]];
    const names = Array.from({ length: 2500 }, (_, i) => `c${i}`);
    await api.work({ watches: [{ type: 'syncsets', enqueue: () => ({ names, namespace: 'foo' }) }] });
    await until(() => api.results.length === 1, { what: 'the report' });
    expect(enqueued).to.deep.equal([
      [1000, 10],
      [500, 10],
    ]);
    expect(api.results[0]).to.have.property('enqueue').with.length(1000);
  });
});
