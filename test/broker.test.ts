import { expect } from 'chai';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Connection, type Publisher } from 'rabbitmq-client';
import { parkingQueue } from '../amqp.js';
import { connect, events, type Client } from '../client/index.js';
import { run, type Controller, type Running } from '../controllers/index.js';
import { Authority } from '../kubernetes/testing/certificates.js';
import { startApi, type TestApi } from './platform.js';
import { listen } from './published.js';
import { startRabbit, type Rabbit } from './rabbitmq.js';
import { until } from './until.js';

describe('a broker that others have their hands on', function () {
  this.timeout(90_000);
  let folder: string;
  let rabbit: Rabbit;
  let api: TestApi;
  let broker: Connection;
  let publisher: Publisher;
  let client: Client;
  let running: Running | undefined;
  let serial = 0;
  let controller = '';
  let queue = '';

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'syncsets-broker-'));
    const authority = await Authority.create();
    rabbit = await startRabbit({ tls: await authority.issue('IP:127.0.0.1') });
    await writeFile(join(folder, 'ca.pem'), authority.ca);
    api = await startApi({ amqpUrl: `${rabbit.tlsUrl}?cacertfile=${folder}/ca.pem` });
    client = connect({ url: api.url });
    broker = new Connection({ url: rabbit.url, retryLow: 100, retryHigh: 500 });
    broker.on('error', () => undefined);
    publisher = broker.createPublisher({ confirm: true });
    await until(async () => (await api.call('GET', '/readyz')).body.broker === 'ok', { what: 'the broker, over TLS' });
  });
  beforeEach(() => {
    controller = `broker${++serial}`;
    queue = `syncsets.work.${controller}`;
  });
  afterEach(async () => {
    await running?.stop();
    running = undefined;
    await api.call('DELETE', `/v1/controllers/${controller}`);
  });
  after(async () => {
    await client.close();
    await api.stop();
    await publisher.close();
    await broker.close();
    await rabbit.close();
    await rm(folder, { recursive: true });
  });

  const register = () => api.call('PUT', `/v1/controllers/${controller}`, { type: 'clusters' });
  const create = (name: string) => api.call('POST', '/v1/clusters', { name: `${controller}-${name}` });
  const depth = async () => (await broker.queueDeclare({ queue, passive: true })).messageCount;
  const said = (message: RegExp) => api.log.filter(line => message.test(line.message));
  /** Makes the leader look at the broker now, instead of within 10 s. */
  const look = () => api.call('PUT', '/v1/controllers/looker', { type: 'syncsets' });
  const metric = async (name: string) => {
    const line = new RegExp(`^${name}(?:\\{.*\\})? (\\S+)$`, 'm').exec((await api.call('GET', '/metrics')).body);
    return Number(line?.[1]);
  };
  async function work(options: { concurrency?: number } = {}): Promise<string[]> {
    const seen: string[] = [];
    const one: Controller = {
      name: controller,
      type: 'clusters',
      async reconcile(_, { key }) {
        seen.push(key.name.replace(`${controller}-`, ''));
      },
    };
    const quiet = { debug() {}, info() {}, warn() {}, error() {}, child: () => quiet };
    running = await run([one], { url: api.url, amqpUrl: rabbit.url, log: quiet, handleSignals: false, ...options });
    return seen;
  }

  it('is told of a deleted work queue by the next key, which it then gets', async () => {
    await register();
    await create('a');
    await until(async () => (await depth()) >= 1, { what: 'the first message' });
    await broker.queueDelete({ queue });
    await create('b');
    await until(async () => (await depth()) >= 1, { what: 'the queue to be back with a message' });
    expect(said(/deleted by other hands|cannot be fed/)).not.to.deep.equal([]);
  });

  it('has a work queue of another kind replaced', async () => {
    await register();
    await create('a');
    await until(async () => (await depth()) >= 1, { what: 'the first message' });
    // The platform may be faster and have its own there again.
    const declared = async () => {
      await broker.queueDelete({ queue });
      return broker.queueDeclare({ queue, durable: true }).catch(() => undefined);
    };
    await until(declared, { what: 'a queue of another kind' });
    await look();
    const kind = { queue, durable: true, arguments: { 'x-queue-type': 'quorum' as const } };
    await until(() => broker.queueDeclare(kind), { what: 'a quorum queue' });
    expect(said(/declared differently by other hands; it is replaced/)).to.have.length(1);
  });

  it('has a deleted exchange declared again, and a listener that lost it hears of everything with the next event', async () => {
    const exchange = 'syncsets.events.clusters';
    const heard: string[] = [];
    const stop = new AbortController();
    const listener = connect({ url: api.url, amqpUrl: rabbit.url });
    const listening = (async () => {
      for await (const { object } of events(listener.clusters, { signal: stop.signal })) heard.push(object.name);
    })();
    const source = `rabbit_misc:r(<<"/">>, exchange, <<"${exchange}">>)`;
    const bound = async () =>
      (await rabbit.evaluate(`length(rabbit_binding:list_for_source(${source}))`)) === '{ok, 1}';
    try {
      await until(bound, { what: 'the listener', deadline: 20_000 });
      await create('before');
      await until(() => heard.includes(`${controller}-before`), { what: 'the event' });
      await broker.exchangeDelete({ exchange });
      await create('lost');
      await until(bound, { what: 'the listener to be back', deadline: 30_000 });
      await create('later');
      const all = ['before', 'lost', 'later'].map(name => `${controller}-${name}`);
      await until(() => all.every(name => heard.includes(name)), { what: 'all events' });
    } finally {
      stop.abort();
      await listening;
      await listener.close();
    }
  });

  it('is reported where it has an exchange of another kind, and the other types go on', async () => {
    const exchange = 'syncsets.events.secrets';
    await look();
    await broker.exchangeDelete({ exchange });
    await broker.exchangeDeclare({ exchange, type: 'direct', durable: true });
    await look();
    await api.call('DELETE', '/v1/controllers/looker');
    await look();
    await until(async () => (await metric('syncsets_broker_topology_problems')) === 1, { what: 'the metric' });
    expect(said(/not as it must be on the broker/).at(-1)?.fields).to.include({ name: exchange });
    await broker.exchangeDelete({ exchange });
    await api.call('DELETE', '/v1/controllers/looker');
    await look();
    await until(async () => (await metric('syncsets_broker_topology_problems')) === 0, { what: 'the repair' });
  });

  it('delays no urgent key by messages that are out already', async () => {
    await register();
    const keys = Array.from({ length: 90 }, (_, i) => ({ name: `resync${i}` }));
    await api.call('POST', `/v1/controllers/${controller}/enqueue`, { keys, priority: -10 });
    await until(async () => (await depth()) >= 64, { what: 'a full window' });
    expect(await depth()).to.be.lessThan(100);
    await create('edit');
    await until(async () => (await api.call('GET', `/v1/controllers/${controller}`)).body.queued >= 91, {
      what: 'the edit to be queued',
    });
    const seen = await work({ concurrency: 2 });
    await until(() => seen.length > 2, { what: 'the first keys' });
    expect(seen.slice(0, 2)).to.include('edit');
    await until(() => keys.every(({ name }) => seen.includes(name)), { what: 'all keys', deadline: 30_000 });
    expect(new Set(seen).size).to.equal(seen.length);
  });

  it('parks what others put on a work queue, with the reason, while the keys go on', async () => {
    const seen = await work();
    await until(async () => (await broker.queueDeclare({ queue, passive: true })).consumerCount === 1, {
      what: 'the worker',
    });
    const json = { routingKey: queue, contentType: 'application/json' };
    const bad: [object | string | Buffer, object, RegExp][] = [
      ['{"type":', json, /no JSON object/],
      [Buffer.from([0, 1, 2]), { routingKey: queue }, /no JSON object/],
      [['clusters'], json, /no JSON object/],
      [{ type: 'clusters' }, json, /name is not a text of 1 to 253/],
      [{ type: 'clusters', name: 'x'.repeat(3_000) }, json, /name is not a text/],
      [{ type: 7, name: 'a' }, json, /type is not a text/],
      [{ type: 'nothings', name: 'a' }, json, /type must be "clusters"/],
      [Buffer.alloc(10 * 2 ** 20, 'x'), { routingKey: queue }, /no JSON object/],
    ];
    for (const [body, envelope] of bad)
      await publisher.send(envelope, typeof body === 'string' ? Buffer.from(body) : body);
    await create('good');
    await until(() => seen.includes('good'), { what: 'a good key' });
    const parked = async () => (await broker.queueDeclare(parkingQueue)).messageCount;
    await until(async () => (await parked()) === bad.length, { what: 'all to be parked', deadline: 20_000 });
    await look();
    await until(async () => (await metric('syncsets_broker_parked_messages')) === bad.length, { what: 'the metric' });
    expect(said(/none of ours were parked/)).not.to.deep.equal([]);
    const reasons: string[] = [];
    for (;;) {
      const message = await broker.basicGet({ queue: parkingQueue.queue, noAck: true });
      if (!message) break;
      expect(message.headers).to.include({ 'x-syncsets-queue': queue });
      if (message.headers?.['x-syncsets-truncated'] === true) {
        expect(message.headers).to.include({ 'x-syncsets-bytes': 10 * 2 ** 20 });
        expect(message.body).to.have.length(2 ** 16);
      }
      reasons.push(String(message.headers?.['x-syncsets-reason']));
    }
    for (const [, , reason] of bad)
      expect(
        reasons.some(one => reason.test(one)),
        String(reason),
      ).to.equal(true);
    expect(await depth()).to.equal(0);
  });

  it('may block publishers: writes and work go on, it is seen, a stop does not wait, and publishing catches up', async () => {
    const alarm = '{resource_limit, memory, node()}';
    const heard: string[] = [];
    const exchange = 'syncsets.events.clusters';
    const consumer = broker.createConsumer(
      { queue: '', queueOptions: { exclusive: true }, queueBindings: [{ exchange }] },
      ({ body }: { body?: { object: { name: string } } }) => void heard.push(body?.object.name ?? ''),
    );
    consumer.on('error', () => undefined);
    const replica = await startApi({ databaseUrl: api.databaseUrl, amqpUrl: rabbit.url });
    await api.call('PUT', '/v1/controllers/gone', { type: 'clusters' });
    const goneQueue = () => broker.queueDeclare({ queue: 'syncsets.work.gone', passive: true });
    await until(goneQueue, { what: 'the queue of a controller' });
    const seen = await work();
    await create('before');
    await until(() => seen.includes('before') && heard.includes(`${controller}-before`), {
      what: 'a key and its event',
    });
    await rabbit.evaluate(`rabbit_alarm:set_alarm({${alarm}, []})`);
    try {
      const first = await create('first');
      expect(first.status).to.equal(201);
      const states = async () =>
        (await Promise.all([api, replica].map(one => one.call('GET', '/readyz')))).map(({ body }) => body.broker);
      await until(async () => (await states()).includes('blocked'), { what: '/readyz to say so' });
      for (let i = 0; i < 40; i++) await create(`blocked${i}`);
      await until(() => seen.includes('first') && seen.includes('blocked39'), { what: 'work meanwhile' });
      const logs = [...api.log, ...replica.log].filter(({ message }) => message.includes('broker blocks publishers'));
      expect(logs).not.to.deep.equal([]);
      // Its queue cannot be removed now.
      const asked = performance.now();
      expect((await api.call('DELETE', '/v1/controllers/gone')).status).to.equal(204);
      expect(performance.now() - asked).to.be.lessThan(2_000);
      const begun = performance.now();
      await replica.stop();
      expect(performance.now() - begun).to.be.lessThan(8_000);
    } finally {
      await rabbit.evaluate(`rabbit_alarm:clear_alarm(${alarm})`);
    }
    await until(() => heard.includes(`${controller}-blocked39`), { what: 'the events', deadline: 20_000 });
    await until(async () => (await api.call('GET', '/readyz')).body.broker === 'ok', { what: '/readyz to be well' });
    await look();
    const isGone = () =>
      goneQueue().then(
        () => false,
        () => true,
      );
    await until(isGone, { what: 'the queue of the controller that was deleted meanwhile to go', deadline: 20_000 });
    await consumer.close();
  });

  for (const [resource, low, enough] of [
    [
      'memory',
      'vm_memory_monitor:set_vm_memory_high_watermark(0.00001)',
      'vm_memory_monitor:set_vm_memory_high_watermark(0.9)',
    ],
    [
      'disk',
      'rabbit_disk_monitor:set_disk_free_limit(1000000000000000000)',
      'rabbit_disk_monitor:set_disk_free_limit(1000000)',
    ],
  ] as const) {
    it(`may run low on ${resource}, which it is asked for by nobody: seen, logged, and over when there is room again`, async () => {
      const alarms = () => rabbit.evaluate('rabbit_alarm:get_alarms()');
      const { versions, close } = await listen(rabbit.url, 'syncsets.events.clusters');
      const since = api.log.length;
      try {
        await rabbit.evaluate(low);
        await until(async () => (await alarms()).includes(resource), { what: 'the alarm', deadline: 20_000 });
        const { body } = await create(`low-on-${resource}`);
        await until(async () => (await metric('syncsets_broker_blocked')) === 1, { what: 'the metric' });
        const ready = await api.call('GET', '/readyz');
        expect([ready.status, ready.body.broker]).to.deep.equal([200, 'blocked']);
        const line = api.log.slice(since).find(({ message }) => message.includes('broker blocks publishers'));
        expect(line?.fields['reason']).to.match(new RegExp(`low on ${resource}`));
        await rabbit.evaluate(enough);
        await until(() => versions.includes(Number(body.resourceVersion)), { what: 'the event', deadline: 20_000 });
        await until(async () => (await metric('syncsets_broker_blocked')) === 0, { what: 'the metric to be 0' });
      } finally {
        await rabbit.evaluate(enough);
        await close();
      }
    });
  }

  it('may hold a queue that answers nothing, which is reported and holds up neither events nor the other queues', async () => {
    const stuck = `'%2F_${queue}'`;
    const other = `${controller}other`;
    const { versions, close } = await listen(rabbit.url, 'syncsets.events.clusters');
    await register();
    await create('before');
    await until(async () => (await depth()) >= 1, { what: 'the first message' });
    const otherDepth = async () =>
      (await broker.queueDeclare({ queue: `syncsets.work.${other}`, passive: true })).messageCount;
    await api.call('PUT', `/v1/controllers/${other}`, { type: 'clusters' });
    await until(async () => (await otherDepth()) >= 1, { what: 'the first message of the other' });
    await rabbit.evaluate(`sys:suspend(${stuck})`);
    try {
      let last = 0;
      for (let i = 0; i < 20; i++) last = Number((await create(`stuck${i}`)).body.resourceVersion);
      await until(() => versions.includes(last), { what: 'the events', deadline: 20_000 });
      await until(async () => (await otherDepth()) >= 20, { what: 'the messages of the other', deadline: 20_000 });
      await until(() => said(/cannot be fed/).some(({ fields }) => fields['controller'] === controller), {
        what: 'the log',
        deadline: 20_000,
      });
      expect(await metric('syncsets_broker_topology_problems')).to.equal(1);
    } finally {
      await rabbit.evaluate(`sys:resume(${stuck})`);
      await close();
      await api.call('DELETE', `/v1/controllers/${other}`);
    }
    await until(async () => (await depth()) >= 20, { what: 'the messages', deadline: 30_000 });
    expect(await metric('syncsets_broker_topology_problems')).to.equal(0);
  });

  it('may be a cluster, whose nodes are tried in turn', async () => {
    const { port } = new URL(rabbit.url);
    const amqpUrl = [1, 2, 3, port].map(each => `amqp://guest:guest@127.0.0.1:${each}`).join(',');
    const replica = await startApi({ databaseUrl: api.databaseUrl, amqpUrl });
    await until(async () => (await replica.call('GET', '/readyz')).body.broker === 'ok', { what: 'the one node' });
    await replica.stop();
  });
});
