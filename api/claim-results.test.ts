import { expect } from 'chai';
import { startApi, type TestApi } from '../test/platform.js';
import { until } from '../test/until.js';

const base = '/v1/controllers/hello';

describe('results that come with a claim', () => {
  let api: TestApi;
  before(async () => {
    api = await startApi();
  });
  after(() => api.stop());

  beforeEach(async () => {
    await api.call('DELETE', base);
    await api.call('PUT', base, { type: 'clusters' });
  });

  const enqueue = (...names: string[]) => api.call('POST', `${base}/enqueue`, { keys: names.map(name => ({ name })) });
  const claim = (request: object) => api.call('POST', `${base}/claims`, { worker: 'w1', max: 10, ...request });
  const tokens = async (...names: string[]): Promise<string[]> => {
    await enqueue(...names);
    const { body } = await claim({});
    return (body.claims as { token: string }[]).map(({ token }) => token);
  };
  const states = async () =>
    Object.fromEntries(
      ((await api.call('GET', `${base}/work`)).body.items as { name: string; state: string }[]).map(one => [
        one.name,
        one.state,
      ]),
    );

  it('are taken before it and answered in their order, each with whether its claim was still held', async () => {
    const [first = '', second = ''] = await tokens('a', 'b');
    await enqueue('c');
    const { status, body } = await claim({
      results: [
        { token: second, result: 'done' },
        { token: 'made-up', result: 'done' },
        { token: first, result: 'error', message: 'not yet' },
        { token: first, result: 'done' },
      ],
    });
    expect(status).to.equal(200);
    expect(body.results).to.deep.equal([
      { token: second, state: 'ok' },
      { token: 'made-up', state: 'fenced' },
      { token: first, state: 'ok' },
      { token: first, state: 'fenced' },
    ]);
    expect(body.claims.map((one: { name: string }) => one.name)).to.deep.equal(['c']);
    expect(await states()).to.deep.equal({ a: 'waiting', c: 'claimed' });
  });

  it('are taken at once where the claim waits for keys', async () => {
    const [token] = await tokens('a');
    const waiting = claim({ waitSeconds: 20, results: [{ token, result: 'done' }] });
    await until(async () => Object.keys(await states()).length === 0, { what: 'the result to be taken' });
    await enqueue('b');
    const { body } = await waiting;
    expect(body.results).to.deep.equal([{ token, state: 'ok' }]);
    expect(body.claims[0].name).to.equal('b');
  });

  it('may be given back and are then claimed again; may enqueue keys, which are claimed with them', async () => {
    const [released = '', done = ''] = await tokens('a', 'b');
    const { body } = await claim({
      results: [
        { token: released, result: 'released' },
        { token: done, result: 'done', enqueue: [{ name: 'c' }] },
      ],
    });
    expect(body.results.map((one: { state: string }) => one.state)).to.deep.equal(['ok', 'ok']);
    expect(body.claims.map((one: { name: string }) => one.name)).to.have.members(['a', 'c']);
  });

  it('count for nothing when one of them is malformed: the others can be sent again', async () => {
    const [token] = await tokens('a');
    const { status, body } = await claim({
      results: [
        { token, result: 'done' },
        { token, result: 'perhaps' },
      ],
    });
    expect(status).to.equal(422);
    expect(body.error.details[0].path).to.equal('results[1].result');
    expect(await states()).to.deep.equal({ a: 'claimed' });
    const again = await claim({ results: [{ token, result: 'done' }] });
    expect(again.body.results).to.deep.equal([{ token, state: 'ok' }]);
  });

  it('of a worker whose lease ran out are fenced, and its keys are claimed anew', async () => {
    const [token] = await tokens('a');
    await api.database.query({ text: 'update syncsets.workers set expires_at = clock_timestamp()' });
    const { body } = await claim({ results: [{ token, result: 'done' }] });
    expect(body.results).to.deep.equal([{ token, state: 'fenced' }]);
    expect(body.claims).to.have.length(1);
    expect(body.claims[0]).to.include({ name: 'a', reason: 'lease expired' });
    expect(body.claims[0].token).not.to.equal(token);
  });
});
