import { expect } from 'chai';
import { randomBytes } from 'node:crypto';
import { lockWaits } from '../test/locks.js';
import { startApi, type TestApi } from '../test/platform.js';
import { until } from '../test/until.js';
import { createDatabase, type TestDatabase } from '../test/postgres.js';
import { rotateKey } from './rotation.js';
import { Secrets } from './secrets.js';

describe('a rotation of the encryption key', () => {
  const [first, second] = [randomBytes(32), randomBytes(32)];
  const count = 1_200;
  const value = (i: number) => `value-${i}`;
  const log = () => undefined;
  let database: TestDatabase;
  let api: TestApi | undefined;
  const platform = async (...encryptionKeys: Buffer[]) => {
    await api?.stop();
    return (api = await startApi({ databaseUrl: database.url, encryptionKeys }));
  };

  before(async () => {
    database = await createDatabase();
    const { call } = await platform(first);
    // Not one request each: so many connections at once starve each other on a busy machine until the server gives them up.
    for (let from = 0; from < count; from += 500) {
      const operations = Array.from({ length: Math.min(500, count - from) }, (_, i) => ({
        op: 'create',
        type: 'secrets',
        object: { name: `s${from + i}`, data: { password: value(from + i), user: 'me' } },
      }));
      const { body } = await call('POST', '/v1/batch', { operations });
      for (const { status } of body.results) expect(status).to.equal(201);
    }
  });
  after(async () => {
    await api?.stop();
    await database.drop();
  });

  /** How many objects hold a value of another key than the one that writes. */
  async function others(of: TestApi, keyId: string): Promise<number> {
    const [row] = await of.database.query<{ count: number }>({
      text: `select count(*) from syncsets.objects where replace(sealed::text, format('"k": "%s"', $1::text), '') like '%"k": "%'`,
      values: [keyId],
    });
    return row?.count ?? NaN;
  }

  async function versionAndEvents(of: TestApi): Promise<unknown> {
    return of.database.query({
      text: `select t.version, (select count(*) from syncsets.events e where e.type = t.type) as events,
          (select sum(o.version) from syncsets.objects o where o.type = t.type) as versions
        from syncsets.types t where t.type = 'secrets'`,
    });
  }

  it('goes on where it was interrupted, and makes neither versions nor events', async () => {
    const running = await platform(second, first);
    const secrets = await Secrets.load(running.database, [second, first]);
    const before = await versionAndEvents(running);
    let asked = 0;
    const half = await rotateKey({ database: running.database, secrets, log, stopping: () => ++asked > 4 });
    expect(half.interrupted).to.equal(true);
    const left = await others(running, secrets.writingId);
    expect(left).to.be.greaterThan(0).and.lessThan(count);
    const rest = await rotateKey({ database: running.database, secrets, log, stopping: () => false });
    expect(rest).to.deep.equal({ keyId: secrets.writingId, objects: new Map([['secrets', left]]), interrupted: false });
    expect(await others(running, secrets.writingId)).to.equal(0);
    expect(await versionAndEvents(running)).to.deep.equal(before);
    const again = await rotateKey({ database: running.database, secrets, log, stopping: () => false });
    expect([...again.objects]).to.deep.equal([]);
  });

  it('is not undone by a write that changes one of two values and keeps the other', async () => {
    const running = await platform(first, second);
    const { writingId } = await Secrets.load(running.database, [first, second]);
    await running.call('PATCH', '/v1/secrets/default/s0', { data: { user: 'you' } });
    expect(await others(running, writingId)).to.equal(count - 1);
  });

  it('waits for a write of the type that is under way, which would put the former values back', async () => {
    const running = await platform(first, second);
    const secrets = await Secrets.load(running.database, [first, second]);
    const locked = running.database.transaction(async queries => {
      await queries.query({ text: `select from syncsets.types where type = 'secrets' for update` });
      const rotation = rotateKey({ database: running.database, secrets, log, stopping: () => false });
      const first = await Promise.race([
        rotation.then(() => 'done'),
        until(async () => (await lockWaits(running.database)) > 0, { what: 'the rotation to wait' }).then(
          () => 'waits',
        ),
      ]);
      expect(first).to.equal('waits');
      return { rotation };
    });
    await (
      await locked
    ).rotation;
    expect(await others(running, secrets.writingId)).to.equal(0);
  });

  it('loses no value to writers at the same time, nor they theirs to it, and the old key is needed no longer', async () => {
    // To the other key, while every way of writing goes on: secrets kept, one of two changed by a mask, all replaced.
    const running = await platform(second, first);
    const secrets = await Secrets.load(running.database, [second, first]);
    let done = false;
    const expected = new Map<number, string>();
    const writers = Array.from({ length: 4 }, async (_, writer) => {
      for (let round = 0; !done; round++) {
        const i = (round * 7 + writer) % count;
        const mine = i - (i % 4) + writer;
        const path = `/v1/secrets/default/s${mine}`;
        const { status } =
          round % 3 === 0
            ? await running.call('PATCH', path, { labels: { round: String(round) } })
            : round % 3 === 1
              ? await running.call('PATCH', path, { data: { user: `user-${round}` } })
              : await running.call('PATCH', path, { data: { password: `new-${round}` } });
        expect(status).to.equal(200);
        if (round % 3 === 2) expected.set(mine, `new-${round}`);
      }
    });
    try {
      const rotation = await rotateKey({ database: running.database, secrets, log, stopping: () => false });
      expect(rotation.objects.get('secrets')).to.be.greaterThan(count / 2);
    } finally {
      done = true;
      await Promise.all(writers);
    }
    expect(expected.size).to.be.greaterThan(0);
    expect(await others(running, secrets.writingId)).to.equal(0);

    const alone = await platform(second);
    // A thousand reveals, one after the other, must fit into the lease of a claim on a busy machine.
    await alone.call('PUT', '/v1/controllers/seer', { type: 'secrets', reveal: ['secrets'], claimSeconds: 600 });
    const { body } = await alone.call('POST', '/v1/controllers/seer/claims', { worker: 'w', max: 1000 });
    expect(body.claims.length).to.be.greaterThan(900);
    for (const { name, token } of body.claims as { name: string; token: string }[]) {
      const answer = await alone.call('GET', `/v1/secrets/default/${name}/reveal`, undefined, { Claim: token });
      const i = Number(name.slice(1));
      expect(answer.body.fields?.data?.password, name).to.equal(expected.get(i) ?? value(i));
    }
  });
});
