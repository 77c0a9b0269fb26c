import { randomUUID } from 'node:crypto';
import { expect } from 'chai';
import { lockWaits } from '../test/locks.js';
import { createDatabase, type TestDatabase } from '../test/postgres.js';
import { until } from '../test/until.js';
import { Database, type Log } from './database.js';
import { ObjectStore } from './objects.js';
import { ensureTypes, type TypeTable } from './types.js';
import type { TypeRule } from './rules.js';
import type { WriteItem, WriteResult } from './write.js';

const tables: TypeTable[] = [
  { type: 'authors', namespaced: true, rules: [unique('email', true), unique('nick', false)] },
  {
    type: 'books',
    namespaced: true,
    rules: [ref('author', 'authors', 'refuse'), ref('editor', 'authors', 'null'), ref('shelf', 'shelves', 'cascade')],
  },
  { type: 'shelves', namespaced: false },
  { type: 'notes', namespaced: true, rules: [ref('book', 'books', 'cascade'), ref('pinned', 'books', 'refuse')] },
];

function unique(field: string, everywhere: boolean): TypeRule {
  return { kind: 'unique', name: `unique ${field}`, fields: [field], everywhere };
}

function ref(field: string, target: string, onDelete: 'refuse' | 'cascade' | 'null'): TypeRule {
  return { kind: 'ref', name: `ref ${field}`, field, target, onDelete };
}

