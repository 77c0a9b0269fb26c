import { expect } from 'chai';
import pg from 'pg';
import { createDatabase, type TestDatabase } from '../test/postgres.js';
import { until } from '../test/until.js';
import { Database } from './database.js';

describe('the database', () => {
  let own: TestDatabase;
  let database: Database;

  before(async () => {
    own = await createDatabase();
    database = new Database({ connection: { connectionString: own.url }, log: () => undefined });
  });

  after(async () => {
    await database.stop();
    await own.drop();
  });

  it('fails a transaction whose connection is lost between two statements, and nothing else', async () => {
    const transaction = database.transaction(async queries => {
      const [session] = await queries.query<{ pid: number }>({ text: 'select pg_backend_pid() as pid' });
      await database.query({ text: 'select pg_terminate_backend($1, 5000)', values: [session?.pid] });
      await queries.query({ text: 'select 1' });
    });
    const error: unknown = await transaction.catch((thrown: unknown) => thrown);
    expect(error).to.be.an('error');
    expect(await database.query({ text: 'select 1 as one' })).to.deep.equal([{ one: 1 }]);
  });

  it('listens again although the first connection after a loss refuses to, as a standby does', async () => {
    const heard: string[] = [];
    await database.listen(
      'words',
      payload => heard.push(payload),
      () => undefined,
    );
    const refusal = refuseOnce(statement => statement === 'listen "words"');
    try {
      await database.query({
        text: `select pg_terminate_backend(pid, 5000) from pg_stat_activity
          where datname = current_database() and query = 'listen "words"'`,
      });
      await until(() => refusal.happened, { what: 'the refusal' });
      const said = async () => {
        await database.notify('words', 'later');
        return heard.includes('later');
      };
      await until(said, { what: 'a later notification', deadline: 5_000 });
      expect(await database.listeners('words')).to.equal(1);
    } finally {
      refusal.end();
    }
  });
});

/** Lets the driver refuse one of the statements that come as text alone; the connection lives on. */
function refuseOnce(isMeant: (statement: unknown) => boolean): { readonly happened: boolean; end: () => void } {
  const query: unknown = Reflect.get(pg.Client.prototype, 'query');
  if (typeof query !== 'function') throw new Error('the driver has no query');
  let happened = false;
  const replace = (value: unknown) => Reflect.set(pg.Client.prototype, 'query', value);
  replace(function (this: pg.Client, ...args: unknown[]): unknown {
    if (happened || !isMeant(args[0])) return Reflect.apply(query, this, args);
    happened = true;
    return Promise.reject(new Error('cannot execute LISTEN during recovery'));
  });
  return {
    get happened() {
      return happened;
    },
    end: () => void replace(query),
  };
}
