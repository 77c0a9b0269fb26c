import { expect } from 'chai';
import type http from 'node:http';
import { Connection, type AsyncMessage, type Publisher } from 'rabbitmq-client';
import { startApi, type TestApi } from '../test/platform.js';
import { startRabbit, type Rabbit } from '../test/rabbitmq.js';
import { until } from '../test/until.js';
import { Broker, type Fate, type Subscription } from './broker.js';
import { connect, type Client } from './connect.js';
import { events } from './events.js';
import { FakeServer, json } from './testing/fake-server.js';

/** One from which a message comes again after its queue was closed, as those do that were on their way. */
class LateBroker extends Broker {
  /** How many were opened. */
  queues = 0;
  ready = false;
  last: AsyncMessage | undefined;
  /** What became of late messages. */
  readonly fates: Fate[] = [];

  override consume(...[props, onChange, handle]: Parameters<Broker['consume']>): Subscription {
    this.queues++;
    const onReady = (ready: boolean) => onChange((this.ready = ready));
    const subscription = super.consume(props, onReady, message => handle((this.last = message)));
    return {
      get ready() {
        return subscription.ready;
      },
      close: async () => {
        const closed = subscription.close();
        if (this.last) this.fates.push(await handle(this.last));
        await closed;
      },
    };
  }
}

