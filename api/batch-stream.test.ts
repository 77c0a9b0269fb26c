import { expect } from 'chai';
import { once } from 'node:events';
import { Agent, request } from 'node:http';
import { connect } from 'node:net';
import { startApi, type TestApi } from '../test/platform.js';
import { until } from '../test/until.js';

describe('a batch of NDJSON', () => {
  let api: TestApi;
  before(async () => {
    api = await startApi();
  });
  after(() => api.stop());

  it('goes no further than its client reads, whatever the client sends, and to the end once it reads on', async () => {
    const count = 300;
    const path = '/v1/clusters/default/large';
    // Each line of 100 bytes is answered with 200 KB: 60 MB in all.
    const { status } = await api.call('POST', '/v1/clusters', {
      name: 'large',
      annotations: { a: 'x'.repeat(200_000) },
    });
    expect(status).to.equal(201);
    const socket = connect({ port: Number(new URL(api.url).port), host: '127.0.0.1' });
    await once(socket, 'connect');
    socket.pause();
    socket.write(
      'POST /v1/batch HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n',
    );
    for (let i = 0; i < count; i++) {
      const line = `${JSON.stringify({ op: 'patch', type: 'clusters', name: 'large', patch: { labels: { i: String(i) } } })}\n`;
      socket.write(`${line.length.toString(16)}\r\n${line}\r\n`);
    }
    socket.write('0\r\n\r\n');
    const reached = async () => Number((await api.call('GET', path)).body.labels?.i ?? -1);
    let last = { at: -1, since: performance.now() };
    await until(
      async () => {
        const at = await reached();
        if (at !== last.at) last = { at, since: performance.now() };
        return at >= 0 && performance.now() - last.since > 1_000;
      },
      { what: 'the batch to stand still', deadline: 20_000 },
    );
    expect(last.at).to.be.lessThan(count - 1);
    let read = 0;
    socket.on('data', chunk => (read += chunk.length)).resume();
    await once(socket, 'close');
    expect(await reached()).to.equal(count - 1);
    expect(read).to.be.greaterThan(count * 200_000);
  }).timeout(60_000);

  it('leaves nothing behind on a connection that many of them take', async () => {
    const warnings: Error[] = [];
    const warned = (warning: Error) => warnings.push(warning);
    process.on('warning', warned);
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    try {
      for (let i = 0; i < 15; i++) {
        const sending = request(`${api.url}/v1/batch`, {
          method: 'POST',
          agent,
          headers: { 'Content-Type': 'application/x-ndjson' },
        });
        sending.end('{"op": "delete", "type": "clusters", "name": "nobody"}');
        const [response] = (await once(sending, 'response')) as [import('node:http').IncomingMessage];
        response.resume();
        await once(response, 'end');
        if (i > 0) expect(sending.reusedSocket).to.equal(true);
      }
    } finally {
      agent.destroy();
      process.off('warning', warned);
    }
    expect(warnings).to.deep.equal([]);
  });
});
