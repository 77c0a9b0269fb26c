import { expect } from 'chai';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { call, spawnPlatform, type TestProcess } from './platform.js';
import { createDatabase, type TestDatabase } from './postgres.js';
import { until } from './until.js';

interface Span {
  traceId: string;
  spanId: string;
  parentSpanId?: string;
  name: string;
  kind: number;
  startTimeUnixNano: string;
  endTimeUnixNano: string;
  attributes: { key: string; value: { stringValue?: string; intValue?: string } }[];
  service: string;
}

/** A collector of OpenTelemetry, as far as it takes spans over HTTP in JSON. */
async function startCollector() {
  const spans: Span[] = [];
  const tokens = new Set<unknown>();
  const server = http.createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      tokens.add(request.headers['x-token']);
      const body = JSON.parse(Buffer.concat(chunks).toString());
      for (const { resource, scopeSpans } of body.resourceSpans) {
        const service = resource.attributes.find((one: { key: string }) => one.key === 'service.name').value
          .stringValue;
        for (const { spans: some } of scopeSpans) for (const span of some) spans.push({ ...span, service });
      }
      response.end('{}');
    });
  });
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  return { spans, tokens, server, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` };
}

describe('a trace through two processes', () => {
  let database: TestDatabase;
  let collector: Awaited<ReturnType<typeof startCollector>>;
  const processes: TestProcess[] = [];

  before(async function () {
    this.timeout(120_000);
    [database, collector] = await Promise.all([createDatabase(), startCollector()]);
    const env = { OTEL_EXPORTER_OTLP_ENDPOINT: collector.url, OTEL_EXPORTER_OTLP_HEADERS: 'x-token=a%20b' };
    const api = await spawnPlatform('api', { ...env, DATABASE_URL: database.url });
    processes.push(api);
    processes.push(await spawnPlatform('controllers', { ...env, API_URL: api.url }));
  });

  after(async () => {
    for (const one of processes.reverse()) await one.end('SIGTERM');
    collector.server.closeAllConnections();
    collector.server.close();
    await database.drop();
  });

  it('leads from the request of a client over its event and the claim to the reconcile, and to what that writes', async () => {
    const [{ url } = expect.fail('no API')] = processes;
    const traceId = '0af7651916cd43dd8448eb211c80319c';
    const kubeconfig = 'not a kubeconfig';
    const headers = { traceparent: `00-${traceId}-b7ad6b7169203331-01` };
    const created = await call(
      url,
      'POST',
      '/v1/clusters',
      { name: 'traced', namespace: 'trace', kubeconfig },
      headers,
    );
    expect(created.status, JSON.stringify(created.body)).to.equal(201);
    const untraced = await call(url, 'POST', '/v1/clusters', { name: 'other', namespace: 'trace' });
    expect(untraced.status).to.equal(201);

    const ours = (name: string) => collector.spans.find(span => span.traceId === traceId && span.name.startsWith(name));
    const post = await until(() => ours('POST '), { what: 'the span of the request', deadline: 20_000 });
    expect(post).to.include({
      name: 'POST /v1/clusters',
      parentSpanId: 'b7ad6b7169203331',
      kind: 2,
      service: 'syncsets-api',
    });
    expect(BigInt(post.endTimeUnixNano) > BigInt(post.startTimeUnixNano)).to.equal(true);
    const reconcile = await until(() => ours('reconcile clusterhealth'), {
      what: 'the span of the reconcile',
      deadline: 20_000,
    });
    expect(reconcile).to.include({ parentSpanId: post.spanId, kind: 5, service: 'syncsets-controllers' });
    const attributes = new Map(reconcile.attributes.map(({ key, value }) => [key, value.stringValue]));
    expect(Object.fromEntries(attributes)).to.include({ 'syncsets.name': 'traced', 'syncsets.reason': 'added' });
    const status = await until(() => ours('PATCH '), { what: 'the span of the write of the status', deadline: 20_000 });
    expect(status).to.include({ parentSpanId: reconcile.spanId, service: 'syncsets-api' });
    // A request without a trace begins one of its own.
    const other = await until(
      () => collector.spans.find(span => span.name === 'POST /v1/clusters' && span.traceId !== traceId),
      { what: 'the other request', deadline: 20_000 },
    );
    expect(other).to.not.have.property('parentSpanId');
    expect([...collector.tokens]).to.deep.equal(['a b']);
    // Workers ask every second, without end; that is nobody's trace.
    expect(collector.spans.filter(span => span.name.includes('claims'))).to.deep.equal([]);
  });
});
