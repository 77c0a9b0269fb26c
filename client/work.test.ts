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
});
