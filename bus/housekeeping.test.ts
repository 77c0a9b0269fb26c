import { expect } from 'chai';
import { Database, ensureTypes, listNotices, recordNotice, registerController, summarizeWork } from '../db/index.js';
import { createDatabase, type TestDatabase } from '../test/postgres.js';
import { registrationOf } from '../test/registration.js';
import { until } from '../test/until.js';
import { Housekeeping } from './housekeeping.js';
import { Offers } from './offers.js';
import { Wakeups } from './wakeups.js';

describe('housekeeping', () => {
  let own: TestDatabase;
  let database: Database;
  const said: string[] = [];
  before(async () => {
    own = await createDatabase();
    database = new Database({ connection: { connectionString: own.url }, log: () => undefined });
    await ensureTypes(database, [
      { type: 'broken', namespaced: true },
      { type: 'sound', namespaced: true },
    ]);
  });
  after(async () => {
    await database.stop();
    await own.drop();
  });

  const housekeepingOf = (leads: boolean) =>
    new Housekeeping({
      database,
      types: ['broken', 'sound'],
      offers: new Offers({ wakeups: new Wakeups(database, () => undefined), feeder: undefined }),
      leads: () => leads,
      eventLogMax: 2 ** 32,
      log: (_, message, fields) => said.push(`${message} ${JSON.stringify(fields)}`),
    });

  it('looks after the other logs, notices and workers while the log of one type cannot be looked after', async () => {
    const partitions = () =>
      database.query<{ name: string }>({
        text: `select inhrelid::regclass::text as name from pg_inherits where inhparent = 'syncsets.events_sound'::regclass`,
      });
    const [one] = await partitions();
    const made = (await partitions()).length;
    await database.query({ text: `drop table ${one?.name}` });
    await database.query({ text: 'alter table syncsets.events_broken rename to elsewhere' });
    await recordNotice(database, 'sound', { namespace: 'a', name: 'b' }, { actor: 'c', reason: 'Old', message: 'old' });
    await database.query({ text: `update syncsets.notices set last_at = clock_timestamp() - interval '25 hours'` });
    const housekeeping = housekeepingOf(true);
    housekeeping.start();
    try {
      await until(async () => (await partitions()).length === made, { what: 'the partition of the sound type' });
      const notices = () => listNotices(database, 'sound', { namespace: 'a', name: 'b' });
      await until(async () => (await notices()).length === 0, { what: 'the old notice to go' });
      await until(() => said.some(line => line.includes('broken: ')), { what: 'a word about the broken type' });
    } finally {
      await housekeeping.stop();
    }
    expect(said.filter(line => !line.includes('event log retention'))).to.deep.equal([]);
  });

  it('gives a controller all objects of its type, whichever replica leads', async () => {
    await database.query({
      text: `insert into syncsets.objects (type, namespace, name, uid, version, labels, object)
        select 'sound', 'a', 'o' || n, gen_random_uuid(), n, '{}', '{}' from generate_series(1, 5000) n`,
    });
    await registerController(database, registrationOf('ctl', 'sound', 60));
    await database.query({ text: 'delete from syncsets.work' });
    await database.query({
      text: `insert into syncsets.resyncs (controller, type, reason) values ('ctl', 'sound', 'resync')`,
    });
    const housekeeping = housekeepingOf(false);
    housekeeping.start();
    try {
      const work = async () => (await summarizeWork(database)).get('ctl');
      await until(async () => (await work())?.resyncing.length === 0, { what: 'the last page' });
      expect((await work())?.queued).to.equal(5_000);
    } finally {
      await housekeeping.stop();
    }
  });
});
