import { expect } from 'chai';
import type { QueryResultRow } from 'pg';
import { Connection } from 'rabbitmq-client';
import { eventExchange } from '../amqp.js';
import { Database, ensureTypes, publishedUpTo } from '../db/index.js';
import { createDatabase, type TestDatabase } from '../test/postgres.js';
import { listen, withoutRepeats } from '../test/published.js';
import { sharedRabbit } from '../test/rabbitmq.js';
import { until } from '../test/until.js';
import { Way } from '../test/way.js';
import { Publication } from './publication.js';
import { RabbitTransport } from './rabbitmq.js';
import { Tail } from './tail.js';
import { Wakeups } from './wakeups.js';

describe('the publication of a log', () => {
  const log = () => undefined;
  const type = 'published';
  let own: TestDatabase;
  let database: Database;
  let way: Way;
  let rabbit: RabbitTransport;
  let publication: Publication;
  let listener: Connection;
  /** Versions of the events that were heard, in order. */
  let versions: number[];
  let close: () => Promise<void>;
  /** Says that the database went back to an older state. */
  let lost = (): void => undefined;
  let leads: boolean;

  beforeEach(async () => {
    const broker = new URL((await sharedRabbit()).url);
    own = await createDatabase();
    database = new Database({ connection: { connectionString: own.url }, log });
    await ensureTypes(database, [{ type, namespaced: true }]);
    listener = new Connection(broker.href);
    way = new Way(new URL(broker));
    broker.port = String(await way.open());
    rabbit = new RabbitTransport({ url: broker.href, types: [type], instance: 'test', log });
    // Not started: all that is published is read from the log.
    const tail = new Tail({ database, type, wakeups: new Wakeups(database, log), log });
    tail.subscribe = listener => {
      lost = listener.lost ?? lost;
      return () => undefined;
    };
    publication = new Publication({ database, type, tail, rabbit, leads: () => leads, log });
    leads = true;
    ({ versions, close } = await listen((await sharedRabbit()).url, eventExchange(type)));
  });
  afterEach(async () => {
    await close();
    await publication.stop();
    await rabbit.stop();
    way.close();
    await listener.exchangeDelete({ exchange: eventExchange(type) });
    await listener.close();
    await database.stop();
    await own.drop();
  });

  /** Events of one object, as if they were written now. */
  async function write(from: number, to: number): Promise<void> {
    await database.query({
      text: `insert into syncsets.events (type, version, previous, at, op, namespace, name, uid, labels, object, before, changed, actor, own)
        select $1, n, n - 1, clock_timestamp(), 'MODIFIED', 'default', 'one', gen_random_uuid(), '{}', '{"name": "one"}',
          null, '{spec}', 'client', false from generate_series($2::integer, $3::integer) n`,
      values: [type, from, to],
    });
  }

  it('moves the cursor some times a second however many batches there are, and to the last event when there are no more', async () => {
    let moves = 0;
    const query = database.query.bind(database);
    database.query = async <Row extends QueryResultRow>(statement: Parameters<typeof query>[0]) => {
      if (statement.name === 'advance-published') moves++;
      return query<Row>(statement);
    };
    publication.start();
    const began = performance.now();
    for (let version = 1; version <= 40; version++) {
      await write(version, version);
      publication.wake();
      await until(() => versions.length === version, { what: `event ${version}` });
    }
    await until(async () => (await publishedUpTo(database, type)) === 40, { what: 'the cursor' });
    expect(moves).to.be.at.most(Math.ceil((performance.now() - began) / 50) + 1);
    expect(moves).to.be.lessThan(40);
  });

  it('moves the cursor over all that is published before its stop ends', async () => {
    await write(1, 1);
    publication.start();
    await until(async () => (await publishedUpTo(database, type)) === 1, { what: 'the first event' });
    await write(2, 2);
    publication.wake();
    await until(() => versions.length === 2, { what: 'the second one' });
    await publication.stop();
    expect(await publishedUpTo(database, type)).to.equal(2);
  });

  it('moves the cursor over all that is published when another one takes the lead', async () => {
    await write(1, 1);
    publication.start();
    await until(async () => (await publishedUpTo(database, type)) === 1, { what: 'the first event' });
    const publish = rabbit.publish.bind(rabbit);
    rabbit.publish = async (...sent) => {
      await publish(...sent);
      leads = false;
    };
    await write(2, 2);
    publication.wake();
    await until(async () => (await publishedUpTo(database, type)) === 2, { what: 'the second one' });
  });

  it('repeats nothing that was confirmed before its connection broke', async () => {
    const publish = rabbit.publish.bind(rabbit);
    const confirmed: Promise<void>[] = [];
    rabbit.publish = (...sent) => {
      const published = publish(...sent);
      confirmed.push(published);
      return published;
    };
    await write(1, 1);
    publication.start();
    await until(async () => (await publishedUpTo(database, type)) === 1, { what: 'the first event' });
    await write(2, 2);
    publication.wake();
    await until(() => confirmed.length === 2, { what: 'the second one' });
    await confirmed[1];
    // The cursor has not been moved over it, or just now.
    way.hold();
    await write(3, 3);
    publication.wake();
    await until(() => confirmed.length === 3, { what: 'the third one' });
    way.cut();
    await until(() => versions.at(-1) === 3, { what: 'the last event', deadline: 20_000 });
    expect(versions).to.deep.equal([1, 2, 3]);
  });

  it('publishes again what a database writes that went back to an older state while a batch was on its way', async () => {
    await write(1, 1);
    publication.start();
    await until(async () => (await publishedUpTo(database, type)) === 1, { what: 'the first event' });
    const publish = rabbit.publish.bind(rabbit);
    let confirm: (() => void) | undefined;
    rabbit.publish = async (...sent) => {
      await publish(...sent);
      if (!confirm) await new Promise<void>(resolve => (confirm = resolve));
    };
    await write(2, 2);
    publication.wake();
    await until(() => confirm !== undefined, { what: 'the batch to be on its way' });
    await database.query({ text: 'delete from syncsets.events where version = 2' });
    lost();
    await write(2, 3);
    confirm?.();
    await until(() => versions.at(-1) === 3, { what: 'the last event' });
    expect(versions).to.deep.equal([1, 2, 2, 3]);
  });

  it('lets no events overtake those whose connection broke', async () => {
    await write(1, 1);
    publication.start();
    await until(() => versions.length === 1, { what: 'the first event' });

    const query = database.query.bind(database);
    let reads = 0;
    database.query = async <Row extends QueryResultRow>(statement: Parameters<typeof query>[0]) => {
      const rows = await query<Row>(statement);
      // The second batch is being read: the first one was sent and is lost.
      if (statement.name === 'read-events' && rows.length > 0 && ++reads === 2) {
        way.cut();
        await until(() => !rabbit.connected, { what: 'the connection to break' });
        await until(() => rabbit.connected, { what: 'another connection' });
      }
      return rows;
    };
    way.hold();
    await write(2, 1_201);
    await until(() => versions.at(-1) === 1_201, { what: 'the last event', deadline: 20_000 });
    expect(withoutRepeats(versions)).to.deep.equal(Array.from({ length: 1_201 }, (_, i) => i + 1));
  });
});
