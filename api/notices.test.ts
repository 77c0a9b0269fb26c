import { expect } from 'chai';
import { TestController } from '../test/controller.js';
import { startApi, type TestApi } from '../test/platform.js';

describe('notices', () => {
  let api: TestApi;
  let serial = 0;
  before(async () => {
    api = await startApi();
  });
  after(() => api.stop());

  async function create() {
    const { body } = await api.call('POST', '/v1/clusters', { name: `k${++serial}`, namespace: 'work' });
    return body as { name: string };
  }

  it('records notices, counts repeats and lists the newest first', async () => {
    const object = await create();
    const path = `/v1/clusters/work/${object.name}/notices`;
    await api.call('POST', path, { reason: 'Slow', message: 'took long' });
    const repeated = await api.call('POST', path, { reason: 'Slow', message: 'took long' });
    expect([repeated.status, repeated.body.count]).to.deep.equal([201, 2]);
    expect((await api.call('GET', path)).body.items).to.have.length(1);
  });

  it('keeps the latest 250 of an object, and shows all that it keeps', async () => {
    const object = await create();
    const path = `/v1/clusters/work/${object.name}/notices`;
    await api.database.query({
      text: `insert into syncsets.notices (type, namespace, name, actor, reason, message, last_at)
        select 'clusters', 'work', $1, 'client', 'Flood', 'number ' || n, clock_timestamp() - make_interval(secs => n)
        from generate_series(1, 250) n`,
      values: [object.name],
    });
    await api.call('POST', path, { reason: 'Flood', message: 'number 249' });
    await api.call('POST', path, { reason: 'Flood', message: 'number 0' });
    const { items } = (await api.call('GET', path)).body;
    expect(items).to.have.length(250);
    const messages = items.map(({ message }: { message: string }) => message);
    expect(messages.slice(0, 3)).to.deep.equal(['number 0', 'number 249', 'number 1']);
    expect(messages).not.to.include('number 250');
  });

  it('keeps a notice of the longest text', async () => {
    const object = await create();
    const message = Array.from({ length: 4096 }, () => String.fromCharCode(0x4e00 + Math.random() * 20_000)).join('');
    const notice = { reason: 'Long', message };
    const answer = await api.call('POST', `/v1/clusters/work/${object.name}/notices`, notice);
    expect(answer.status).to.equal(201);
  });

  it('refuses a notice under a claim that nobody holds', async () => {
    const controller = new TestController(api, 'forgetful');
    await controller.register();
    const object = await create();
    const [one] = await controller.claim({ waitSeconds: 5 });
    expect(await controller.done(one ? [one] : [])).to.deep.equal(['ok']);
    const notice = { reason: 'Forged', message: 'by nobody' };
    const path = `/v1/clusters/work/${object.name}/notices`;
    expect((await api.call('POST', path, notice, { Claim: one?.token ?? '' })).status).to.equal(409);
  });
});
