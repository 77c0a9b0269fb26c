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
  async function replica(
    offer: (tail: Tail, events: LogEvent[]) => void = (tail, events) => tail.offer(events),
    tell: (wakeups: Wakeups, events: LogEvent[]) => void = wakeups => wakeups.tell('events:things'),
  ) {
    const database = new Database({ connection: { connectionString: own.url }, log });
    const wakeups = new Wakeups(database, log);
    const tail = new Tail({ database, type: 'things', wakeups, log });
    const store = new ObjectStore(database, {
      committed: (_type, events) => {
        if (!events) return;
        offer(tail, events);
        tell(wakeups, events);
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
    return { store, seen, database, wakeups };
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

  it('has the events of others from their notifications, and reads what is too large for one', async () => {
    const writer = await replica(undefined, (wakeups, events) => wakeups.tellEvents('things', events));
    const { seen, database } = await replica();
    let reads = 0;
    const query = database.query.bind(database);
    database.query = statement => {
      if (statement.name === 'read-events') reads++;
      return query(statement);
    };
    const small = { ...thing('zoë'), changed: ['status' as const], actor: 'controller:x', own: true };
    await writer.store.write('things', small);
    await until(() => seen.length === 1, { what: 'the small one is there' });
    expect(reads).to.equal(0);
    const large = { ...thing('large'), object: JSON.stringify({ text: 'é'.repeat(4_000) }) };
    await writer.store.write('things', large);
    await until(() => seen.length === 2, { what: 'the large one is there' });
    expect(reads).to.equal(1);
    expect(seen[0]).to.deep.equal(writer.seen[0]);
    expect(seen.map(({ name }) => name)).to.deep.equal(['zoë', 'large']);
  });

  it('loses and repeats nothing when batches come with one notification, in another order and not all of them', async () => {
    const batches: LogEvent[][] = [];
    const { store, wakeups } = await replica(undefined, (_, events) => batches.push(events));
    const { seen } = await replica();
    const names = ['first', 'second', 'third', 'fourth'];
    for (const name of names) await store.write('things', thing(`with-${name}`));
    // What is on its way lets the next ones gather.
    wakeups.tell('controllers');
    for (const i of [0, 3, 2]) wakeups.tellEvents('things', batches[i] ?? []);
    await until(() => seen.at(-1)?.name === 'with-fourth', { what: 'the last one is there' });
    expect(seen.map(({ name }) => name)).to.deep.equal(names.map(name => `with-${name}`));
  });

  it('looks at the log when what came with a notification is none of ours', async () => {
    const { store, seen, database } = await replica(
      () => undefined,
      () => undefined,
    );
    await store.write('things', thing('foreign'));
    for (const text of ['', 'x', '{"type":"things"}', 'null\nnull', '{"type":"things","version":"1"}\n{}\n'])
      await database.notify('syncsets', `somebody events:things \n${text}`);
    await until(() => seen.length === 1, { what: 'the event is read' });
    expect(seen[0]?.name).to.equal('foreign');
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
