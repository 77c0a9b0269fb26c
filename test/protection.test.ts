import { expect } from 'chai';
import { connect, type Socket } from 'node:net';
import { once } from 'node:events';
import { startApi, type TestApi } from './platform.js';
import { until } from './until.js';

/** Clients that are slow, greedy or broken, and what the others notice of them: nothing. */
describe('protection', function () {
  this.timeout(60_000);
  let api: TestApi;
  const sockets: Socket[] = [];
  before(async () => {
    // Few connections, so that one that a slow client held would be missed at once.
    api = await startApi({ poolSize: 3, timeouts: { headers: 400, body: 1_200, stalled: 1_000 } });
  });
  afterEach(() => {
    for (const socket of sockets.splice(0)) socket.destroy();
  });
  after(() => api.stop());

  /** A bare connection that sends a text and reads nothing. */
  async function open(text: string): Promise<Socket> {
    const socket = connect({ port: Number(new URL(api.url).port), host: '127.0.0.1' });
    sockets.push(socket);
    socket.on('error', () => undefined);
    await once(socket, 'connect');
    socket.pause();
    socket.write(text);
    return socket;
  }
  const request = (path: string) => `GET ${path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n`;
  /** What an ordinary client gets meanwhile, in milliseconds. */
  async function others(): Promise<number> {
    const begun = performance.now();
    const { status } = await api.call('POST', '/v1/secrets', { name: `o${Math.random().toString().slice(2)}` });
    expect(status).to.equal(201);
    expect((await api.call('GET', '/v1/clusters?limit=1')).status).to.equal(200);
    return performance.now() - begun;
  }

  it('ends connections whose headers or bodies do not come, and answers others meanwhile', async () => {
    const headers = await Promise.all(
      Array.from({ length: 50 }, () => open('POST /v1/clusters HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ')),
    );
    const bodies = await Promise.all(
      Array.from({ length: 50 }, () =>
        open(
          'POST /v1/clusters HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"name": ',
        ),
      ),
    );
    const all = [...headers, ...bodies];
    let closed = 0;
    for (const socket of all) socket.resume().on('close', () => closed++);
    expect(await others()).to.be.lessThan(1_000);
    await until(() => closed === all.length, { what: 'all to be closed' });
  });

  it('holds no database connection for lists and watches that are read by halves, and gives them up', async () => {
    await api.database.query({
      text: `insert into syncsets.objects (type, namespace, name, uid, version, labels, object)
        select 'syncsets', 'many', 'm' || n, gen_random_uuid(), 1, '{}', jsonb_build_object('type', 'syncsets', 'name', 'm' || n,
          'filling', repeat(md5(n::text), 60))
        from generate_series(1, 20000) n`,
    });
    // Their version is one that was given out: later pages show the state of the first one's.
    await api.database.query({ text: `update syncsets.types set version = 1 where type = 'syncsets'` });
    const before = process.memoryUsage().rss;
    const slow = await Promise.all([
      ...Array.from({ length: 20 }, () => open(request('/v1/syncsets'))),
      ...Array.from({ length: 20 }, () => open(request('/v1/syncsets?watch=true'))),
    ]);
    for (let i = 0; i < 5; i++) expect(await others()).to.be.lessThan(5_000);
    // 40 lists of 40 MB each are 1.6 GB; what is kept for each is a page.
    expect(process.memoryUsage().rss - before).to.be.lessThan(700 * 2 ** 20);
    const ended = () => api.log.filter(({ fields }) => fields['path'] === '/v1/syncsets').length;
    await until(() => ended() >= slow.length, { what: 'all to be given up', deadline: 20_000 });
  });

  it('answers 429 with Retry-After to writes when those before them wait longer than a second', async () => {
    const post = (name: string) => api.call('POST', '/v1/selectorsyncsets', { name, matchAll: true });
    let waiting: ReturnType<typeof post>[] = [];
    await api.database.transaction(async queries => {
      await queries.query({ text: `select from syncsets.types where type = 'selectorsyncsets' for update` });
      // Two statements are under way; what comes after them waits for a turn.
      for (let i = 0; i < 3; i++) {
        waiting.push(post(`w${i}`));
        await new Promise(resolve => setImmediate(resolve));
      }
      const refused = await until(
        async () => {
          const late = post(`late${performance.now().toFixed(0)}`);
          const answer = await Promise.race([
            late,
            new Promise<undefined>(resolve => setTimeout(() => resolve(undefined), 150)),
          ]);
          if (!answer) waiting.push(late);
          return answer;
        },
        { what: 'a write to be refused' },
      );
      expect([refused.status, refused.body.error.code, refused.headers.get('retry-after')]).to.deep.equal([
        429,
        'TooManyRequests',
        '1',
      ]);
    });
    const answers = await Promise.all(waiting);
    waiting = [];
    expect(answers.every(({ status }) => status === 201)).to.equal(true);
    expect((await post('after')).status).to.equal(201);
  });

  it('names the limit of what is too large, too many or too deep, and is quick about it', async () => {
    const deep = `${'{"a":'.repeat(70)}1${'}'.repeat(70)}`;
    const resource = (data: string) =>
      `{"name":"deep","clusterRefs":[],"resources":[{"apiVersion":"v1","kind":"A","metadata":{"name":"a"},"data":${data}}]}`;
    const abyss = `${'['.repeat(1_000_000)}${']'.repeat(1_000_000)}`;
    const labels = Object.fromEntries(Array.from({ length: 65 }, (_, i) => [`l${i}`, '']));
    const owner = { type: 'clusters', name: 'a' };
    const many = (count: number) => Array.from({ length: count }, (_, i) => `m${i}`);
    const map = (count: number) => Object.fromEntries(many(count).map(key => [key, 'x']));
    const cases: [string, string, unknown, number, RegExp][] = [
      ['65 labels', '/v1/clusters', { name: 'many', labels }, 422, /at most 64 labels/],
      ['70 levels', '/v1/syncsets', resource(deep), 422, /limit of 64 levels/],
      ['70 levels beside a long number', '/v1/syncsets', resource(`[${deep},12345678901234567890]`), 422, /64 levels/],
      ['a million levels', '/v1/syncsets', resource(abyss), 422, /64 levels/],
      [
        'a million levels and a long number',
        '/v1/syncsets',
        resource(`[${abyss},12345678901234567890]`),
        422,
        /64 levels/,
      ],
      ['a secret of 2 MB', '/v1/clusters', { name: 'fat', kubeconfig: 'x'.repeat(2_000_000) }, 413, /1500000/],
      ['a body of 4 MB', '/v1/clusters', { name: 'fat', context: 'x'.repeat(4_000_000) }, 413, /3145728/],
      ['200,000 finalizers', '/v1/clusters', { name: 'f', finalizers: many(200_000) }, 422, /at most 64 finalizers/],
      [
        '20,000 owners',
        '/v1/clusters',
        { name: 'o', owners: many(20_000).map(uid => ({ ...owner, uid })) },
        422,
        /at most 1000 owners/,
      ],
      ['200,000 annotations', '/v1/clusters', { name: 'a', annotations: map(200_000) }, 422, /262144 bytes/],
      ['20,000 secret values', '/v1/secrets', { name: 's', data: map(20_000) }, 422, /at most 1000 values/],
      [
        '120,000 clusters that do not exist',
        '/v1/syncsets',
        { name: 'c', clusterRefs: many(120_000) },
        422,
        /120000 fields/,
      ],
    ];
    for (const [what, path, body, status, message] of cases) {
      const begun = performance.now();
      const answer = await api.call('POST', path, body).catch((error: unknown) => error);
      // Whoever sends more than the limit may find the connection closed before all is sent.
      if (answer instanceof Error) expect(status, `${what}: ${answer.message}`).to.equal(413);
      else {
        const { status: got, body: said } = answer as Awaited<ReturnType<typeof api.call>>;
        expect(
          [got, message.test(JSON.stringify(said))],
          `${what}: ${JSON.stringify(said).slice(0, 300)}`,
        ).to.deep.equal([status, true]);
      }
      expect(performance.now() - begun, what).to.be.lessThan(10_000);
    }
    expect(await others()).to.be.lessThan(2_000);
  });
});