describe('events over RabbitMQ', () => {
  let rabbit: Rabbit;
  let client: Client;
  let stop: AbortController;
  let following: Promise<void>;
  let told: string[];

  before(async function () {
    this.timeout(60_000);
    rabbit = await startRabbit();
  });

  after(() => rabbit.close());

  beforeEach(() => {
    told = [];
    stop = new AbortController();
  });

  const follow = (namespace?: string) => {
    following = (async () => {
      for await (const { type, object, resourceVersion } of events(client.clusters, {
        signal: stop.signal,
        namespace,
      })) {
        told.push(`${type} ${object.name} ${resourceVersion}`);
      }
    })();
  };
  const end = async () => {
    stop.abort();
    await following;
    await client.close();
  };

  describe('with a server and messages of our own', () => {
    let server: FakeServer;
    let connection: Connection;
    let publisher: Publisher;
    let head: number;
    /** The log that the fake server answers watches from. */
    let log: { type: string; resourceVersion: string; previousResourceVersion: string; object: object }[];
    let watches: Set<http.ServerResponse>;
    let asked: (string | null)[];

    const event = (type: string, name: string, version: number, namespace = 'foo') => ({
      type,
      resourceVersion: String(version),
      previousResourceVersion: String(version - 1),
      object: { type: 'clusters', namespace, name, uid: `uid-${name}`, resourceVersion: String(version) },
    });
    /** A change that is in the log, and on the exchange unless it got lost on the way. */
    const change = async (
      one: ReturnType<typeof event>,
      fate: 'published' | 'lost' | 'truncated' | 'twice' = 'published',
    ) => {
      log.push(one);
      head = Number(one.resourceVersion);
      if (fate === 'lost') return;
      const { type: op, object, ...versions } = one;
      const body = { op, type: 'clusters', ...versions, ...(fate === 'truncated' ? { truncated: true } : { object }) };
      const exchange = 'syncsets.events.clusters';
      for (let i = 0; i < (fate === 'twice' ? 2 : 1); i++) await publisher.send({ exchange, durable: true }, body);
    };

    /** Lets the first change come, until which it may read what came between the list and the queue; counts its watches. */
    const taken = async () => {
      await change(event('ADDED', 'a', 6));
      await until(() => told.length === 2, { what: 'the first change' });
      return asked.length;
    };

    beforeEach(async () => {
      log = [];
      head = 5;
      asked = [];
      watches = new Set();
      server = await FakeServer.start(({ url }, response) => {
        if (!url.searchParams.has('watch')) {
          json(response, 200, { items: [], resourceVersion: String(head) });
          return;
        }
        const since = url.searchParams.get('resourceVersion');
        asked.push(since);
        response.flushHeaders();
        if (since === null) {
          response.write(`${JSON.stringify(event('ADDED', 'old', 3))}\n`);
          response.write(`${JSON.stringify({ type: 'BOOKMARK', resourceVersion: '5', initialEventsEnd: true })}\n`);
        }
        for (const one of log) {
          if (Number(one.resourceVersion) > Number(since ?? 5)) response.write(`${JSON.stringify(one)}\n`);
        }
        watches.add(response);
        response.once('close', () => watches.delete(response));
      });
      client = connect({ url: server.url, amqpUrl: rabbit.url, log: { info: () => undefined, warn: () => undefined } });
      connection = new Connection(rabbit.url);
      connection.on('error', () => undefined);
      const exchanges = [{ exchange: 'syncsets.events.clusters', type: 'fanout', durable: true }];
      publisher = connection.createPublisher({ confirm: true, exchanges });
      follow('foo');
      await until(() => told.length > 0 && asked.length > 0 && watches.size === 0, { what: 'the queue to take over' });
    });

    afterEach(async () => {
      await end();
      await publisher.close();
      await connection.close();
      await server.stop();
    });

    it('takes changes from the queue alone, once, in order, of one namespace', async () => {
      const connections = await taken();
      await change(event('MODIFIED', 'a', 7), 'twice');
      await change(event('ADDED', 'elsewhere', 8, 'bar'));
      await change(event('DELETED', 'a', 9));
      await until(() => told.length === 4, { what: 'all changes' });
      expect(told).to.deep.equal(['ADDED old 3', 'ADDED a 6', 'MODIFIED a 7', 'DELETED a 9']);
      expect(asked.length).to.equal(connections);
    });

    it('reads from the log what got lost on the way, and what was too large for the way', async () => {
      const connections = await taken();
      await change(event('ADDED', 'b', 7), 'lost');
      await change(event('ADDED', 'c', 8), 'lost');
      await change(event('ADDED', 'd', 9));
      await change(event('MODIFIED', 'd', 10), 'truncated');
      await change(event('MODIFIED', 'a', 11));
      await until(() => told.length === 7, { what: 'all changes' });
      expect(told.slice(1)).to.deep.equal([
        'ADDED a 6',
        'ADDED b 7',
        'ADDED c 8',
        'ADDED d 9',
        'MODIFIED d 10',
        'MODIFIED a 11',
      ]);
      expect(asked.slice(connections)).to.deep.equal(['6', '9']);
    });

    it('goes on past messages by foreign hands, whatever they say', async () => {
      await taken();
      const body = (version: number, previous: number, object: unknown) => ({
        op: 'MODIFIED',
        type: 'clusters',
        resourceVersion: String(version),
        previousResourceVersion: String(previous),
        object,
      });
      const send = (message: unknown) =>
        publisher.send({ exchange: 'syncsets.events.clusters', durable: true }, message);
      for (const message of ['no JSON', 5, body(7, 6, null), body(7, 6, 5), body(7, 6, { name: 'x' })])
        await send(message);
      await change(event('MODIFIED', 'a', 7));
      await until(() => told.length === 3, { what: 'the change after them' });
      await send(body(999, 0, event('ADDED', 'forged', 999).object));
      await change(event('MODIFIED', 'a', 8));
      await until(() => told.length === 4, { what: 'the next change' });
      // No watch is left that waits for a version which will not come.
      await until(() => watches.size === 0, { what: 'the queue to take over again' });
      const connections = asked.length;
      await change(event('MODIFIED', 'a', 9));
      await until(() => told.length === 5, { what: 'the change after that' });
      expect(told.slice(2)).to.deep.equal(['MODIFIED a 7', 'MODIFIED a 8', 'MODIFIED a 9']);
      expect(asked.length).to.equal(connections);
    });

    it('asks for what was missed when the queue says nothing for long', async () => {
      const heard: string[] = [];
      const listening = (async () => {
        for await (const { object } of events(client.clusters, { signal: stop.signal, quietSeconds: 0.2 }))
          heard.push(object.name);
      })();
      await until(() => heard.includes('old') && watches.size === 0, { what: 'the queue to take over' });
      await change(event('ADDED', 'last', 6), 'lost');
      await until(() => heard.includes('last'), { what: 'the change' });
      expect(told).to.have.length(1);
      stop.abort();
      await listening;
    });

    it('never asks for what was missed if it is to wait for ever', async () => {
      let heard = 0;
      const options = { signal: stop.signal, quietSeconds: Infinity };
      const listening = (async () => {
        for await (const { object } of events(client.clusters, options)) if (object.name !== 'old') heard++;
      })();
      await taken();
      await until(() => heard === 1 && watches.size === 0, { what: 'the queue to take over' });
      const questions = server.seen.length;
      for (let version = 7; version < 17; version++) {
        await change(event('MODIFIED', 'a', version));
        await until(() => heard === version - 5, { what: 'a change' });
      }
      // The queue may ask for the newest version once more while it takes over.
      expect(server.seen.length - questions).to.be.lessThan(5);
      stop.abort();
      await listening;
    });

    it('is done with messages that come while it ends', async () => {
      const broker = new LateBroker(rabbit.url, { info: () => undefined, warn: () => undefined });
      const { type, path, transport, parse } = client.clusters;
      const passing = events({ type, path, transport, parse, broker });
      expect((await passing.next()).value).to.deep.include({ resourceVersion: '3' });
      const first = passing.next();
      await until(() => broker.ready && watches.size === 0, { what: 'the queue to take over' });
      await change(event('ADDED', 'a', 6));
      expect((await first).value).to.deep.include({ resourceVersion: '6' });
      await until(() => broker.last, { what: 'its message' });
      const ended = passing.return();
      await until(() => broker.fates.length > 0, { what: 'a late message to be done with' });
      expect(broker.fates).to.deep.equal(['taken']);
      await ended;
      await broker.close();
    });

    it('ends with the reason of the signal that all calls of its client have', async () => {
      const lost = new AbortController();
      const heard: string[] = [];
      const ended = (async () => {
        for await (const { object } of events(client.with({ signal: lost.signal }).clusters)) heard.push(object.name);
      })().catch((thrown: unknown) => thrown);
      await until(() => heard.includes('old') && watches.size === 0, { what: 'the queue to take over' });
      const reason = new Error('the claim is lost');
      lost.abort(reason);
      expect(await ended).to.equal(reason);
    });

    it('opens no queue for a signal that is aborted already', async () => {
      const broker = new LateBroker(rabbit.url, { info: () => undefined, warn: () => undefined });
      const { type, path, transport, parse } = client.clusters;
      const ended = events({ type, path, transport, parse, broker }, { signal: AbortSignal.abort() });
      expect(await ended.next()).to.deep.equal({ done: true, value: undefined });
      expect(broker.queues).to.equal(0);
      await broker.close();
    });
  });

  describe('with the platform', () => {
    let api: TestApi;

    before(async () => {
      api = await startApi({ amqpUrl: rabbit.url });
      client = connect({ url: api.url, amqpUrl: rabbit.url, log: { info: () => undefined, warn: () => undefined } });
    });

    after(async () => {
      await client.close();
      await api.stop();
    });

    it('tells every change once and in order while the broker is stopped and comes back', async function () {
      this.timeout(60_000);
      const large = { note: 'x'.repeat(100_000) };
      const written: string[] = [];
      const write = async (count: number) => {
        for (let i = 0; i < count; i++) {
          const name = `c${written.length}`;
          const annotations = i % 5 === 0 ? large : {};
          const { resourceVersion } = await client.clusters.create({ name, namespace: 'foo', annotations });
          written.push(`ADDED ${name} ${resourceVersion}`);
        }
      };
      await write(5);
      follow();
      await until(() => told.length === written.length, { what: 'the objects of now' });
      await write(20);
      await rabbit.stop();
      const stopped = performance.now();
      await write(20);
      await until(() => told.length === written.length, { what: 'changes without the broker' });
      expect(performance.now() - stopped).to.be.lessThan(2000);
      await rabbit.start();
      await write(20);
      await until(() => told.length === written.length, { what: 'changes with the broker again' });
      expect(told).to.deep.equal(written);
      stop.abort();
      await following;
    });

    it('end with their client, and open no connection after that', async () => {
      const passing = connect({ url: api.url, amqpUrl: rabbit.url });
      const names: string[] = [];
      const ended = (async () => {
        for await (const { object } of events(passing.clusters)) names.push(object.name);
      })().catch(String);
      await passing.clusters.create({ name: 'last' });
      await until(() => names.includes('last'), { what: 'a change' });
      await passing.close();
      expect(await ended).to.contain('The client is closed');
      const late = connect({ url: api.url, amqpUrl: rabbit.url, signal: AbortSignal.abort() });
      for (const one of [passing, late])
        expect(await events(one.clusters).next().catch(String)).to.contain('The client is closed');
    });
  });
});
