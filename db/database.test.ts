import { expect } from 'chai';
import { createDatabase, type TestDatabase } from '../test/postgres.js';
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
});
