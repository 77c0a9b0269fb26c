import { expect } from 'chai';
import { startApi, type TestApi } from '../test/platform.js';

describe('operations of a batch under a claim', () => {
  let api: TestApi;
  let serial = 0;
  before(async () => {
    api = await startApi();
    await api.call('PUT', '/v1/controllers/batcher', { type: 'clusters' });
  });
  after(() => api.stop());

  /** A new object, claimed by a worker; `lose` gives the key back. */
  async function claimed() {
    const name = `k${++serial}`;
    await api.call('POST', '/v1/clusters', { name });
    await api.call('POST', '/v1/controllers/batcher/enqueue', { keys: [{ name }] });
    const { body } = await api.call('POST', '/v1/controllers/batcher/claims', { worker: `w${serial}`, max: 100 });
    const { token } = (body.claims as { name: string; token: string }[]).find(claim => claim.name === name) ?? {
      token: '',
    };
    expect(token).not.to.equal('');
    const lose = () =>
      api.call('POST', '/v1/controllers/batcher/claims/done', { results: [{ token, result: 'done' }] });
    return { name, token, lose };
  }
  const patch = (name: string, claim: string | undefined, value: string, more: object = {}) => ({
    op: 'patch',
    type: 'clusters',
    name,
    patch: { labels: { by: value } },
    ...(claim === undefined ? {} : { claim }),
    ...more,
  });
  const send = (operations: object[], more: object = {}, headers: Record<string, string> = {}) =>
    api.call('POST', '/v1/batch', { operations, ...more }, headers);
  const label = async (name: string) => (await api.call('GET', `/v1/clusters/default/${name}`)).body.labels?.by;
  const codes = (body: { results: { status: number; error?: { code: string } }[] }) =>
    body.results.map(({ status, error }) => error?.code ?? status);

  it('are done while it is held, each under its own, and are its controller’s in the event log', async () => {
    const [a, b] = [await claimed(), await claimed()];
    for (const atomic of [false, true]) {
      const value = `held-${atomic}`;
      const { status, body } = await send([patch(a.name, a.token, value), patch(b.name, b.token, value)], { atomic });
      expect(status, JSON.stringify(body)).to.equal(200);
      expect(codes(body)).to.deep.equal([200, 200]);
    }
    const actors = await api.database.query({
      text: `select distinct actor, own from syncsets.events where name in ($1, $2) and op = 'MODIFIED'`,
      values: [a.name, b.name],
    });
    expect(actors).to.deep.equal([{ actor: 'controller:batcher', own: true }]);
  });

  it('are fenced one by one when it is lost, those that would change nothing as well', async () => {
    const [lost, held] = [await claimed(), await claimed()];
    await send([patch(lost.name, undefined, 'before')]);
    await lost.lose();
    const { body } = await send([
      patch(lost.name, lost.token, 'after'),
      patch(lost.name, lost.token, 'before'),
      patch(held.name, held.token, 'after'),
      { op: 'delete', type: 'clusters', name: lost.name, claim: lost.token },
      patch(held.name, 'made-up', 'after'),
    ]);
    expect(codes(body)).to.deep.equal(['Fenced', 'Fenced', 200, 'Fenced', 'Fenced']);
    expect(await label(lost.name)).to.equal('before');
  });

  it('store nothing of an atomic batch when one of its claims is lost, not even if that operation changes nothing', async () => {
    const [lost, held] = [await claimed(), await claimed()];
    await send([patch(lost.name, undefined, 'before')]);
    await lost.lose();
    for (const value of ['after', 'before']) {
      const operations = [patch(held.name, held.token, `with-${value}`), patch(lost.name, lost.token, value)];
      const { status, body } = await send(operations, { atomic: true });
      expect([status, body.error.code, body.error.details[0].path]).to.deep.equal([409, 'Fenced', 'operations[1]']);
    }
    expect(await label(held.name)).to.equal(undefined);
  });

  it('take the claim of the request when they name none, and a line of NDJSON its own', async () => {
    const one = await claimed();
    const header = { Claim: one.token };
    expect(codes((await send([patch(one.name, undefined, 'header')], {}, header)).body)).to.deep.equal([200]);
    await one.lose();
    expect(codes((await send([patch(one.name, undefined, 'late')], {}, header)).body)).to.deep.equal(['Fenced']);
    const response = await fetch(`${api.url}/v1/batch`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/x-ndjson' },
      body: [patch(one.name, one.token, 'late'), patch(one.name, undefined, 'free')]
        .map(line => JSON.stringify(line))
        .join('\n'),
    });
    const lines = (await response.text())
      .trim()
      .split('\n')
      .map(line => JSON.parse(line) as { status: number });
    expect(lines.map(({ status }) => status)).to.deep.equal([409, 200]);
    expect(await label(one.name)).to.equal('free');
  });

  it('write metadata and status with a JSON patch, fenced as well', async () => {
    const one = await claimed();
    const json = (subresource: string, path: string, value: unknown) => ({
      op: 'patch',
      type: 'clusters',
      name: one.name,
      claim: one.token,
      subresource,
      patchType: 'json',
      patch: [{ op: 'add', path, value }],
    });
    const operations = [json('status', '/status', { nodeCount: 2 }), json('metadata', '/labels', { by: 'patch' })];
    for (const atomic of [true, false]) {
      const { body } = await send(operations, { atomic });
      expect(codes(body)).to.deep.equal([200, 200]);
      expect(body.results[1].object).to.deep.include({
        status: { nodeCount: 2 },
        labels: { by: 'patch' },
        generation: 1,
      });
    }
    await one.lose();
    expect(codes((await send(operations)).body)).to.deep.equal(['Fenced', 'Fenced']);
  });
});
