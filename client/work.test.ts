import { expect } from 'chai';
import { connect } from './connect.js';
import { FakeServer, json } from './testing/fake-server.js';

describe('work over HTTP', () => {
  it('takes no answer of somebody else, such as a proxy, for the API', async () => {
    const server = await FakeServer.start((_, response) => json(response, 200, { status: 'fine' }));
    const client = connect({ url: server.url });
    const { controllers } = client;
    const codes: unknown[] = [];
    const calls = [
      () => controllers.list(),
      () => controllers.read('c'),
      () => controllers.claim('c', { worker: 'w', max: 1 }),
      () => controllers.renew('c', { worker: 'w' }),
    ];
    for (const call of calls) {
      const error: unknown = await call().then(
        () => undefined,
        (thrown: unknown) => thrown,
      );
      codes.push(error instanceof Error && 'code' in error ? error.code : error);
    }
    await client.close();
    await server.stop();
    expect(codes).to.deep.equal(['NotJson', 'NotJson', 'NotJson', 'NotJson']);
  });

  it('rejects, and does not throw at once, where a name cannot stand in an address', async () => {
    const client = connect({ url: 'http://127.0.0.1:1' });
    const { controllers } = client;
    const half = '\ud800';
    const calls = [
      () => controllers.read(half),
      () => controllers.work(half),
      () => controllers.renew(half, { worker: 'w' }),
      () => controllers.claim(half, { worker: 'w', max: 1 }),
    ];
    const outcomes = await Promise.allSettled(calls.map(call => call()));
    await client.close();
    for (const outcome of outcomes) {
      expect(outcome.status === 'rejected' && outcome.reason).to.be.instanceOf(URIError);
    }
  });
});
