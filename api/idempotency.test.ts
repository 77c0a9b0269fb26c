import { expect } from 'chai';
import { expireAnswers } from '../db/index.js';
import { call, startApi, type Answer, type TestApi } from '../test/platform.js';

describe('requests with an Idempotency-Key', () => {
  let api: TestApi;
  let replica: TestApi;
  let serial = 0;
  const fresh = (prefix = 'i') => `${prefix}${++serial}`;
  before(async () => {
    api = await startApi();
    replica = await startApi({ databaseUrl: api.databaseUrl });
  });
  after(async () => {
    await replica.stop();
    await api.stop();
  });

  const path = (name: string) => `/v1/clusters/default/${name}`;
  const ndjson = { 'Content-Type': 'application/x-ndjson' };
  const creation = (name: string) => ({ op: 'create', type: 'clusters', name, object: {} });
  const labels = (name: string, value: string) => ({
    op: 'patch',
    type: 'clusters',
    name,
    patch: { labels: { by: value } },
  });

  /** Each way of sending the same patch of a label under a key; `send` answers the label that it says is stored. */
  const ways: [string, (url: string, key: string, name: string, value: string) => Promise<Answer>][] = [
    [
      'a PATCH',
      (url, key, name, value) => call(url, 'PATCH', path(name), { labels: { by: value } }, { 'Idempotency-Key': key }),
    ],
    [
      'a batch',
      (url, key, name, value) =>
        call(url, 'POST', '/v1/batch', { operations: [labels(name, value)] }, { 'Idempotency-Key': key }),
    ],
    [
      'an atomic batch',
      (url, key, name, value) =>
        call(url, 'POST', '/v1/batch', { atomic: true, operations: [labels(name, value)] }, { 'Idempotency-Key': key }),
    ],
    [
      'a line',
      (url, key, name, value) =>
        call(url, 'POST', '/v1/batch', JSON.stringify(labels(name, value)), { ...ndjson, 'Idempotency-Key': key }),
    ],
  ];

  for (const [what, send] of ways) {
    it(`are told the first answer for 24 hours and carried out anew after that: ${what}`, async () => {
      const [name, key] = [fresh(), fresh('key')];
      await api.call('POST', '/v1/clusters', { name });
      const first = await send(api.url, key, name, 'first');
      await api.call('PATCH', path(name), { labels: { by: 'another' } });
      const age = (interval: string) =>
        api.database.query({
          text: 'update syncsets.answers set at = clock_timestamp() - $2::interval where key = $1',
          values: [key, interval],
        });
      await age('23 hours 59 minutes');
      expect((await send(api.url, key, name, 'first')).body).to.deep.equal(first.body);
      expect((await api.call('GET', path(name))).body.labels).to.deep.equal({ by: 'another' });
      await age('24 hours 1 second');
      const anew = await send(api.url, key, name, 'second');
      expect(anew.status, JSON.stringify(anew.body)).to.equal(200);
      expect((await api.call('GET', path(name))).body.labels).to.deep.equal({ by: 'second' });
      expect((await send(api.url, key, name, 'second')).body).to.deep.equal(anew.body);
    });

    it(`are carried out once when twins reach two processes at the same time: ${what}`, async () => {
      for (let round = 0; round < 5; round++) {
        const [name, key] = [fresh(), fresh('key')];
        const { body } = await api.call('POST', '/v1/clusters', { name });
        const twins = await Promise.all([api, replica, api, replica].map(({ url }) => send(url, key, name, 'once')));
        const version = (await api.call('GET', path(name))).body.resourceVersion;
        for (const twin of twins) {
          // A twin that came while the first was under way may be told to ask again.
          const text = JSON.stringify(twin.body);
          if (twin.status === 409 || text.includes('"status":409')) continue;
          expect(text).to.contain(`"resourceVersion":"${version}"`);
        }
        expect(twins.some(({ status }) => status === 200)).to.equal(true);
        const events = await api.database.query({
          text: `select from syncsets.events where type = 'clusters' and uid = $1`,
          values: [body.uid],
        });
        expect(events).to.have.length(2);
        const again = await send(replica.url, key, name, 'once');
        expect(JSON.stringify(again.body)).to.contain(String(version));
      }
    });
  }

  it('that make an object make one, whichever process they reach', async () => {
    for (let round = 0; round < 10; round++) {
      const headers = { 'Idempotency-Key': fresh('key') };
      const object = { generateName: 'twin-', labels: { round: `r${round}` } };
      const twins = await Promise.all(
        [api, replica, replica, api].map(({ url }) => call(url, 'POST', '/v1/clusters', object, headers)),
      );
      expect(twins.map(({ status }) => status)).to.deep.equal([201, 201, 201, 201]);
      for (const twin of twins) expect(twin.body).to.deep.equal(twins[0]?.body);
      const { body } = await api.call('GET', `/v1/clusters?labelSelector=round%3Dr${round}`);
      expect(body.items).to.have.length(1);
    }
  });

  it('of another body are refused by the process that did not see the first', async () => {
    const headers = { 'Idempotency-Key': fresh('key') };
    const answers = await Promise.all(
      [api, replica].map(({ url }, i) =>
        call(url, 'POST', '/v1/clusters', { name: fresh(), labels: { i: String(i) } }, headers),
      ),
    );
    expect(answers.map(({ status }) => status).sort()).to.deep.equal([201, 422]);
  });

  it('replay deletions of a batch that was left halfway with the object as it was last', async () => {
    const names = [fresh(), fresh()];
    for (const name of names) await api.call('POST', '/v1/clusters', { name, labels: { last: 'words' } });
    const operations = names.map(name => ({ op: 'delete', type: 'clusters', name }));
    const headers = { 'Idempotency-Key': fresh('key') };
    const first = await api.call('POST', '/v1/batch', { operations }, headers);
    await api.database.query({
      text: 'delete from syncsets.answers where key = $1 and line = -1',
      values: [headers['Idempotency-Key']],
    });
    const again = await replica.call('POST', '/v1/batch', { operations }, headers);
    expect(again.body).to.deep.equal(first.body);
    expect(again.body.results[0].object).to.deep.include({ labels: { last: 'words' } });
  });

  it('leave no answer in the database that is older than 24 hours', async () => {
    const headers = { 'Idempotency-Key': fresh('key') };
    const name = fresh();
    await api.call('POST', '/v1/batch', { operations: [creation(name), creation(fresh())] }, headers);
    const left = () =>
      api.database.query({
        text: 'select 1 from syncsets.answers where key = $1',
        values: [headers['Idempotency-Key']],
      });
    expect(await left()).to.have.length(3);
    await expireAnswers(api.database, 1_000);
    expect(await left()).to.have.length(3);
    await api.database.query({
      text: `update syncsets.answers set at = clock_timestamp() - interval '24 hours 1 second' where key = $1`,
      values: [headers['Idempotency-Key']],
    });
    expect(await expireAnswers(api.database, 2)).to.equal(2);
    expect(await expireAnswers(api.database, 1_000)).to.be.at.least(1);
    expect(await left()).to.deep.equal([]);
    expect((await api.call('GET', path(name))).status).to.equal(200);
  });

  const cluster = (name: string, fields: object = {}) => ({ name, namespace: 'foo', ...fields });
  const batch = (operations: object[], more: object, headers: Record<string, string>) =>
    api.call('POST', '/v1/batch', { operations, ...more }, headers);

  it('are answered as at first, single writes and batches', async () => {
    const name = fresh();
    const headers = { 'Idempotency-Key': `key-${name}` };
    const object = cluster(name, { kubeconfig: 'canary-4711' });
    const twins = await Promise.all([1, 2, 3].map(() => api.call('POST', '/v1/clusters', object, headers)));
    for (const twin of twins) {
      expect(twin.status).to.equal(201);
      expect(twin.body).to.deep.equal(twins[0]?.body);
      expect(twin.headers.get('location')).to.equal(`/v1/clusters/foo/${name}`);
    }
    const other = await api.call('POST', '/v1/clusters', { ...object, context: 'x' }, headers);
    expect([other.status, other.body.error.code]).to.deep.equal([422, 'Invalid']);

    const patch = { 'Idempotency-Key': `patch-${name}` };
    const path = `/v1/clusters/foo/${name}`;
    const patched = await api.call('PATCH', path, { context: 'a' }, patch);
    await api.call('PATCH', path, { context: 'b' });
    expect((await api.call('PATCH', path, { context: 'a' }, patch)).body).to.deep.equal(patched.body);
    expect((await api.call('GET', path)).body.context).to.equal('b');

    const second = fresh();
    const operations = [
      { op: 'create', type: 'clusters', object: cluster(second) },
      { op: 'delete', type: 'clusters', namespace: 'foo', name: 'nobody' },
      { op: 'patch', type: 'clusters', namespace: 'foo', name, patch: { context: 'c' } },
    ];
    for (const [atomic, list] of [
      [false, operations],
      [true, operations.slice(2)],
    ] as const) {
      const key = { 'Idempotency-Key': `batch-${name}-${atomic}` };
      const first = await batch([...list], { atomic }, key);
      await api.call('PATCH', path, { context: 'd' });
      const again = await batch([...list], { atomic }, key);
      expect(again.body).to.deep.equal(first.body);
      expect((await api.call('GET', path)).body.context).to.equal('d');
      expect((await batch([...list, ...list], { atomic }, key)).status).to.equal(422);
    }
    const stored = await api.database.query<{ text: string }>({
      text: 'select a::text as text from syncsets.answers a',
    });
    expect(stored.map(row => row.text).join()).not.to.contain('canary-4711');
  });

  it('go on with a batch that a process left halfway', async () => {
    const names = [fresh(), fresh(), fresh()];
    const operations = names.map(name => ({ op: 'create', type: 'clusters', object: cluster(name) }));
    const key = { 'Idempotency-Key': `half-${names[0]}` };
    const first = await batch(operations, {}, key);
    // As after a kill: the last write and the answer as a whole are missing.
    await api.database.query({
      text: `delete from syncsets.answers where key = $1 and line in (-1, 2)`,
      values: [key['Idempotency-Key']],
    });
    await api.call('DELETE', `/v1/clusters/foo/${names[2]}`);
    const again = await batch(operations, {}, key);
    expect(again.body.results.map(({ status }: { status: number }) => status)).to.deep.equal([201, 201, 201]);
    expect(again.body.results.slice(0, 2)).to.deep.equal(first.body.results.slice(0, 2));
    expect(again.body.results[2].object.uid).not.to.equal(first.body.results[2].object.uid);
  });

  it('are refused for anything else, before it stores anything, when a process left a batch halfway', async () => {
    const names = [fresh(), fresh(), fresh()];
    const creating = (name: string) => ({ op: 'create', type: 'clusters', object: cluster(name) });
    const key = { 'Idempotency-Key': `half-${names[0]}` };
    await batch([creating(fresh()), creating(fresh())], {}, key);
    // As after a kill in which only the second operation was stored.
    await api.database.query({
      text: 'delete from syncsets.answers where key = $1 and line in (-1, 0)',
      values: [key['Idempotency-Key']],
    });
    expect((await batch(names.map(creating), {}, key)).status).to.equal(422);
    expect((await batch(names.map(creating), { atomic: true }, key)).status).to.equal(422);
    expect((await api.call('POST', '/v1/clusters', cluster(names[0] ?? ''), key)).status).to.equal(422);
    for (const name of names) expect((await api.call('GET', `/v1/clusters/foo/${name}`)).status).to.equal(404);
  });
});
