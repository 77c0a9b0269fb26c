import { expect } from 'chai';
import pg from 'pg';
import { lockWaits } from '../test/locks.js';
import { startApi, type TestApi } from '../test/platform.js';
import { until } from '../test/until.js';

describe('what loses a deadlock', () => {
  let api: TestApi;
  let other: pg.Client;

  before(async () => {
    api = await startApi();
    other = new pg.Client({ connectionString: api.databaseUrl });
    await other.connect();
    // It notices its own deadlocks last: the platform is the one that gives way.
    await other.query(`set deadlock_timeout = '1min'`);
    await api.call('PUT', '/v1/controllers/victim', { type: 'syncsets' });
  });
  after(async () => {
    await other.end();
    await api.stop();
  });

  /** Holds what `first` locks, lets the platform wait for it, and then waits itself for what that holds. */
  async function cross(first: string, second: string, waiting: string, act: () => Promise<unknown>): Promise<void> {
    const { rows } = await other.query<{ count: number }>(
      'select deadlocks::integer as count from pg_stat_database where datname = current_database()',
    );
    await other.query('begin');
    await other.query(first);
    const acting = act();
    await until(async () => (await lockWaits(api.database, waiting)) > 0, { what: 'the platform to wait' });
    await other.query(second);
    await other.query('commit');
    await acting;
    await until(
      async () => {
        const now = await other.query<{ count: number }>(
          'select deadlocks::integer as count from pg_stat_database where datname = current_database()',
        );
        return (now.rows[0]?.count ?? 0) > (rows[0]?.count ?? 0);
      },
      { what: 'the deadlock to be counted' },
    );
  }

  it('is done again: keys to enqueue', async () => {
    const keys = [{ name: 'a' }, { name: 'b' }];
    const enqueue = () => api.call('POST', '/v1/controllers/victim/enqueue', { keys });
    await enqueue();
    const lock = (name: string) =>
      `select from syncsets.work where controller = 'victim' and name = '${name}' for update`;
    await cross(lock('b'), lock('a'), 'syncsets.enqueue', async () => {
      const { status, body } = await enqueue();
      expect([status, body]).to.deep.equal([200, { count: 2 }]);
    });
  });

  it('is done again: the registration of a controller, and its end', async () => {
    const lock = (type: string) => `select from syncsets.cursors where type = '${type}' for update`;
    const cursors = 'select from syncsets.cursors';
    await cross(lock('syncsets'), lock('clusters'), cursors, async () => {
      const late = { type: 'clusters', watches: ['syncsets'] };
      expect((await api.call('PUT', '/v1/controllers/late', late)).status).to.equal(200);
    });
    await cross(lock('syncsets'), lock('clusters'), cursors, async () => {
      expect((await api.call('DELETE', '/v1/controllers/late')).status).to.be.oneOf([200, 204]);
    });
  });
});
