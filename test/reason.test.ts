import { connect, type AddressInfo, createServer } from 'node:net';
import { once } from 'node:events';
import { expect } from 'chai';
import { reasonOf } from '../reason.js';

describe('the reason of an error', () => {
  it('is its message, the name of an error without one, the text of what is no error', () => {
    expect(reasonOf(new TypeError('is no name'))).to.equal('is no name');
    expect(reasonOf(new TypeError())).to.equal('TypeError');
    expect(reasonOf('thrown')).to.equal('thrown');
  });

  it('says why each address of a host refused, where the error itself says nothing', async () => {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    await new Promise(resolve => server.close(resolve));
    const addresses = ['127.0.0.1', '127.0.0.2'].map(address => ({ address, family: 4 }));
    const socket = connect({ host: 'two.example', port, lookup: (_, __, found) => found(null, addresses) });
    const [error] = (await once(socket, 'error').catch((failure: unknown) => [failure])) as [unknown];
    expect(reasonOf(error)).to.match(/ECONNREFUSED 127\.0\.0\.1:\d+; connect ECONNREFUSED 127\.0\.0\.2/);
  });
});
