import { expect } from 'chai';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { startApi, type TestApi } from '../test/platform.js';
import type { BatchWrite } from './batch.js';
import { connect, type Client } from './connect.js';
import { ConnectionError, isPlatformError, PlatformError } from './errors.js';
import { failure, FakeServer, json } from './testing/fake-server.js';

describe('writes of the client', () => {
  let api: TestApi;
  let client: Client;
  const warnings: string[] = [];

  before(async () => {
    api = await startApi();
    const onWarning = (text: string, { method, path }: { method: string; path: string }) => {
      warnings.push(`${method} ${path}: ${text}`);
    };
    client = connect({ url: api.url, onWarning });
  });

  after(async () => {
    await client.close();
    await api.stop();
  });

  it('go together, each with an outcome of its own', async () => {
    const [made, set, missing] = await client.batch([
      { op: 'create', type: 'clusters', object: { name: 'b1', verifySeconds: 60 } },
      { op: 'upsert', type: 'selectorsyncsets', object: { name: 's1', matchAll: true } },
      { op: 'patch', type: 'clusters', name: 'none', patch: { labels: { a: 'b' } } },
    ]);
    expect(made.object?.verifySeconds).to.equal(60);
    expect(set).to.deep.include({ status: 201 });
    expect(missing.error).to.be.instanceOf(PlatformError).and.include({ code: 'NotFound', status: 404 });
    const [patched, gone] = await client.batch([
      {
        op: 'patch',
        type: 'clusters',
        name: 'b1',
        patchType: 'json',
        patch: [{ op: 'add', path: '/labels', value: { x: 'y' } }],
      },
      { op: 'delete', type: 'selectorsyncsets', name: 's1' },
    ]);
    expect(patched.object?.labels).to.deep.equal({ x: 'y' });
    expect(gone.object?.matchAll).to.equal(true);
  });

  it('are all done or none of them, if that is asked for', async () => {
    const error: unknown = await client
      .batch(
        [
          { op: 'create', type: 'clusters', object: { name: 'all' } },
          { op: 'delete', type: 'clusters', name: 'nobody' },
        ],
        { atomic: true },
      )
      .catch((thrown: unknown) => thrown);
    expect(isPlatformError(error, 'NotFound') && error.details[0]?.path).to.equal('operations[1]');
    expect((await client.clusters.list({ fieldSelector: 'name=all' })).items).to.deep.equal([]);
  });

  it('are only tried when asked, together and in a stream', async () => {
    const writes: BatchWrite[] = [{ op: 'create', type: 'clusters', object: { name: 'tried' } }];
    const [tried] = await client.batch(writes, { dryRun: true });
    expect(tried?.object?.uid).to.be.a('string');
    for await (const { status } of client.with({ dryRun: true }).load(writes)) expect(status).to.equal(201);
    expect((await client.clusters.list({ fieldSelector: 'name=tried' })).items).to.deep.equal([]);
  });

  it('are done once under one key, as often as they are sent', async () => {
    const writes = [{ op: 'create', type: 'clusters', object: { generateName: 'once-' } }] as const;
    const [first] = await client.batch(writes, { idempotencyKey: 'batch-1' });
    const [second] = await client.batch(writes, { idempotencyKey: 'batch-1' });
    expect(second.object?.name)
      .to.equal(first.object?.name)
      .and.match(/^once-/);
    const one = await client.clusters.create({ generateName: 'key-' }, { idempotencyKey: 'create-1' });
    const two = await client.clusters.create({ generateName: 'key-' }, { idempotencyKey: 'create-1' });
    expect(two.uid).to.equal(one.uid);
  });

  it('stream in while their outcomes stream out, and again under the same key', async () => {
    function* many(): Generator<BatchWrite> {
      for (let i = 0; i < 1_200; i++)
        yield { op: 'create', type: 'clusters', object: { name: `l${i}`, namespace: 'load' } };
      yield { op: 'delete', type: 'clusters', namespace: 'load', name: 'nobody' };
    }
    const codes = async () => {
      const seen: (string | number)[] = [];
      for await (const { index, status, error } of client.load(many(), { idempotencyKey: 'load-1' })) {
        expect(index).to.equal(seen.length);
        seen.push(error?.code ?? status);
      }
      return seen;
    };
    const first = await codes();
    expect(first).to.have.length(1_201);
    expect(new Set(first)).to.deep.equal(new Set([201, 'NotFound']));
    expect(await codes()).to.deep.equal(first);
    const { items, remainingItemCount } = await client.clusters.list({ namespace: 'load', limit: 1 });
    expect(items).to.have.length(1);
    expect(remainingItemCount ?? 1_199).to.equal(1_199);
  });

  it('end with the error of whoever makes the operations of a stream', async () => {
    async function* broken(): AsyncGenerator<BatchWrite> {
      yield { op: 'upsert', type: 'clusters', object: { name: 'broken' } };
      await new Promise(resolve => setImmediate(resolve));
      throw new Error('no more');
    }
    const read = async () => {
      for await (const { index } of client.load(broken())) {
        expect(index).to.equal(0);
      }
    };
    const error: unknown = await read().catch((thrown: unknown) => thrown);
    expect(error).to.be.instanceOf(Error).and.include({ message: 'no more' });
  });

  it('are waited for in a stream, also the first one', async () => {
    let answered = (): void => undefined;
    const answer = new Promise<void>(resolve => (answered = resolve));
    const patient = connect({ url: api.url, timeoutSeconds: 5, onAnswer: () => answered() });
    async function* late(): AsyncGenerator<BatchWrite> {
      await answer;
      yield { op: 'create', type: 'clusters', object: { name: 'late' } };
    }
    const outcomes = [];
    for await (const { status } of patient.load(late())) outcomes.push(status);
    expect(outcomes).to.deep.equal([201]);
    await patient.close();
  });

  it('tell of warnings', async () => {
    await client.clusters.create({ name: 'warned', kubeconfig: 'not: a kubeconfig' });
    expect(warnings.join()).to.match(/^POST \/v1\/clusters: kubeconfig: /);
  });

  it('are answered without the object if nobody looks at it', async () => {
    await client.clusters.minimal().create({ name: 'quiet' });
    await client.clusters.minimal().patch({ name: 'quiet' }, { labels: { a: 'b' } });
    const read = await client.clusters.read({ name: 'quiet' });
    expect(read.labels).to.deep.equal({ a: 'b' });
    expect(await client.clusters.readIfChanged(read)).to.equal(undefined);
    await client.clusters.minimal().patch(read, { labels: { a: 'c' } });
    expect((await client.clusters.readIfChanged(read))?.labels).to.deep.equal({ a: 'c' });
  });

  it('are repeated after 429 and 503 when the server says so, under one key', async () => {
    let asked = 0;
    const server = await FakeServer.start((_, response) => {
      asked++;
      if (asked > 2) json(response, 201, { name: 'c', uid: 'u', resourceVersion: '1' });
      else {
        response.setHeader('retry-after', '0');
        failure(response, asked === 1 ? 429 : 503, asked === 1 ? 'TooManyRequests' : 'Unavailable');
      }
    });
    const other = connect({ url: server.url });
    await other.clusters.create({ name: 'c' });
    await other.close();
    await server.stop();
    const keys = server.seen.map(({ headers }) => headers['idempotency-key']);
    expect(keys).to.have.length(3);
    expect(new Set(keys).size).to.equal(1);
    expect(keys[0]).to.match(/^[0-9a-f-]{36}$/);
  });
});

describe('a stream of writes', () => {
  it('ends with a ConnectionError when the connection breaks, however much is still to be sent', async () => {
    let reset = (): unknown => undefined;
    const server = http.createServer((request, response) => {
      reset = () => request.socket.resetAndDestroy();
      request.once('data', () => {
        // Reads no more, so that the stream is in the middle of a line.
        request.pause();
        const error = { code: 'Invalid', message: 'No' };
        response.write(`${JSON.stringify({ index: 0, status: 422, error })}\n`);
      });
    });
    await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo;
    const client = connect({ url: `http://127.0.0.1:${port}` });
    function* endless(): Generator<BatchWrite> {
      for (;;) yield { op: 'upsert', type: 'clusters', object: { name: 'again' } };
    }
    const indexes: number[] = [];
    const read = async () => {
      for await (const { index } of client.load(endless())) {
        indexes.push(index);
        reset();
      }
    };
    const error: unknown = await read().catch((thrown: unknown) => thrown);
    expect(indexes).to.deep.equal([0]);
    expect(error).to.be.instanceOf(ConnectionError).and.include({ sent: true });
    await client.close();
    await new Promise(resolve => server.close(resolve));
  });
});