describe('rules between objects', () => {
  let own: TestDatabase;
  let database: Database;
  let store: ObjectStore;
  const ruled = new Set(tables.map(({ type }) => type));
  const lines: { message: string; fields: Record<string, unknown> | undefined }[] = [];
  const log: Log = (_level, message, fields) => lines.push({ message, fields });

  before(async () => {
    own = await createDatabase();
    database = new Database({ connection: { connectionString: own.url }, log });
    await ensureTypes(database, tables, log);
    store = new ObjectStore(database, { ruled });
  });

  after(async () => {
    await database.stop();
    await own.drop();
  });

  function creation(name: string, fields: object, namespace = 'foo'): WriteItem {
    const object = JSON.stringify({ name, namespace, generation: 1, ...fields });
    const labels = {};
    return {
      op: 'create',
      namespace,
      name,
      uid: randomUUID(),
      object,
      labels,
      changed: ['spec'],
      actor: 'client',
      own: false,
    };
  }
  const create = (type: string, name: string, fields: object, namespace = 'foo') =>
    store.write(type, creation(name, fields, namespace));
  const read = async (type: string, name: string, namespace = 'foo') => {
    const stored = await store.read(type, { namespace, name });
    return stored && { version: stored.version, object: JSON.parse(stored.object) as Record<string, unknown> };
  };
  async function update(type: string, name: string, change: object): Promise<WriteResult> {
    const stored = await read(type, name);
    return store.write(type, {
      op: 'update',
      namespace: 'foo',
      name,
      expect: stored?.version ?? 0,
      object: JSON.stringify({ ...stored?.object, ...change }),
      labels: {},
      before: '{}',
      changed: ['spec'],
      actor: 'client',
      own: false,
    });
  }
  async function removal(type: string, name: string, namespace = 'foo'): Promise<WriteItem> {
    const expect = (await read(type, name, namespace))?.version ?? 0;
    return { op: 'delete', namespace, name, expect, before: '{}', changed: ['deletion'], actor: 'client', own: false };
  }
  const remove = async (type: string, name: string, namespace = 'foo') =>
    store.write(type, await removal(type, name, namespace));

  it('gives a value to one of those who want it at once, and tells the others who has it', async () => {
    const results = await Promise.all(
      Array.from({ length: 16 }, (_, i) => create('authors', `u${i}`, { email: 'same@x' }, i % 2 ? 'foo' : 'bar')),
    );
    expect(results.filter(({ outcome }) => outcome === 'ok')).to.have.length(1);
    const winner = results.findIndex(({ outcome }) => outcome === 'ok');
    expect(results[(winner + 1) % 16]).to.deep.equal({
      outcome: 'unique',
      match: {
        rule: 'unique email',
        fields: ['email'],
        namespace: winner % 2 ? 'foo' : 'bar',
        name: `u${winner}`,
      },
    });
  });

  it('frees a value with its object or with its change, also for what comes later in the same call', async () => {
    await create('authors', 'f1', { email: 'f1@x', nick: 'f' });
    expect(await create('authors', 'f2', { nick: 'f' }, 'bar')).to.include({ outcome: 'ok' });
    expect(await create('authors', 'f2', { nick: 'f' })).to.include({ outcome: 'unique' });
    const [removed, made] = await Promise.all([
      store.write('authors', await removal('authors', 'f1')),
      create('authors', 'f3', { email: 'f1@x', nick: 'f' }),
    ]);
    expect([removed.outcome, made.outcome]).to.deep.equal(['ok', 'ok']);
    expect(await update('authors', 'f3', { email: 'other@x' })).to.include({ outcome: 'ok' });
    expect(await create('authors', 'f4', { email: 'f1@x' })).to.include({ outcome: 'ok' });
    expect(await update('authors', 'f3', { email: 'f1@x' })).to.include({ outcome: 'unique' });
  });

  it('repeats after a lost race only what was lost, not what was stored before it in the same call', async () => {
    await create('authors', 'lost1', { nick: 'lost' });
    const removed = await removal('authors', 'lost1');
    const answer = { key: 'lost', line: 0, request: 'same' };
    let written: Promise<WriteResult[]> | undefined;
    await database.transaction(async queries => {
      // A twin of the creation, which has stored its answer and not committed yet.
      await queries.query({
        text: `insert into syncsets.answers (key, line, request, status, body) values ($1, $2, $3, 201, '{}')`,
        values: Object.values(answer),
      });
      written = Promise.all([
        store.write('authors', removed),
        // It can have the value once the removal is done: the second statement of the call.
        store.write('authors', { ...creation('lost2', { nick: 'lost' }), answer }),
      ]);
      await until(async () => (await lockWaits(database)) > 0, { what: 'the creation to wait' });
    });
    expect((await written)?.map(({ outcome }) => outcome)).to.deep.equal(['ok', 'repeated']);
  });

  it('refuses a reference that leads nowhere, and the removal of what is referred to', async () => {
    expect(await create('books', 'b1', { author: 'nobody' })).to.deep.equal({
      outcome: 'target',
      match: { rule: 'ref author', fields: ['author'], type: 'authors', namespace: 'foo', name: 'nobody' },
    });
    await create('authors', 'somebody', {});
    expect(await create('books', 'b1', { author: 'somebody' })).to.include({ outcome: 'ok' });
    expect(await remove('authors', 'somebody')).to.deep.equal({
      outcome: 'referenced',
      count: 1,
      by: [{ rule: 'ref author', fields: ['author'], type: 'books', namespace: 'foo', name: 'b1' }],
    });
    expect(await update('books', 'b1', { author: undefined })).to.include({ outcome: 'ok' });
    expect(await remove('authors', 'somebody')).to.include({ outcome: 'ok' });
  });

  it('removes what refers by cascade, over several types, and all of it is in the event log', async () => {
    await create('shelves', 's1', {}, '');
    await create('books', 'c1', { shelf: 's1' });
    await create('books', 'c2', { shelf: 's1', finalizers: ['x/y'] });
    await create('notes', 'n1', { book: 'c1' });
    await create('notes', 'n2', { pinned: 'c1' });
    const refused = await remove('shelves', 's1', '');
    expect(refused).to.deep.include({ outcome: 'referenced', count: 1 });
    await remove('notes', 'n2');
    expect(await remove('shelves', 's1', '')).to.include({ outcome: 'ok' });
    expect(await read('books', 'c1')).to.equal(undefined);
    expect(await read('notes', 'n1')).to.equal(undefined);
    expect((await read('books', 'c2'))?.object).to.have.property('deletedAt');
    const events = await database.query({
      text: `select type, op, name from syncsets.events where name in ('c1', 'c2', 'n1') and changed = '{deletion,owners}' order by type, name`,
    });
    expect(events).to.deep.equal([
      { type: 'books', op: 'DELETED', name: 'c1' },
      { type: 'books', op: 'MODIFIED', name: 'c2' },
      { type: 'notes', op: 'DELETED', name: 'n1' },
    ]);
    expect(await create('notes', 'n3', { book: 'c2' }), 'to what is being deleted').to.include({ outcome: 'target' });
  });

  it('takes references out that are to become empty, from a field and from a list', async () => {
    await create('authors', 'e1', {});
    await create('authors', 'e2', {});
    await create('books', 'd1', { editor: 'e1', title: 'one' });
    await create('books', 'd2', { editor: [{ name: 'e1' }, { name: 'e2', role: 'second' }], title: 'two' });
    expect(await remove('authors', 'e1')).to.include({ outcome: 'ok' });
    const [one, two] = await Promise.all([read('books', 'd1'), read('books', 'd2')]);
    expect(one?.object).to.include({ title: 'one', generation: 2 }).and.not.have.property('editor');
    expect(two?.object).to.deep.include({ title: 'two', editor: [{ name: 'e2', role: 'second' }], generation: 2 });
    const [event] = await database.query<{ before: object; changed: string[] }>({
      text: `select before, changed from syncsets.events where type = 'books' and name = 'd1' and op = 'MODIFIED'`,
    });
    expect(event).to.deep.include({ changed: ['spec'] });
    expect(event?.before).to.deep.include({ editor: 'e1', generation: 1 });
  });

  it('never leaves a dangling reference when a removal races with a new referrer', async () => {
    const rounds = process.env['CI'] ? 200 : 1_000;
    const outcomes = new Set<string>();
    // Two stores: two processes.
    const other = new ObjectStore(database, { ruled });
    const round = async (i: number) => {
      const name = `race${i}`;
      await create('authors', name, {});
      const gone = removal('authors', name);
      const results = await Promise.all([
        gone.then(item => store.write('authors', item)),
        gone.then(() => other.write('books', creation(name, { author: name }))),
      ]);
      outcomes.add(results.map(({ outcome }) => outcome).join(' '));
    };
    for (let i = 0; i < rounds; i += 8) await Promise.all(Array.from({ length: 8 }, (_, j) => round(i + j)));
    expect([...outcomes]).to.have.members(['ok target', 'referenced ok']);
    const dangling = await database.query({
      text: `select name from syncsets.objects b where type = 'books' and name like 'race%' and not exists (
        select from syncsets.objects a where a.type = 'authors' and a.name = b.object->>'author')`,
    });
    expect(dangling).to.deep.equal([]);
  }).timeout(60_000);

  it('lets no deadlock out when transactions over several types come in opposite order', async () => {
    const rounds = 50;
    const run = (types: string[], tag: string) =>
      store.atomically({ types, removing: true }, async transaction => {
        for (const type of types) {
          const items = [
            creation(`${tag}-${type}`, type === 'books' ? { editor: 'hub' } : {}, type === 'shelves' ? '' : 'foo'),
          ];
          const results = await transaction.writeObjects(type, items);
          if (results.some(({ outcome }) => outcome !== 'ok')) throw new Error(JSON.stringify(results));
        }
      });
    await create('authors', 'hub', {});
    const loops = [
      ['authors', 'books', 'shelves'],
      ['shelves', 'books', 'authors'],
      ['books', 'shelves'],
      ['notes', 'books'],
    ].map(async (types, n) => {
      for (let i = 0; i < rounds; i++) await run(types, `lock${n}-${i}`);
    });
    await Promise.all(loops);
  }).timeout(30_000);

  it('says at start what stored objects break a new rule, loses nothing, and holds new ones to it', async () => {
    await create('notes', 'old1', { title: 'same', book: 'c2' });
    await create('shelves', 'g1', { owner: 'nobody', code: 7 }, '');
    await create('shelves', 'g2', { code: 7 }, '');
    await create('shelves', 'g3', { code: 8 }, '');
    const more = tables.map(table =>
      table.type === 'shelves' ? { ...table, rules: [unique('code', true), ref('owner', 'authors', 'refuse')] } : table,
    );
    lines.length = 0;
    await ensureTypes(database, more, log);
    const fields = lines.map(line => line.fields);
    expect(fields).to.deep.include.members([
      { type: 'shelves', rule: 'unique code', count: 1, examples: ['/g2 has the value of /g1'] },
      {
        type: 'shelves',
        rule: 'ref owner',
        count: 1,
        examples: ['/g1 refers to authors default/nobody, which does not exist'],
      },
    ]);
    expect(await create('shelves', 'g4', { code: 8 }, '')).to.include({ outcome: 'unique' });
    const kept = await read('shelves', 'g2', '');
    const same = await store.write('shelves', {
      ...(await removal('shelves', 'g2', '')),
      op: 'update',
      object: JSON.stringify({ ...kept?.object, title: 'kept' }),
      labels: {},
      changed: ['spec'],
    });
    expect(same, 'a change elsewhere in the object').to.include({ outcome: 'ok' });
    await ensureTypes(database, tables, log);
    expect(await create('shelves', 'g4', { code: 8 }, '')).to.include({ outcome: 'ok' });
  });
});
