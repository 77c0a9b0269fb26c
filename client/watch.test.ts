import { expect } from 'chai';
import type http from 'node:http';
import { until } from '../test/until.js';
import { connect, type Client } from './connect.js';
import { isPlatformError } from './errors.js';
import { linesOf } from './lines.js';
import { failure, FakeServer, type Seen } from './testing/fake-server.js';
import { watch, type WatchOptions } from './watch.js';

describe('watch', () => {
  let server: FakeServer;
  let client: Client;
  let stop: AbortController;
  let told: string[];
  // What each connection gets, in order; a function may do more than write lines.
  let connections: ((response: http.ServerResponse, seen: Seen) => unknown)[];

  const object = (name: string, version: number) => ({
    type: 'clusters',
    namespace: 'foo',
    name,
    uid: `uid-${name}`,
    resourceVersion: String(version),
  });
  const line = (type: string, name: string, version: number) =>
    `${JSON.stringify({ type, resourceVersion: String(version), previousResourceVersion: String(version - 1), object: object(name, version) })}\n`;
  const bookmark = (version: number, more: object = {}) =>
    `${JSON.stringify({ type: 'BOOKMARK', resourceVersion: String(version), ...more })}\n`;
  const sends =
    (...lines: string[]) =>
    (response: http.ServerResponse) => {
      for (const one of lines) response.write(one);
    };
  const follow = async (options: WatchOptions = {}, clusters = client.clusters) => {
    for await (const event of watch(clusters, { signal: stop.signal, ...options })) {
      told.push(`${event.type} ${event.object.name} ${event.resourceVersion}`);
    }
  };
  const asked = () => server.seen.map(seen => seen.url.searchParams.get('resourceVersion'));

  beforeEach(async () => {
    told = [];
    stop = new AbortController();
    connections = [];
    server = await FakeServer.start((seen, response) => {
      const next = connections.shift();
      if (next) next(response, seen);
      else response.flushHeaders();
    });
    client = connect({ url: server.url });
  });

  afterEach(async () => {
    stop.abort();
    await client.close();
    await server.stop();
  });

  it('tells the objects of now, then changes, and ends quietly when it is told to', async () => {
    const bookmarks: string[] = [];
    connections = [
      sends(line('ADDED', 'a', 3), bookmark(5, { initialEventsEnd: true }), line('MODIFIED', 'a', 6), bookmark(8)),
    ];
    const following = follow({
      namespace: 'foo',
      labelSelector: 'env=prod',
      onBookmark: ({ resourceVersion, initialEventsEnd = false }) =>
        bookmarks.push(`${resourceVersion} ${initialEventsEnd}`),
    });
    await until(() => bookmarks.length === 2, { what: 'both bookmarks' });
    expect(told).to.deep.equal(['ADDED a 3', 'MODIFIED a 6']);
    expect(bookmarks).to.deep.equal(['5 true', '8 false']);
    expect(Object.fromEntries(server.seen[0]?.url.searchParams ?? [])).to.deep.equal({
      watch: 'true',
      namespace: 'foo',
      labelSelector: 'env=prod',
    });
    stop.abort();
    await following;
  });

  it('resumes after a lost connection from the last version or bookmark, and drops what it has seen', async () => {
    const interruptions: unknown[] = [];
    connections = [
      response => {
        sends(line('ADDED', 'a', 3), bookmark(5, { initialEventsEnd: true }), line('MODIFIED', 'a', 6))(response);
        setImmediate(() => response.destroy());
      },
      response => response.destroy(),
      response => failure(response, 503, 'Unavailable', { 'retry-after': '0' }),
      response => {
        sends(line('MODIFIED', 'a', 6), line('MODIFIED', 'a', 7), bookmark(30))(response);
        response.end();
      },
      sends(line('DELETED', 'a', 31)),
    ];
    const following = follow({ onInterruption: error => interruptions.push(error) });
    await until(() => told.length === 4, { what: 'the deletion' });
    expect(told).to.deep.equal(['ADDED a 3', 'MODIFIED a 6', 'MODIFIED a 7', 'DELETED a 31']);
    expect(asked()).to.deep.equal([null, '6', '6', '6', '30']);
    expect(interruptions).to.have.length(4);
    stop.abort();
    await following;
  });

  it('ends at once when its client is closed while the server is to be left alone', async () => {
    connections = [response => failure(response, 503, 'Unavailable', { 'retry-after': '20' })];
    const since = performance.now();
    const interruptions: unknown[] = [];
    const ended = follow({ onInterruption: error => interruptions.push(error) }).catch((error: unknown) => error);
    await until(() => interruptions.length === 1, { what: 'the refusal' });
    await client.close();
    expect(await ended).to.include({ message: 'The client is closed' });
    expect(performance.now() - since).to.be.lessThan(15_000);
  });

  it('ends with the reason of the signal that all calls of its client have, and quietly by its own', async () => {
    const reason = new Error('the claim is lost');
    for (const own of [false, true]) {
      const lost = new AbortController();
      connections = [sends(line('ADDED', 'a', 3), bookmark(5, { initialEventsEnd: true }))];
      told = [];
      let ended: unknown;
      const { clusters } = client.with({ signal: lost.signal });
      follow({}, clusters).then(
        () => (ended = 'quietly'),
        (thrown: unknown) => (ended = thrown),
      );
      await until(() => told.length === 1, { what: 'the object' });
      if (own) stop.abort();
      else lost.abort(reason);
      expect(await until(() => ended, { what: 'the end' })).to.equal(own ? 'quietly' : reason);
    }
  });

  it('lists anew when the server has forgotten the version, and tells only what differs', async () => {
    connections = [
      response => {
        sends(line('ADDED', 'a', 3), line('ADDED', 'b', 4), bookmark(5, { initialEventsEnd: true }))(response);
        response.end();
      },
      response => failure(response, 410, 'Expired'),
      sends(
        line('ADDED', 'b', 4),
        line('ADDED', 'c', 90),
        bookmark(95, { initialEventsEnd: true }),
        line('MODIFIED', 'c', 96),
      ),
    ];
    const following = follow();
    await until(() => told.includes('MODIFIED c 96'), { what: 'the change after the new list' });
    expect(told).to.deep.equal(['ADDED a 3', 'ADDED b 4', 'ADDED c 90', 'DELETED a 95', 'MODIFIED c 96']);
    expect(asked()).to.deep.equal([null, '5', null]);
    stop.abort();
    await following;
  });

  it('lists anew when the stream itself ends with Expired', async () => {
    const error = { code: 'Expired', status: 410, message: 'Too slow' };
    connections = [
      sends(
        line('ADDED', 'a', 3),
        bookmark(5, { initialEventsEnd: true }),
        `${JSON.stringify({ type: 'ERROR', error })}\n`,
      ),
      sends(line('ADDED', 'a', 8), bookmark(9, { initialEventsEnd: true })),
    ];
    const following = follow();
    await until(() => told.length === 2, { what: 'the changed object' });
    expect(told).to.deep.equal(['ADDED a 3', 'MODIFIED a 8']);
    stop.abort();
    await following;
  });

  it('throws Expired to a consumer that came with a version of its own', async () => {
    connections = [response => failure(response, 410, 'Expired')];
    const error: unknown = await follow({ since: '7' }).then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
    expect(isPlatformError(error, 'Expired')).to.equal(true);
    expect(asked()).to.deep.equal(['7']);
  });

  it('throws when asking again would change nothing', async () => {
    connections = [response => failure(response, 400, 'InvalidQuery')];
    const error: unknown = await follow().then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
    expect(isPlatformError(error, 'InvalidQuery')).to.equal(true);
  });

  it('goes on after a proxy answered with a page of its own', async () => {
    connections = [
      response => response.end('<html>maintenance</html>\n'),
      sends(line('ADDED', 'a', 3), bookmark(5, { initialEventsEnd: true })),
    ];
    const following = follow();
    await until(() => told.length === 1, { what: 'the object' });
    stop.abort();
    await following;
  });

  it('reads lines that come in pieces, also in the middle of a character', async () => {
    const text = Buffer.from(`${'x'.repeat(200_000)}ä\n\nβ\n`);
    const cut = text.indexOf('ä') + 1;
    let read: () => number | undefined = () => undefined;
    // Each piece is sent when the ones before have arrived, so that they are apart on the wire.
    connections = [
      async response => {
        const arrival = () => until(() => read() === response.socket?.bytesWritten, { what: 'a piece' });
        response.write(text.subarray(0, 10));
        await arrival();
        response.write(text.subarray(10, cut));
        await arrival();
        response.end(text.subarray(cut));
      },
    ];
    const body = await client.clusters.transport.open({ method: 'GET', path: '/v1/clusters' });
    read = () => body.socket.bytesRead;
    const received: string[] = [];
    for await (const one of linesOf(body, 10_000)) received.push(one);
    expect(received).to.deep.equal([`${'x'.repeat(200_000)}ä`, 'β']);
  });

  it('takes a silent stream for dead, but not a slow consumer', async () => {
    const body = (...lines: string[]) => {
      connections = [sends(...lines)];
      return client.clusters.transport.open({ method: 'GET', path: '/v1/clusters' });
    };
    const outcome = async (stream: http.IncomingMessage, consume: (line: string) => unknown) => {
      try {
        for await (const one of linesOf(stream, 50)) await consume(one);
      } catch (error) {
        return error;
      }
      return 'ended';
    };
    const slow = await body('1\n', '2\n');
    const received: string[] = [];
    const error = await outcome(slow, async one => {
      received.push(one);
      // As long as another stream takes to be taken for dead, which is silent from now on.
      const silent = await body('first\n');
      expect(await outcome(silent, () => undefined)).to.include({ code: 'Silent' });
    });
    expect(received).to.deep.equal(['1', '2']);
    expect(error).to.include({ code: 'Silent' });
  });
});
