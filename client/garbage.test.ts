import { expect } from 'chai';
import { connect, type Client } from './connect.js';
import { FakeServer, json } from './testing/fake-server.js';

describe('garbage', () => {
  let server: FakeServer;
  let client: Client;

  before(async () => {
    server = await FakeServer.start((_, response) => json(response, 200, { deleted: 1, waiting: [] }));
    client = connect({ url: server.url });
  });

  after(async () => {
    await client.close();
    await server.stop();
  });

  it('is not collected where a dry run is asked for, which the server has not', async () => {
    const objects = [{ type: 'clusters', namespace: 'foo', name: 'a' }];
    const trying = client.with({ dryRun: true, claim: 'token-1' });
    const error: unknown = await trying.garbage.collect(objects).catch((thrown: unknown) => thrown);
    expect(error).to.be.instanceOf(TypeError).and.have.property('message').that.includes('has no dry run');
    expect(server.seen).to.deep.equal([]);
    expect(await client.with({ dryRun: false, claim: 'token-1' }).garbage.collect(objects)).to.include({ deleted: 1 });
    expect(server.seen.map(({ headers }) => headers['claim'])).to.deep.equal(['token-1']);
  });
});
