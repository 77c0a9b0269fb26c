import { expect } from 'chai';
import { SpanKind } from '@opentelemetry/api';
import { FakeServer, type Answer } from '../client/testing/fake-server.js';
import { until } from '../test/until.js';
import { Exporter } from './exporter.js';
import { SpanSource } from './source.js';

describe('the export of spans', () => {
  let collector: FakeServer;
  let exporter: Exporter;
  let source: SpanSource;
  let log: string[];
  const take: Answer = (_, response) => void response.end('{}');
  const sent = () =>
    collector.seen.flatMap(({ body }) =>
      (body as { resourceSpans: { scopeSpans: { spans: { name: string }[] }[] }[] }).resourceSpans.flatMap(one =>
        one.scopeSpans.flatMap(({ spans }) => spans),
      ),
    );

  beforeEach(async () => {
    log = [];
    collector = await FakeServer.start(take);
    exporter = new Exporter({
      endpoint: `${collector.url}/base/`,
      headers: {},
      interval: 50,
      resource: { 'service.name': 'test' },
      log: (level, message, fields) => log.push(`${level}: ${message} ${JSON.stringify(fields)}`),
    });
    source = new SpanSource({ ratio: 1, ended: span => exporter.add(span) });
  });

  afterEach(async () => {
    await exporter.stop();
    await collector.stop();
  });

  it('sends what has ended, with parents and attributes of all sorts, and the rest at the stop', async () => {
    const parent = source.startSpan('parent', { kind: SpanKind.CLIENT });
    source.startActiveSpan('child', span => {
      span.setAttributes({ text: 'a', whole: 3, part: 0.5, yes: true, list: ['x', 'y'] });
      span.end();
      span.end();
    });
    parent.end();
    await exporter.stop();
    expect(sent().map(({ name }) => name)).to.deep.equal(['child', 'parent']);
    expect(collector.seen[0]?.url.pathname).to.equal('/base/v1/traces');
    expect(sent()[0]).to.deep.include({
      attributes: [
        { key: 'text', value: { stringValue: 'a' } },
        { key: 'whole', value: { intValue: '3' } },
        { key: 'part', value: { doubleValue: 0.5 } },
        { key: 'yes', value: { boolValue: true } },
        { key: 'list', value: { arrayValue: { values: [{ stringValue: 'x' }, { stringValue: 'y' }] } } },
      ],
    });
  });

  it('keeps spans while the collector is away, says so once, and drops what the collector refuses for good', async () => {
    collector.answer((_, response) => void response.writeHead(503).end());
    source.startSpan('kept').end();
    await until(() => collector.seen.length >= 2, { what: 'a second attempt' });
    collector.answer(take);
    await until(() => log.length === 2, { what: 'the end of the outage' });
    expect(log[0]).to.match(/^warn: the collector takes no spans.*status 503/);
    expect(log[1]).to.match(/^info: the collector takes spans again/);
    collector.answer((_, response) => void response.writeHead(400).end());
    source.startSpan('refused').end();
    await until(() => log.length === 3, { what: 'the refusal' });
    const attempts = collector.seen.length;
    collector.answer(take);
    source.startSpan('next').end();
    await until(() => log.length === 4, { what: 'the end' });
    expect(sent().at(-1)?.name).to.equal('next');
    expect(log[3]).to.include('"dropped":1');
    expect(collector.seen.length).to.equal(attempts + 1);
  });

  it('drops what does not fit while the collector hangs, and does not hold up a stop for more than 3 s', async () => {
    collector.answer(() => undefined);
    for (let i = 0; i < 10_100; i++) source.startSpan('many').end();
    await until(() => collector.seen.length === 1, { what: 'the first attempt' });
    const begun = performance.now();
    await Promise.all([exporter.stop(), exporter.stop()]);
    expect(performance.now() - begun).to.be.within(2_900, 6_000);
    expect(sent().length).to.equal(512);
    expect(log.at(-1)).to.match(/takes no spans.*no answer within 3 s/);
  });

  it('records a share of new traces, and of others what their parents say', () => {
    const none = new SpanSource({ ratio: 0, ended: () => expect.fail('recorded') });
    none.startSpan('new').end();
    expect(none.startSpan('new').isRecording()).to.equal(false);
  });
});
