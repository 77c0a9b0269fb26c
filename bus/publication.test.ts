import { expect } from 'chai';
import type { QueryResultRow } from 'pg';
import { Connection } from 'rabbitmq-client';
import { eventExchange } from '../amqp.js';
import { Database, ensureTypes } from '../db/index.js';
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
    publication = new Publication({ database, type, tail, rabbit, leads: () => true, log });
  });
  afterEach(async () => {
    await publication.stop();
    await rabbit.stop();
    way.close();
    await listener.exchangeDelete({ exchange: eventExchange(type) });
    await listener.close();
    await database.stop();
    await own.drop();
  });

  it('lets no events overtake those whose connection broke', async () => {
    const { versions, close } = await listen((await sharedRabbit()).url, eventExchange(type));
    try {
      const write = async (from: number, to: number) => {
        await database.query({
          text: `insert into syncsets.events (type, version, previous, at, op, namespace, name, uid, labels, object, before, changed, actor, own)
            select $1, n, n - 1, clock_timestamp(), 'MODIFIED', 'default', 'one', gen_random_uuid(), '{}', '{"name": "one"}',
              null, '{spec}', 'client', false from generate_series($2::integer, $3::integer) n`,
          values: [type, from, to],
        });
      };
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
    } finally {
      await close();
    }
  });
});
