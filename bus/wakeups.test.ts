import { Socket } from 'node:net';
import { expect } from 'chai';
import { Database } from '../db/index.js';
import { createDatabase, type TestDatabase } from '../test/postgres.js';
import { until } from '../test/until.js';
import { Wakeups } from './wakeups.js';

describe('wake-ups', () => {
  const log = () => undefined;
  let own: TestDatabase;
  let deaf: Database;
  let hearing: Database;
  /** Whether the first database may be connected to anew. */
  let isOpen = true;

  before(async () => {
    own = await createDatabase();
    const stream = () => {
      if (!isOpen) throw new Error('no further connection');
      return new Socket();
    };
    const connection = { connectionString: own.url, application_name: 'deaf', stream };
    deaf = new Database({ connection, log, poolSize: 1 });
    hearing = new Database({ connection: { connectionString: own.url }, log });
  });
  after(async () => {
    await deaf.stop();
    await hearing.stop();
    await own.drop();
  });

  it('reach the others also from a replica whose own listener is away', async () => {
    const [one, other] = [deaf, hearing].map(database => new Wakeups(database, log));
    if (!one || !other) throw new Error('there are two');
    let looks = 0;
    const listeners = deaf.listeners.bind(deaf);
    deaf.listeners = async channel => {
      const count = await listeners(channel);
      looks++;
      return count;
    };
    let heard = 0;
    other.on('leases', () => heard++);
    await one.start();
    await other.start();
    try {
      isOpen = false;
      await hearing.query({
        text: `select pg_terminate_backend(pid, 5000) from pg_stat_activity
          where application_name = 'deaf' and query like 'listen %'`,
      });
      expect(await listeners('syncsets')).to.equal(1);
      const before = looks;
      await until(() => looks >= before + 2, { what: 'two looks for others' });
      one.tell('leases');
      await until(() => heard === 1, { what: 'the word', deadline: 1_000 });
    } finally {
      await one.stop();
      await other.stop();
    }
  });
});
