import { expect } from 'chai';
import { createInterface } from 'node:readline';
import { Readable } from 'node:stream';
import { startApi, type TestApi } from '../test/platform.js';
import { until } from '../test/until.js';

interface Line {
  type: string;
  resourceVersion: string;
  previousResourceVersion?: string;
  initialEventsEnd?: boolean;
  object?: { name: string; labels?: Record<string, string>; status?: unknown; resourceVersion: string };
  error?: { code: string };
}

describe('a watch', () => {
  let api: TestApi;
  let replica: TestApi;
  let serial = 0;
  const open: AbortController[] = [];
  before(async () => {
    api = await startApi();
    replica = await startApi({ databaseUrl: api.databaseUrl });
  });
  afterEach(() => open.splice(0).forEach(one => one.abort()));
  after(async () => {
    await replica.stop();
    await api.stop();
  });

  async function watch(query: string, options: { headers?: Record<string, string>; of?: TestApi } = {}) {
    const abort = new AbortController();
    open.push(abort);
    const response = await fetch(`${(options.of ?? api).url}/v1/clusters?watch=true&${query}`, {
      signal: abort.signal,
      ...(options.headers ? { headers: options.headers } : {}),
    });
    const raw: string[] = [];
    const lines: Line[] = [];
    if (response.body && response.status === 200) {
      const reader = createInterface({ input: Readable.fromWeb(response.body as never) });
      reader.on('line', line => {
        raw.push(line);
        const text = line.startsWith('data: ') ? line.slice(6) : line;
        if (text.startsWith('{')) lines.push(JSON.parse(text) as Line);
      });
      reader.on('error', () => undefined);
      Readable.prototype.on.call(reader, 'error', () => undefined);
    }
    return { response, raw, lines, events: () => lines.filter(line => line.type !== 'BOOKMARK'), abort };
  }

  async function create(labels: Record<string, string> = {}, namespace = 'w') {
    const { body } = await api.call('POST', '/v1/clusters', { name: `w${++serial}`, namespace, labels });
    return body as { name: string; namespace: string; resourceVersion: string };
  }
  const change = (object: { name: string; namespace: string }, patch: unknown) =>
    api.call('PATCH', `/v1/clusters/${object.namespace}/${object.name}`, patch);

  it('sends the current objects, then a bookmark that says so, then every change', async () => {
    const object = await create({}, 'initial');
    const { lines, events } = await watch('namespace=initial');
    await until(() => lines.some(line => line.initialEventsEnd), { what: 'the end of the initial events' });
    expect(lines.slice(0, 2).map(line => line.type)).to.deep.equal(['ADDED', 'BOOKMARK']);
    await change(object, { labels: { a: 'b' } });
    await api.call('DELETE', `/v1/clusters/initial/${object.name}`);
    // Bookmarks may come at any time.
    await until(() => events().length === 3, { what: 'two changes' });
    const [, changed, deleted] = events();
    expect([changed?.type, deleted?.type]).to.deep.equal(['MODIFIED', 'DELETED']);
    expect(Number(deleted?.resourceVersion)).to.be.greaterThan(Number(changed?.resourceVersion));
    expect(deleted?.object?.resourceVersion).to.equal(deleted?.resourceVersion);
  });

  it('sends every event after a version once and in order, on each replica, linked by their previous versions', async () => {
    const { resourceVersion } = await create();
    const watches = await Promise.all([
      watch(`resourceVersion=${resourceVersion}`),
      watch(`resourceVersion=${resourceVersion}`, { of: replica }),
    ]);
    const made = await Promise.all(Array.from({ length: 50 }, () => create()));
    await Promise.all(made.map(object => change(object, { labels: { a: 'b' } })));
    for (const { events } of watches) {
      await until(() => events().length >= 100, { what: '100 events' });
      const seen = events();
      expect(seen).to.have.length(100);
      seen.forEach((event, i) => {
        expect(event.previousResourceVersion).to.equal(i === 0 ? resourceVersion : seen[i - 1]?.resourceVersion);
      });
    }
  });

  it('shows an object that starts to match as ADDED and one that stops matching as DELETED with its previous state', async () => {
    const object = await create({ tier: 'gold' });
    const { events } = await watch(`labelSelector=tier=silver&resourceVersion=${object.resourceVersion}`);
    await change(object, { labels: { tier: 'silver' } });
    await change(object, { annotations: { note: 'still' } });
    const left = await change(object, { labels: { tier: 'gold' } });
    await change(object, { annotations: { note: 'unseen' } });
    await until(() => events().length === 3, { what: 'three transitions' });
    expect(events().map(event => event.type)).to.deep.equal(['ADDED', 'MODIFIED', 'DELETED']);
    expect(events()[2]?.object?.labels).to.deep.equal({ tier: 'silver' });
    expect(events()[2]?.resourceVersion).to.equal(left.body.resourceVersion);
  });

  it('selects by fields, status included', async () => {
    const object = await create();
    const { events } = await watch(
      `fieldSelector=status.serverVersion~v1.34&resourceVersion=${object.resourceVersion}`,
    );
    await api.call('PUT', `/v1/clusters/w/${object.name}/status`, { status: { serverVersion: 'v1.33.0' } });
    await api.call('PUT', `/v1/clusters/w/${object.name}/status`, { status: { serverVersion: 'v1.34.4' } });
    await until(() => events().length === 1, { what: 'the match' });
    expect(events()[0]).to.include({ type: 'ADDED' });
  });

  it('speaks server-sent events and resumes after Last-Event-ID', async () => {
    const object = await create();
    const headers = { Accept: 'text/event-stream', 'Last-Event-ID': object.resourceVersion };
    const { raw, lines, response } = await watch('', { headers });
    expect(response.headers.get('content-type')).to.include('text/event-stream');
    const { body } = await change(object, { labels: { a: 'b' } });
    await until(() => lines.length === 1, { what: 'the event' });
    expect(raw[0]).to.equal(`id: ${body.resourceVersion}`);
    expect(lines[0]?.object?.name).to.equal(object.name);
  });

  it('answers 410 to a version that the log no longer reaches, and to one that was never given', async () => {
    const { resourceVersion } = await create();
    await api.database.query({ text: `update syncsets.types set log_start = 3 where type = 'clusters'` });
    expect((await watch('resourceVersion=2')).response.status).to.equal(410);
    expect((await watch(`resourceVersion=${Number(resourceVersion) + 1000}`)).response.status).to.equal(410);
    await api.database.query({ text: `update syncsets.types set log_start = 0 where type = 'clusters'` });
  });

  it('tells a client without events how far it has come, every ten seconds at the latest', async () => {
    const { resourceVersion } = await create();
    const { lines } = await watch(`namespace=silent&resourceVersion=${resourceVersion}`);
    const told = await until(() => lines[0], { what: 'a bookmark', deadline: 12_000 });
    expect(told).to.deep.equal({ type: 'BOOKMARK', resourceVersion });
  });

  it('reads the log once for a batch of events, however many watch and whatever they select', async () => {
    const { resourceVersion } = await create();
    const selections = ['', 'namespace=w&', 'labelSelector=many=yes&', 'fieldSelector=status.serverVersion!=v0&'];
    const watches = await Promise.all(
      Array.from({ length: 200 }, (_, i) => {
        const accept = i % 2 ? 'text/event-stream' : 'application/json';
        const query = `${selections[i % 4] ?? ''}resourceVersion=${resourceVersion}`;
        return watch(query, { of: replica, headers: { Accept: accept } });
      }),
    );
    const { database } = replica;
    const query = database.query.bind(database);
    let reads = 0;
    database.query = statement => {
      if (statement.name === 'read-events') reads++;
      return query(statement);
    };
    try {
      for (let i = 0; i < 10; i++) await create({ many: 'yes' });
      for (const { events } of watches) {
        await until(() => events().length === 10, { what: 'ten events on each' });
        expect(events().map(({ type }) => type)).to.deep.equal(Array(10).fill('ADDED'));
      }
    } finally {
      database.query = query;
    }
    // Each of the ten, the look behind the last one, and one a second for each of the types.
    expect(reads).to.be.below(60);
  });

  it('ends with Expired in the stream when the database went back to an older state', async () => {
    const restored = await startApi();
    try {
      const { body } = await restored.call('POST', '/v1/clusters', { name: 'c' });
      const { lines, response } = await watch(`resourceVersion=${body.resourceVersion}`, { of: restored });
      expect(response.status).to.equal(200);
      await restored.database.query({ text: `update syncsets.types set version = 0 where type = 'clusters'` });
      const end = await until(() => lines.find(({ type }) => type === 'ERROR'), { what: 'the last line' });
      expect(end.error).to.include({ code: 'Expired', status: 410 });
    } finally {
      await restored.stop();
    }
  });

  it('goes on where a client was on another replica, although this one has yet to hear of it', async () => {
    const made = await Promise.all(Array.from({ length: 20 }, () => create()));
    for (const { resourceVersion } of made.slice(0, 5)) {
      const { events } = await watch(`resourceVersion=${resourceVersion}`, { of: replica });
      const { body } = await api.call('POST', '/v1/clusters', { name: `w${++serial}`, namespace: 'w' });
      await until(() => events().some(one => one.resourceVersion === body.resourceVersion), { what: 'the newest' });
      // Without the bookmarks that a slow machine gets in between.
      const versions = events().map(one => Number(one.resourceVersion));
      expect(versions[0]).to.equal(Number(resourceVersion) + 1);
      expect(versions).to.deep.equal(versions.map((_, i) => (versions[0] ?? 0) + i));
    }
  });

  it('tells a client that catches up how far it has come, where nothing of a long stretch is for it', async () => {
    const { resourceVersion } = await create();
    for (const count of [500, 200]) {
      const operations = Array.from({ length: count }, () => ({
        op: 'create',
        type: 'clusters',
        object: { name: `w${++serial}`, namespace: 'w' },
      }));
      expect((await api.call('POST', '/v1/batch', { operations })).status).to.equal(200);
    }
    const { lines } = await watch(`resourceVersion=${resourceVersion}&labelSelector=none=such`);
    await until(() => lines.length > 0, { what: 'a bookmark', deadline: 20_000 });
    expect(lines[0]?.type).to.equal('BOOKMARK');
    expect(Number(lines[0]?.resourceVersion)).to.equal(Number(resourceVersion) + 500);
  });

  it('closes a reader that stands still, and serves the others meanwhile', async function () {
    this.timeout(180_000);
    const { resourceVersion } = await create();
    // fetch reads ahead only to its buffer: without a reader of the body the socket fills up.
    const stalled = await fetch(`${api.url}/v1/clusters?watch=true&resourceVersion=${resourceVersion}`);
    const { events } = await watch(`resourceVersion=${resourceVersion}`);
    const annotations = { pad: 'x'.repeat(200_000) };
    await until(
      async () => {
        await Promise.all(
          Array.from({ length: 10 }, () =>
            api.call('POST', '/v1/clusters', { name: `w${++serial}`, namespace: 'w', annotations }),
          ),
        );
        return events().length >= 160;
      },
      { what: 'more than its buffer takes', deadline: 120_000 },
    );
    await until(async () => /^apiserver_watchers 1$/m.test((await api.call('GET', '/metrics')).body as string), {
      what: 'the stalled one to be closed',
      deadline: 30_000,
    });
    await stalled.body?.cancel().catch(() => undefined);
  });
});
