import { expect } from 'chai';
import pg from 'pg';
import { createDatabase } from './postgres.js';
import { until } from './until.js';

describe('test databases', function () {
  // The first one of a run starts a server and migrates the template.
  this.timeout(60_000);

  async function open(url: string): Promise<pg.Client> {
    const client = new pg.Client({ connectionString: url });
    client.on('error', () => undefined);
    await client.connect();
    return client;
  }

  it('have the newest schema, share nothing, and go although a session is open', async () => {
    const [one, two] = await Promise.all([createDatabase(), createDatabase()]);
    const [first, second] = await Promise.all([open(one.url), open(two.url)]);
    const objects = `select count(*)::int as rows from syncsets.objects`;
    expect((await first.query(objects)).rows).to.deep.equal([{ rows: 0 }]);
    await first.query('create table mine as select 1');
    expect((await second.query(`select to_regclass('mine') as found`)).rows).to.deep.equal([{ found: null }]);
    await one.drop();
    await one.drop();
    expect(await open(one.url).catch((error: unknown) => error)).to.have.property('code', '3D000');
    await Promise.all([first.end(), second.end()]);
    await two.drop();
  });

  it('are made in a fraction of a second', async () => {
    const started = performance.now();
    await (await createDatabase()).drop();
    expect(performance.now() - started).to.be.below(2_000);
  });
});

describe('until', () => {
  it('gives what the condition gave, and says in time what it saw instead', async () => {
    let looks = 0;
    expect(await until(() => (++looks > 2 ? looks : 0), { what: 'three looks' })).to.equal(3);
    const never = (look: () => unknown) =>
      until(look, { what: 'the end of the world', deadline: 50 }).catch((error: unknown) => String(error));
    expect(await never(() => undefined)).to.equal(
      'Error: waited 0.05 s for the end of the world; the last look gave undefined',
    );
    expect(await never(() => Promise.reject(new Error('not yet')))).to.match(/the last look gave the error "not yet"/);
  });
});
