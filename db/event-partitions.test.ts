import { randomUUID } from 'node:crypto';
import { expect } from 'chai';
import type { QueryResultRow } from 'pg';
import { createDatabase, type TestDatabase } from '../test/postgres.js';
import {
  Database,
  ensureTypes,
  logRange,
  maintainEventLog,
  measureEventLog,
  ObjectStore,
  readEvents,
} from './index.js';

const hours = (count: number) => new Date(Date.now() + count * 3_600_000);
const large = 2 ** 40;

describe('the event log', () => {
  let own: TestDatabase;
  let database: Database;
  let store: ObjectStore;
  beforeEach(async () => {
    own = await createDatabase();
    database = new Database({ connection: { connectionString: own.url }, log: () => undefined });
    await ensureTypes(database, [
      { type: 'things', namespaced: true },
      { type: 'hasty', namespaced: true, keepEvents: '1 hour' },
    ]);
    store = new ObjectStore(database);
  });
  afterEach(async () => {
    await database.stop();
    await own.drop();
  });

  async function write(type: string, count: number, size = 10): Promise<void> {
    const writes = Array.from({ length: count }, () => {
      const [uid, name] = [randomUUID(), randomUUID()];
      const object = JSON.stringify({ name, uid, pad: 'x'.repeat(size) });
      const item = { op: 'create', namespace: 'a', name, uid, object, labels: {} } as const;
      return store.write(type, { ...item, changed: ['spec'], actor: 'client', own: false });
    });
    for (const { outcome } of await Promise.all(writes)) expect(outcome).to.equal('ok');
  }
  const partitions = async (type: string) => {
    const text = `select c.relname as name, pg_get_expr(c.relpartbound, c.oid) as bounds from pg_inherits i join pg_class c on c.oid = i.inhrelid
      where i.inhparent = $1::regclass order by 1`;
    return database.query<{ name: string; bounds: string }>({ text, values: [`syncsets.events_${type}`] });
  };
  const maintain = (maxBytes: number, now?: Date) =>
    maintainEventLog(database, ['things', 'hasty'], { maxBytes, ...(now ? { now } : {}) });

  it('has partitions for six hours to come, at any time', async () => {
    expect((await partitions('things')).length).to.be.within(7, 8);
    await maintain(large, hours(30));
    const names = (await partitions('things')).map(({ name }) => name);
    expect(names).to.include(
      `events_things_${hours(35)
        .toISOString()
        .replace(/[-T]|:.*/g, '')}`,
    );
    expect(names.length, names.join()).to.be.within(7, 8);
  });

  it('keeps what its type asks for, beyond that 100,000 events, and those for 7 days', async () => {
    await write('things', 3);
    await write('hasty', 3);
    expect(await maintain(large, hours(26))).not.to.match(/^events_/);
    expect((await readEvents(database, 'hasty', 0, { events: 9, bytes: large })).events).to.have.length(3);
    // As if 100,000 had followed.
    await database.query({ text: 'update syncsets.types set version = version + 100000' });
    const droppedEarly = await maintain(large, hours(3));
    expect(droppedEarly.length).to.be.greaterThan(0);
    expect(droppedEarly.join()).to.match(/^(events_hasty_\d+,?)+$/);
    expect(await logRange(database, 'hasty')).to.deep.equal({ start: 3, head: 100_003 });
    expect(await logRange(database, 'things')).to.deep.equal({ start: 0, head: 100_003 });
    expect((await maintain(large, hours(26))).join()).to.include('events_things_');
    expect(await logRange(database, 'things')).to.deep.equal({ start: 3, head: 100_003 });
  });

  it('drops 100,000 events and fewer after 7 days', async () => {
    await write('things', 3);
    await maintain(large, hours(7 * 24 - 1));
    expect((await logRange(database, 'things')).start).to.equal(0);
    await maintain(large, hours(7 * 24 + 2));
    expect((await logRange(database, 'things')).start).to.equal(3);
  });

  it('is cut where it grows beyond its size within the hour, while writes go on', async function () {
    const left = 3_600 - ((Date.now() / 1_000) % 3_600);
    // Near its end the hour is not cut.
    if (left < 90) this.skip();
    await write('things', 200, 2_000);
    const before = await partitions('things');
    const writing = (async () => {
      for (let i = 0; i < 20; i++) await write('things', 5, 2_000);
    })();
    await maintain(2 ** 20);
    await writing;
    const after = await partitions('things');
    expect(after).to.have.length(before.length + 1);
    const cut = after.find(({ name }) => /\d{14}$/.test(name));
    expect(cut?.bounds).to.match(/TO \('.*:00:00/);
    const { events } = await readEvents(database, 'things', 0, { events: 1_000, bytes: large });
    expect(events.map(({ version }) => version)).to.deep.equal(Array.from({ length: 300 }, (_, i) => i + 1));
    // When that moment has passed, the first part goes for its size, and what is written then has a place.
    expect(await maintain(2 ** 18, new Date(Date.now() + 60_000))).to.deep.equal([before[0]?.name]);
    expect(await logRange(database, 'things')).to.deep.equal({ start: 300, head: 300 });
    await write('things', 1);
  });

  it('is cut in parts of 1 GiB at most, however large it may be', async function () {
    if (3_600 - ((Date.now() / 1_000) % 3_600) < 90) this.skip();
    await write('things', 1);
    const before = await partitions('things');
    const query = database.query.bind(database);
    database.query = async <Row extends QueryResultRow>(statement: Parameters<typeof query>[0]) => {
      const rows = await query<Row>(statement);
      // As if each partition held as much.
      for (const row of rows) if ('bytes' in row) Object.assign(row, { bytes: 2 ** 30 });
      return rows;
    };
    try {
      await maintain(large);
    } finally {
      database.query = query;
    }
    expect(await partitions('things')).to.have.length(before.length + 1);
  });

  it('keeps no writer waiting when somebody reads for long while it is cut', async function () {
    if (3_600 - ((Date.now() / 1_000) % 3_600) < 90) this.skip();
    await write('things', 200, 2_000);
    let end: () => void = () => undefined;
    let reading: Promise<void> = Promise.resolve();
    const query = database.query.bind(database);
    database.query = async statement => {
      if (statement.text.includes('validate constraint')) {
        // As a backup does that begins now.
        await new Promise<void>(begun => {
          reading = database.transaction(async queries => {
            await queries.query({ text: 'select from syncsets.events limit 1' });
            begun();
            await new Promise<void>(resolve => (end = resolve));
          });
        });
      }
      return query(statement);
    };
    const begun = performance.now();
    try {
      await maintain(2 ** 20);
      await write('things', 1);
      // Less than the 10 s after which the database gives the reader up.
      expect(performance.now() - begun).to.be.below(7_000);
    } finally {
      database.query = query;
      end();
      await reading;
    }
    await maintain(2 ** 20);
    expect(await partitions('things')).to.satisfy((all: { name: string }[]) =>
      all.some(({ name }) => /\d{14}$/.test(name)),
    );
  });

  it('takes writes although a process was killed when it was about to cut', async () => {
    const [current] = await partitions('things');
    await database.query({
      text: `alter table syncsets.${current?.name} add constraint events_cut check (at < '${new Date().toISOString()}') not valid`,
    });
    await write('things', 2);
  });

  it('reads no more at once than it is told, and always something', async () => {
    await write('things', 10, 1_000);
    const few = await readEvents(database, 'things', 2, { events: 100, bytes: 4_200 });
    expect(few.events.map(({ version }) => version)).to.deep.equal([3, 4, 5]);
    expect(few.more).to.equal(true);
    const one = await readEvents(database, 'things', 2, { events: 100, bytes: 1 });
    expect(one.events.map(({ version }) => version)).to.deep.equal([3]);
    const rest = await readEvents(database, 'things', 5, { events: 5, bytes: large });
    expect(rest.more).to.equal(true);
    expect((await readEvents(database, 'things', 5, { events: 6, bytes: large })).more).to.equal(false);
  });

  it('says how large it is', async () => {
    await write('things', 10);
    const things = (await measureEventLog(database)).find(({ type }) => type === 'things');
    expect(things).to.include({ events: 10, workLag: 10, publishLag: 10 });
    expect(things?.bytes).to.be.greaterThan(8_000);
    expect(things?.seconds).to.be.within(0, 3_600);
  });
});
