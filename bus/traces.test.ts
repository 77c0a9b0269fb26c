import { expect } from 'chai';
import { Connection } from 'rabbitmq-client';
import { startApi, type TestApi } from '../test/platform.js';
import { sharedRabbit } from '../test/rabbitmq.js';
import { until } from '../test/until.js';

describe('the traces of claimed keys', () => {
  let api: TestApi;
  let replica: TestApi;
  const trace = (n: number) => `00-${String(n).padStart(32, 'a')}-00000000000000${String(n).padStart(2, '0')}-01`;
  const claim = async (from = api) => {
    const body = { worker: 'w1', max: 10, waitSeconds: 10 };
    const { claims } = (await from.call('POST', '/v1/controllers/traced/claims', body)).body;
    return claims as { token: string; reason: string; traceparent?: string; name: string }[];
  };
  const done = (token: string, more: object = {}) =>
    api.call('POST', '/v1/controllers/traced/claims/done', { results: [{ token, result: 'done', ...more }] });
  const patch = (n: number | undefined, labels: object, headers: Record<string, string> = {}) =>
    api.call('PATCH', '/v1/clusters/default/a', { labels }, { ...headers, ...(n && { traceparent: trace(n) }) });

  before(async () => {
    api = await startApi();
    replica = await startApi({ databaseUrl: api.databaseUrl });
    await api.call('PUT', '/v1/controllers/traced', { type: 'clusters' });
  });

  after(async () => {
    await replica.stop();
    await api.stop();
  });

  it('are those of the changes that they run for, and neither of own writes nor of timers', async () => {
    await api.call('POST', '/v1/clusters', { name: 'a' }, { traceparent: trace(1) });
    const [added] = await claim();
    expect(added).to.include({ reason: 'added', traceparent: trace(1) });
    // Its own write, in a trace that is no parent of the next run; meanwhile somebody changes the object.
    await patch(2, { own: 'yes' }, { Claim: added!.token });
    await patch(3, { foreign: 'yes' });
    await patch(4, { own: 'again' }, { Claim: added!.token });
    await until(
      async () => {
        const { body } = await api.call('POST', '/v1/controllers/traced/claims/renew', { worker: 'w1' });
        return body.changed.length === 1;
      },
      { what: 'the change to be known' },
    );
    await done(added!.token);
    const [changed] = await claim();
    expect(changed).to.include({ reason: 'changed', traceparent: trace(3) });
    await done(changed!.token, { requeueAfterSeconds: 0 });
    const [timed] = await claim();
    expect(timed).to.include({ reason: 'requeueAfter' }).and.not.have.property('traceparent');
    await done(timed!.token);
    await patch(undefined, { untraced: 'yes' });
    const [untraced] = await claim();
    expect(untraced).to.include({ reason: 'modified' }).and.not.have.property('traceparent');
    await done(untraced!.token);
  });

  it('are known at every replica, whichever wrote the change, and those of deletions where they were made', async () => {
    for (let n = 10; n < 20; n++) {
      const waiting = claim(replica);
      await patch(n, { n: String(n) });
      const [one] = await waiting;
      expect(one).to.include({ traceparent: trace(n) });
      await done(one!.token);
    }
    // At the replica that wrote it: what is gone has no version that another one could wait for.
    const waiting = claim(replica);
    await replica.call('DELETE', '/v1/clusters/default/a', undefined, { traceparent: trace(20) });
    const [gone] = await waiting;
    expect(gone).to.include({ reason: 'deleted', object: null, traceparent: trace(20) });
    await done(gone!.token);
  });

  it('are nothing that is no traceparent', async () => {
    for (const bad of [
      '00-0-0-01',
      trace(1).toUpperCase(),
      `ff${trace(1).slice(2)}`,
      `00-${'0'.repeat(32)}-1234567890123456-01`,
    ]) {
      await api.call('POST', '/v1/clusters', { name: 'b' }, { traceparent: bad });
      const [one] = await claim();
      expect(one, bad).to.include({ name: 'b' }).and.not.have.property('traceparent');
      await done(one!.token);
      await api.call('DELETE', '/v1/clusters/default/b');
      const [gone] = await claim();
      await done(gone!.token);
    }
  });
});

describe('the messages of a work queue', () => {
  it('carry the trace of the change that they were sent for, as those of events do', async function () {
    this.timeout(60_000);
    const { url: amqpUrl } = await sharedRabbit();
    const api = await startApi({ amqpUrl });
    const broker = new Connection(amqpUrl);
    broker.on('error', () => undefined);
    try {
      const queue = 'syncsets.work.tracedmessages';
      await api.call('PUT', '/v1/controllers/tracedmessages', { type: 'clusters' });
      const traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
      const message = () =>
        until(() => broker.basicGet({ queue, noAck: true }), { what: 'a message', deadline: 20_000 });
      await until(() => broker.queueDeclare({ queue, passive: true }), { what: 'the queue', deadline: 20_000 });
      await api.call('POST', '/v1/clusters', { name: 'plain' });
      expect((await message()).headers ?? {}).to.not.have.property('traceparent');
      await api.call('POST', '/v1/clusters', { name: 'traced' }, { traceparent });
      const traced = await message();
      expect(traced.body).to.include({ type: 'clusters', name: 'traced' });
      expect(traced.headers).to.include({ traceparent });
      await api.call('DELETE', '/v1/controllers/tracedmessages');
    } finally {
      await broker.close();
      await api.stop();
    }
  });
});
