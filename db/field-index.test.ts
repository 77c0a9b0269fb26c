import { expect } from 'chai';
import { createDatabase, type TestDatabase } from '../test/postgres.js';
import { until } from '../test/until.js';
import { Database, type Log, type Queries } from './database.js';
import { ensureIndexes, FieldIndexes, type IndexedField, type TypeIndexes } from './field-index.js';
import { readPage } from './lists.js';
import { ensureTypes } from './types.js';

const size: IndexedField = { field: 'size', kind: 'number' };
const colour: IndexedField = { field: 'colour', kind: 'text' };
const things = (...indexes: IndexedField[]): TypeIndexes[] => [{ type: 'things', indexes }];

describe('indexes of fields', () => {
  let own: TestDatabase;
  let database: Database;
  const said: string[] = [];
  const log: Log = (_level, message) => said.push(message);

  before(async () => {
    own = await createDatabase();
    database = new Database({ connection: { connectionString: own.url }, log });
    await ensureTypes(database, [{ type: 'things', namespaced: true }]);
    // Every hundredth is red; sizes are no numbers here and there, as a former release may have left them.
    await database.query({
      text: `insert into syncsets.objects (type, namespace, name, uid, version, labels, object)
        select 'things', 'n' || i % 7, 't' || i, gen_random_uuid(), i, '{}', jsonb_build_object('name', 't' || i, 'colour',
          case when i % 100 = 0 then 'red' else 'c' || i end, 'size', case i % 1000 when 5 then '"large"' when 6 then 'null'
          when 7 then '{}' when 8 then '"12"' else to_jsonb(i % 50 * 10) end) from generate_series(1, 20000) i`,
    });
    await database.query({ text: 'vacuum analyze public.things' });
  });

  after(async () => {
    await database.stop();
    await own.drop();
  });

  const indexes = () =>
    database.query<{ name: string; valid: boolean; oid: number }>({
      text: `select i.relname as name, x.indisvalid as valid, i.oid::integer as oid
        from pg_index x join pg_class i on i.oid = x.indexrelid
        where x.indrelid = 'public.things'::regclass and i.relname like '%\\_by\\_%' order by i.relname`,
    });

  it('are made once, however many processes start at the same time', async () => {
    const builders = Array.from({ length: 3 }, () => new FieldIndexes({ database, types: things(size, colour), log }));
    for (const builder of builders) builder.start();
    const made = () => said.filter(message => message === 'index of a field made').length;
    await until(() => made() >= 2, { what: 'both indexes' });
    await Promise.all(builders.map(builder => builder.stop()));
    expect(made()).to.equal(2);
    expect((await indexes()).map(one => one.name.replace(/[0-9a-f]{8}$/, String(one.valid)))).to.deep.equal([
      'things_by_colour_true',
      'things_by_size_true',
    ]);
    expect(said).not.to.include('indexes of fields could not be made');
  });

  it('are used by selectors and by orders', async () => {
    const plans: string[] = [];
    const explained: Queries = {
      query: async statement => {
        const lines = await database.query<{ 'QUERY PLAN': string }>({
          ...statement,
          text: `explain ${statement.text}`,
        });
        plans.push(lines.map(line => line['QUERY PLAN']).join('\n'));
        return database.query(statement);
      },
    };
    const red = { path: ['colour'], op: 'in' as const, values: ['red'], index: colour };
    const found = await readPage(explained, 'things', { selector: { labels: [], fields: [red] }, limit: 500 });
    expect(found.objects).to.have.length(200);
    expect(plans.at(-1)).to.contain('things_by_colour_');

    const sixty = { path: ['size'], op: 'in' as const, values: ['60', '12'], index: size };
    const sized = await readPage(explained, 'things', { selector: { labels: [], fields: [sixty] }, limit: 500 });
    expect(sized.objects).to.have.length(380 + 20);
    expect(plans.at(-1)).to.contain('things_by_size_');

    const selector = { labels: [], fields: [] };
    await readPage(explained, 'things', { selector, limit: 10, order: { index: size, descending: true } });
    expect(plans.at(-1)).to.contain('Index Scan Backward using things_by_size_');
    const after = { value: '60', namespace: 'n3', name: 't6' };
    await readPage(explained, 'things', { selector, limit: 10, after, order: { index: size, descending: false } });
    expect(plans.at(-1)).to.match(/Index Cond: .*'60'::numeric/);
  });

  it('order numbers as numbers, with what is none in front, and lose none between pages', async () => {
    const order = { index: size, descending: false };
    const seen: string[] = [];
    const values: number[] = [];
    let after;
    for (;;) {
      const selector = { labels: [], fields: [] };
      const page = await readPage(database, 'things', { selector, limit: 700, order, ...(after ? { after } : {}) });
      seen.push(...page.objects.map(one => one.name));
      values.push(...page.objects.map(one => Number(one.value)));
      after = page.objects.at(-1);
      if (!page.more) break;
    }
    expect(new Set(seen).size).to.equal(20_000);
    expect(values).to.deep.equal([...values].sort((a, b) => a - b));
    expect(values.filter(value => value === -Infinity)).to.have.length(60);
    expect(values.filter(value => value === 12)).to.have.length(20);
  });

  it('are made anew when a broken attempt left them invalid, and dropped when the tag went away', async () => {
    const [, before] = await indexes();
    // As a server that is killed in the middle leaves it.
    await database.query({ text: `update pg_index set indisvalid = false where indexrelid = ${before?.oid}` });
    expect(await ensureIndexes(database, things(size), { drop: true, log })).to.equal(true);
    const [only, ...more] = await indexes();
    expect(more).to.deep.equal([]);
    expect(only).to.include({ name: before?.name, valid: true });
    expect(only?.oid).not.to.equal(before?.oid);
    expect(await ensureIndexes(database, things(), { drop: false, log })).to.equal(true);
    expect(await indexes()).to.have.length(1);
  });

  it('do not keep writers waiting while they are made', async () => {
    // A transaction that is older than the index holds its making up.
    let end: () => void = () => undefined;
    const held = new Promise<void>(resolve => (end = resolve));
    const old = database.transaction(async queries => {
      await queries.query({
        text: `update syncsets.objects set version = version where type = 'things' and name = 't1'`,
      });
      await held;
    });
    const builder = new FieldIndexes({ database, types: things(size, colour), log });
    builder.start();
    try {
      await until(async () => (await indexes()).some(one => !one.valid), { what: 'an index in the making' });
      await database.query({
        text: `update syncsets.objects set version = version + 1 where type = 'things' and name = 't2'`,
      });
      expect((await indexes()).some(one => !one.valid)).to.equal(true);
    } finally {
      end();
      await old;
    }
    await until(async () => (await indexes()).filter(one => one.valid).length === 2, { what: 'the index' });
    await builder.stop();
  });

  it('end with their process at once, and are made by the next', async () => {
    await ensureIndexes(database, things(), { drop: true, log });
    let end: () => void = () => undefined;
    const held = new Promise<void>(resolve => (end = resolve));
    const old = database.transaction(async queries => {
      await queries.query({
        text: `update syncsets.objects set version = version where type = 'things' and name = 't1'`,
      });
      await held;
    });
    try {
      const builder = new FieldIndexes({ database, types: things(size), log });
      builder.start();
      await until(async () => (await indexes()).length === 1, { what: 'an index in the making' });
      await builder.stop();
    } finally {
      end();
      await old;
    }
    expect((await indexes()).map(one => one.valid)).to.deep.equal([false]);
    expect(await ensureIndexes(database, things(size), { drop: false, log })).to.equal(true);
    expect((await indexes()).map(one => one.valid)).to.deep.equal([true]);
    expect(said).not.to.include('indexes of fields could not be made');
  });
});
