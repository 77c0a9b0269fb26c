import { expect } from 'chai';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import pg from 'pg';
import { Connection, type Consumer } from 'rabbitmq-client';
import { call, spawnPlatform, type Answer, type TestProcess } from './platform.js';
import { createDatabase, type TestDatabase } from './postgres.js';
import { sharedRabbit } from './rabbitmq.js';
import { until } from './until.js';

/** Everything that was seen of a place, as one text for each piece. */
type Seen = { place: string; text: string };

/**
 * Values that nobody may ever see again are sent in by every way there is, and then looked for in everything that leaves the
 * platform or stays in it.
 */
describe('secret values', function () {
  this.timeout(60_000);
  let database: TestDatabase;
  let platform: TestProcess;
  let broker: Connection;
  let sql: pg.Client;
  const canaries: string[] = [];
  const seen: Seen[] = [];
  const messages: Seen[] = [];
  const streams = new AbortController();
  const ended: Promise<unknown>[] = [];
  const consumers: Consumer[] = [];

  /** A new value, which looks like nothing else and survives JSON, URLs and header lines as it is. */
  const canary = () => {
    const value = `canary${randomBytes(12).toString('hex')}`;
    canaries.push(value);
    return value;
  };
  const send = async (method: string, path: string, body?: unknown, headers?: Record<string, string>) => {
    const answer: Answer = await call(platform.url, method, path, body, headers);
    const text = JSON.stringify([answer.body, [...answer.headers]]);
    seen.push({ place: `the answer to ${method} ${path}`, text });
    return answer;
  };

  before(async () => {
    database = await createDatabase();
    const { url } = await sharedRabbit();
    platform = await spawnPlatform('run', { DATABASE_URL: database.url, AMQP_URL: url, LOG_LEVEL: 'debug' });
    sql = new pg.Client({ connectionString: database.url });
    await sql.connect();
    broker = new Connection(url);
    await send('PUT', '/v1/controllers/canaries', { type: '*', on: ['spec', 'metadata', 'status', 'deletion'] });
    for (const type of ['clusters', 'secrets']) {
      const exchange = `syncsets.events.${type}`;
      const consumer = broker.createConsumer(
        {
          exchanges: [{ exchange, type: 'fanout', durable: true }],
          queueOptions: { exclusive: true },
          queueBindings: [{ exchange, routingKey: '' }],
        },
        message => {
          messages.push({ place: `an event of ${type}`, text: JSON.stringify(message) });
        },
      );
      consumers.push(consumer);
      await once(consumer, 'ready');
      for (const accept of ['application/json', 'text/event-stream']) {
        const response = await fetch(`${platform.url}/v1/${type}?watch=true`, {
          headers: { Accept: accept },
          signal: streams.signal,
        });
        ended.push(
          (async () => {
            const decoder = new TextDecoder();
            for await (const chunk of response.body ?? []) {
              seen.push({ place: `a watch of ${type}`, text: decoder.decode(chunk as Uint8Array) });
            }
          })().catch(() => undefined),
        );
      }
    }
  });

  after(async () => {
    streams.abort();
    await Promise.all(ended);
    await Promise.all(consumers.map(consumer => consumer.close()));
    await broker.close();
    await sql.end();
    await platform.end('SIGTERM');
    await database.drop();
  });

  it('are sent in by every way that there is', async () => {
    const statuses: number[] = [];
    const say = async (...call: Parameters<typeof send>) => {
      const { status } = await send(...call);
      statuses.push(status);
      return status;
    };
    const cluster = '/v1/clusters/default/c1';
    const secret = '/v1/secrets/default/s1';
    const merge = { 'Content-Type': 'application/merge-patch+json' };
    // What is stored.
    expect(await say('POST', '/v1/clusters', { name: 'c1', kubeconfig: canary() })).to.equal(201);
    expect(await say('POST', '/v1/secrets', { name: 's1', data: { a: canary(), b: canary() } })).to.equal(201);
    expect(await say('PUT', cluster, { kubeconfig: canary() })).to.equal(200);
    expect(await say('PATCH', cluster, { kubeconfig: canary() }, merge)).to.equal(200);
    expect(await say('PATCH', secret, { data: { a: canary(), c: canary() } })).to.equal(200);
    const bytes = Buffer.from(canary()).toString('base64');
    canaries.push(bytes);
    expect(await say('PATCH', secret, { binaryData: { d: bytes } })).to.equal(200);
    expect(await say('PUT', '/v1/clusters/default/c2', { kubeconfig: canary() }, { 'If-None-Match': '*' })).to.equal(
      201,
    );
    expect(
      await say('POST', '/v1/clusters', { name: 'c3', kubeconfig: canary() }, { 'Idempotency-Key': 'k1' }),
    ).to.equal(201);
    // What is tried only: some of these ways are refused, and none may tell what was tried.
    await say('POST', '/v1/clusters?dryRun=All', { name: 'c4', kubeconfig: canary() });
    await say('PATCH', `${cluster}?dryRun=All`, { kubeconfig: canary() }, merge);
    const operations = [{ op: 'replace', path: '/kubeconfig', value: canary() }];
    const test = [{ op: 'test', path: '/kubeconfig', value: canary() }];
    for (const patch of [operations, test])
      await say('PATCH', cluster, patch, { 'Content-Type': 'application/json-patch+json' });
    const object = { type: 'clusters', name: 'c5', kubeconfig: canary() };
    await say('POST', '/v1/batch', { operations: [{ op: 'create', type: 'clusters', name: 'c5', object }] });
    await say('POST', '/v1/batch', {
      operations: [{ op: 'create', type: 'clusters', object: { name: 'c1', kubeconfig: canary() } }],
    });
    // What is refused, with a message about it.
    const errors: [string, string, unknown][] = [
      ['POST', '/v1/clusters', { name: 'c1', kubeconfig: canary() }],
      ['POST', '/v1/clusters', { name: 'Not A Name', kubeconfig: canary() }],
      ['POST', '/v1/clusters', { name: 'x', kubeconfig: [canary()] }],
      ['POST', '/v1/clusters', { name: 'x', kubeconfig: { inside: canary() } }],
      ['POST', '/v1/clusters', `{"name": "x", "kubeconfig": "${canary()}" "context"}`],
      ['POST', '/v1/clusters', `{"name": "x", "kubeconfig": "${canary()}`],
      ['POST', '/v1/clusters', { name: 'x', kubeconfig: `${canary()}\u0000` }],
      ['POST', '/v1/secrets', { name: 'x', data: { 'not a key': canary() } }],
      ['POST', '/v1/secrets', { name: 'x', binaryData: { a: `${canary()}!` } }],
      ['POST', '/v1/secrets', { name: 'x', data: [canary()] }],
      ['PUT', secret, { data: { a: canary() }, resourceVersion: '1' }],
      ['PUT', '/v1/secrets/default/none', { data: { a: canary() } }],
      ['PATCH', secret, { data: canary() }],
      ['PATCH', secret, { data: { big: canary().padEnd(4_000_000, 'x') } }],
      ['GET', `/v1/clusters?fieldSelector=${encodeURIComponent(`kubeconfig=${canary()}`)}`, undefined],
      ['GET', `/v1/clusters?fieldSelector=${encodeURIComponent(`kubeconfig~${canary()}`)}`, undefined],
    ];
    for (const [method, path, body] of errors) {
      // The server may close the connection of a body that is too large before all of it is sent.
      const status = await say(method, path, body).catch(() => 413);
      expect(status, `${method} ${path}`).to.be.within(400, 422);
    }
    expect(statuses.filter(status => status >= 500)).to.deep.equal([]);
    await say('DELETE', '/v1/clusters/default/c2');
  });

  it('are shown by reveal alone, which is written down without them', async () => {
    await send('PUT', '/v1/controllers/seer', { type: 'secrets', reveal: ['secrets'] });
    // Waits: a key that is being marked as sent at that moment is passed over.
    const request = { worker: 'w', max: 10, waitSeconds: 10 };
    const { body } = await call(platform.url, 'POST', '/v1/controllers/seer/claims', request);
    const { token } = body.claims[0] as { token: string };
    const path = '/v1/secrets/default/s1/reveal';
    // Not kept with what was seen: this is where they may be.
    const revealed = await call(platform.url, 'GET', path, undefined, { Claim: token });
    expect(canaries.filter(value => JSON.stringify(revealed.body).includes(value))).to.have.length.at.least(3);
    await send('GET', path);
    await until(() => platform.output.some(line => line.includes('secret revealed')), { what: 'the audit line' });
  });

  it('are found nowhere else: tables, queues, logs, metrics, watches, events, work, errors', async () => {
    for (const path of ['/metrics', '/openapi.json', '/v1', '/v1/clusters', '/v1/secrets', '/v1/controllers'])
      await send('GET', path);
    for (const controller of ['canaries', 'clusterhealth', 'seer'])
      await send('GET', `/v1/controllers/${controller}/work`);
    await send('GET', '/v1/clusters/default/c1/notices');
    await until(() => messages.filter(({ place }) => place === 'an event of secrets').length >= 3, { what: 'events' });
    const work: Seen[] = [];
    const worker = broker.createConsumer(
      { queue: 'syncsets.work.canaries', queueOptions: { passive: true }, requeue: true },
      message => {
        work.push({ place: 'a message of work', text: JSON.stringify(message) });
      },
    );
    consumers.push(worker);
    await until(() => work.length > 0, { what: 'work on the queue' });
    const claims = await send('POST', '/v1/controllers/canaries/claims', { worker: 'w', max: 100, waitSeconds: 10 });
    expect(claims.body.claims).not.to.be.empty;

    const tables = await sql.query<{ name: string }>(
      `select format('%I.%I', schemaname, tablename) as name from pg_tables
        where schemaname not in ('pg_catalog', 'information_schema')`,
    );
    expect(tables.rows.map(({ name }) => name)).to.include.members(['public.clusters', 'syncsets.work']);
    for (const { name } of tables.rows) {
      const rows = await sql.query<{ text: string }>(`select t::text as text from ${name} t`);
      for (const { text } of rows.rows) seen.push({ place: `the table ${name}`, text });
    }
    const logged = platform.output.map(text => ({ place: 'the log', text }));
    expect(logged.some(({ text }) => text.includes('"request"'))).to.equal(true);

    const everything = [...seen, ...messages, ...work, ...logged];
    for (const place of ['a watch of clusters', 'an event of clusters', 'the table syncsets.work'])
      expect(everything.map(one => one.place)).to.include(place);
    const leaks = everything.flatMap(({ place, text }) => {
      // Bytes in jsonb and in escaped text are letters and digits all the same; base64 of them is looked for too.
      const found = canaries.filter(
        value => text.includes(value) || text.includes(Buffer.from(value).toString('base64').slice(0, 24)),
      );
      return found.length > 0 ? [place] : [];
    });
    expect(leaks).to.deep.equal([]);
  });
});
