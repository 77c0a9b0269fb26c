import { expect } from 'chai';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import pg from 'pg';
import { startApi, type TestApi } from './platform.js';
import { createDatabase, type TestDatabase } from './postgres.js';
import { program } from './program.js';

describe('make rotate-key, while the platform runs', function () {
  this.timeout(120_000);
  const [old, fresh] = [randomBytes(32), randomBytes(32)];
  const count = 2_000;
  const value = (i: number) => `${'x'.repeat(5_000)}-${i}`;
  let database: TestDatabase;
  let sql: pg.Client;
  let api: TestApi | undefined;

  before(async () => {
    database = await createDatabase();
    sql = new pg.Client({ connectionString: database.url });
    await sql.connect();
  });
  after(async () => {
    await api?.stop();
    await sql.end();
    await database.drop();
  });

  const restart = async (...encryptionKeys: Buffer[]) => {
    await api?.stop();
    return (api = await startApi({ databaseUrl: database.url, encryptionKeys }));
  };

  /** The process that `make rotate-key` starts; `kill` ends it with SIGKILL at the first line that matches. */
  async function rotate(kill?: RegExp): Promise<{ code: number | null; output: string }> {
    const child = spawn(process.execPath, [...program, 'rotate-key'], {
      cwd: join(import.meta.dirname, '..'),
      env: {
        PATH: process.env['PATH'] ?? '',
        DATABASE_URL: database.url,
        ENCRYPTION_KEY: `${fresh.toString('base64')},${old.toString('base64')}`,
        LOG_LEVEL: 'debug',
        LOG_FORMAT: 'json',
      },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const lines: string[] = [];
    for (const stream of [child.stdout, child.stderr]) {
      createInterface({ input: stream }).on('line', line => {
        lines.push(line);
        if (kill?.test(line)) child.kill('SIGKILL');
      });
    }
    const code = await new Promise<number | null>(resolve => child.once('close', resolve));
    return { code, output: lines.join('\n') };
  }

  const withOldKey = async (keyId: string) => {
    const { rows } = await sql.query<{ count: number }>(
      `select count(*)::integer as count from syncsets.objects where sealed::text like '%"k": "' || $1 || '"%'`,
      [keyId],
    );
    return rows[0]?.count ?? NaN;
  };

  it('killed halfway loses nothing, and run again it goes on until the old key is needed no longer', async () => {
    const first = await restart(old);
    for (let from = 0; from < count; from += 500) {
      const operations = Array.from({ length: 500 }, (_, i) => ({
        op: 'create',
        type: 'secrets',
        name: `s${from + i}`,
        object: { data: { password: value(from + i) } },
      }));
      expect((await first.call('POST', '/v1/batch', { atomic: true, operations })).status).to.equal(200);
    }
    const { rows } = await sql.query<{ key: string }>(
      `select distinct sealed->'data'->'password'->>'k' as key from syncsets.objects where type = 'secrets'`,
    );
    expect(rows).to.have.length(1);
    const oldId = rows[0]?.key ?? '';

    const running = await restart(fresh, old);
    const killed = await rotate(/secrets encrypted anew/);
    expect(killed.code, killed.output).to.equal(null);
    const left = await withOldKey(oldId);
    expect(left).to.be.greaterThan(0).and.lessThan(count);
    // Half with one key and half with the other, the platform reads and writes as always.
    const changed = await running.call('PATCH', '/v1/secrets/default/s0', { data: { user: 'me' } });
    expect(changed.status, JSON.stringify(changed.body)).to.equal(200);

    const stop = new AbortController();
    const writer = (async () => {
      for (let i = 0; !stop.signal.aborted; i = (i + 1) % count) {
        const { status } = await running.call('PATCH', `/v1/secrets/default/s${i}`, { labels: { seen: String(i) } });
        expect(status).to.equal(200);
      }
    })();
    const again = await rotate();
    stop.abort();
    await writer;
    expect(again.code, again.output).to.equal(0);
    expect(again.output).to.contain('done: all secrets are encrypted with the key');
    expect(again.output).to.match(/secrets: the secrets of \d+ objects encrypted anew/);
    expect(await withOldKey(oldId)).to.equal(0);

    const alone = await restart(fresh);
    await alone.call('PUT', '/v1/controllers/seer', { type: 'secrets', reveal: ['secrets'] });
    const { body } = await alone.call('POST', '/v1/controllers/seer/claims', { worker: 'w', max: 100 });
    expect(body.claims).to.have.length(100);
    for (const { name, token } of body.claims as { name: string; token: string }[]) {
      const revealed = await alone.call('GET', `/v1/secrets/default/${name}/reveal`, undefined, { Claim: token });
      expect(revealed.body.fields?.data?.password, name).to.equal(value(Number(name.slice(1))));
    }
  });
});
