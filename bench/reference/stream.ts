import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/**
 * The reference for fan-out: a server of node:http that has its bytes ready. GET answers for ever; each POST writes so many lines
 * (the second argument) of so many bytes (the first) to all of those, with one write each.
 */
const [size = '500', count = '32'] = process.argv.slice(2);
const line = `{"pad":"${'x'.repeat(Math.max(1, Number(size) - 11))}"}\n`;
const ready = Buffer.from(line.repeat(Number(count)));
const streams = new Set<ServerResponse>();
const server = createServer((request, response) => {
  if (request.method === 'GET') {
    response.writeHead(200, { 'Content-Type': 'application/x-ndjson' });
    response.write('{"type":"BOOKMARK"}\n');
    streams.add(response);
    response.once('close', () => streams.delete(response));
    return;
  }
  request.resume().once('end', () => {
    for (const stream of streams) stream.write(ready);
    response.end();
  });
});
server.listen(0, '127.0.0.1', () => {
  console.log(`ready: http://127.0.0.1:${(server.address() as AddressInfo).port}`);
});
process.once('SIGTERM', () => {
  server.close();
  server.closeAllConnections();
});
