import { once } from 'node:events';
import { createServer } from 'node:net';

/**
 * Below the ports that Linux gives to whoever asks for any (32768 and up), and a thousand for each process of the run (`TEST_PART`):
 * what is found free is taken by nobody else until it is listened on, nor while a program is stopped that is to come back on it.
 */
const range = { first: 20_000 + 1_000 * (Number(process.env['TEST_PART'] ?? 0) % 12), count: 1_000 };
let next = Math.floor(Math.random() * range.count);

/** A port of 127.0.0.1 that nobody listens on, and that no other call is given. */
export async function freePort(): Promise<number> {
  for (let tries = 0; tries < range.count; tries++) {
    const port = range.first + (next++ % range.count);
    const probe = createServer();
    probe.listen(port, '127.0.0.1');
    const free = await once(probe, 'listening').then(
      () => true,
      () => false,
    );
    if (!free) continue;
    await once(probe.close(), 'close');
    return port;
  }
  throw new Error(`no port from ${range.first} to ${range.first + range.count - 1} is free`);
}
