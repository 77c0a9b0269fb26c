import { randomUUID } from 'node:crypto';
import { expect } from 'chai';
import { Database, ensureTypes, ObjectStore, type LogEvent, type WriteItem } from '../db/index.js';
import { createDatabase, type TestDatabase } from '../test/postgres.js';
import { until } from '../test/until.js';
import { Tail } from './tail.js';
import { Wakeups } from './wakeups.js';

describe('the tail of an event log', () => {
  const log = () => undefined;
  const stops: (() => Promise<void>)[] = [];
  let own: TestDatabase;

  before(async () => {
    own = await createDatabase();
    const database = new Database({ connection: { connectionString: own.url }, log });
    await ensureTypes(database, [{ type: 'things', namespaced: true }]);
    await database.stop();
  });

  afterEach(async () => {
    for (const stop of stops.splice(0).reverse()) await stop();
  });

  after(() => own.drop());

  /** What one API process has: a writer that offers what it wrote to its own tail and tells the others. */
  async function replica(offer: (tail: Tail, events: LogEvent[]) => void = (tail, events) => tail.offer(events)) {
    const database = new Database({ connection: { connectionString: own.url }, log });
    const wakeups = new Wakeups(database, log);
    const tail = new Tail({ database, type: 'things', wakeups, log });
    const store = new ObjectStore(database, {
      committed: (_type, events) => {
        if (events) offer(tail, events);
        wakeups.tell('events:things');
      },
    });
    const seen: LogEvent[] = [];
    tail.subscribe({ events: events => seen.push(...events) });
    await wakeups.start();
    tail.start();
    stops.push(async () => {
      await tail.stop();
      await wakeups.stop();
      await database.stop();
    });
    await until(() => tail.head !== undefined, { what: 'the tail has looked at the log' });
    return { store, seen, database };
  }

  function thing(name: string): WriteItem {
    const uid = randomUUID();
    const object = JSON.stringify({ name, uid });
    return {
      op: 'create',
      namespace: 'a',
      name,
      uid,
      object,
      labels: {},
      changed: ['spec'],
      actor: 'client',
      own: false,
    };
  }

  it('hands on the events of its own and of other processes in one order, each once', async () => {
    const [one, other] = [await replica(), await replica()];
    const writes = Array.from({ length: 400 }, (_, i) =>
      (i % 3 ? one : other).store.write('things', thing(`both-${i}`)),
    );
    await Promise.all(writes);
    for (const { seen } of [one, other]) {
      await until(() => seen.length === 400, { what: 'all events are there' });
      const first = seen[0]?.previous ?? -1;
      expect(seen.map(({ version }) => version)).to.deep.equal(seen.map((_, i) => first + 1 + i));
    }
  });

  it('hands on a written object as the log has it', async () => {
    const { store, seen, database } = await replica();
    await store.write('things', thing('as-written'));
    await until(() => seen.length === 1, { what: 'the event is there' });
    const [row] = await database.query<{ object: unknown; uid: string; op: string }>({
      text: `select object, uid, op from syncsets.events where type = 'things' and version = $1`,
      values: [seen[0]?.version],
    });
    expect({ ...row }).to.deep.equal({
      object: JSON.parse(seen[0]?.object ?? ''),
      uid: seen[0]?.uid,
      op: seen[0]?.op,
    });
  });

  it('puts batches in order that are offered in another one than they were committed in', async () => {
    const late: (() => void)[] = [];
    const { store, seen } = await replica((tail, events) => late.push(() => tail.offer(events)));
    for (const name of ['first', 'second', 'third']) await store.write('things', thing(name));
    for (const offer of late.reverse()) offer();
    expect(seen.map(({ name }) => name)).to.deep.equal(['first', 'second', 'third']);
  });

  it('reads from the log what nobody offers', async () => {
    const { store, seen } = await replica((tail, events) => {
      if (events[0]?.name !== 'lost') tail.offer(events);
    });
    for (const name of ['lost', 'kept']) await store.write('things', thing(name));
    await until(() => seen.length === 2, { what: 'both are there' });
    expect(seen.map(({ name }) => name)).to.deep.equal(['lost', 'kept']);
  });
});
