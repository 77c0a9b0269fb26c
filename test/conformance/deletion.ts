import { expect } from 'chai';
import { connect, type Client } from '../../client/index.js';
import { startControllers } from '../../controllers/index.js';
import { until } from '../until.js';
import { expectError, type Body, type Subject } from './subject.js';

/** Finalizers, and what becomes of what an object owns. */
export function deletion(subject: Subject): void {
  const ownerOf = ({ name, uid }: Body, more: object = {}) => ({
    owners: [{ type: subject.type, name, uid, ...more }],
  });

  it('DELETE of an object with finalizers sets deletedAt, which is a MODIFIED event, and returns the object', async () => {
    const before = await subject.version();
    const object = await subject.create({ finalizers: ['example.com/a'] });
    const { status, body } = await subject.delete(object);
    expect(status).to.equal(200);
    expect(body).to.deep.include({ uid: object.uid, finalizers: ['example.com/a'], generation: 2 });
    expect(body.deletedAt).to.be.a('string').and.equal(body.updatedAt);
    expect(await subject.stored(object)).to.deep.equal(body);
    const last = await subject.create();
    const events = await subject.eventsUntil(before, last.name);
    expect(events.map(({ type }) => type)).to.deep.equal(['ADDED', 'MODIFIED', 'ADDED']);
    expect(events[1]?.object).to.deep.equal(body);
  });

  it('deletedAt never changes, and asking again changes nothing', async () => {
    const object = await subject.create({ finalizers: ['example.com/a'] });
    const { body } = await subject.delete(object);
    expect((await subject.delete(object)).body).to.deep.equal(body);
    const patched = await subject.patch(object, { deletedAt: null, labels: { a: 'b' } });
    expect(patched.body).to.include({ deletedAt: body.deletedAt, generation: 2 });
  });

  it('no finalizer may be added after, others may be removed, and own fields still change', async () => {
    const object = await subject.create({ finalizers: ['a', 'b'] });
    await subject.delete(object);
    for (const suffix of ['', '/metadata'])
      expectError(await subject.patch(object, { finalizers: ['a', 'c'] }, suffix), 422, 'Invalid', ['finalizers']);
    expect((await subject.patch(object, { finalizers: ['b'] })).body.finalizers).to.deep.equal(['b']);
    expect((await subject.patch(object, subject.change)).body).to.deep.include({ ...subject.change, generation: 3 });
  });

  it('removing the last finalizer deletes: DELETED with the last state and a new version', async () => {
    for (const suffix of ['', '/metadata']) {
      const object = await subject.create({ finalizers: ['a'] });
      const marked = (await subject.delete(object)).body;
      const { status, body } = await subject.patch(object, { finalizers: [], labels: { last: 'words' } }, suffix);
      expect(status).to.equal(200);
      expect(Number(body.resourceVersion)).to.be.greaterThan(Number(marked.resourceVersion));
      expectError(await subject.get(object), 404, 'NotFound');
      const last = await subject.create();
      const [event] = await subject.eventsUntil(marked.resourceVersion, last.name);
      expect(event).to.include({ type: 'DELETED', resourceVersion: body.resourceVersion });
      expect(event?.object).to.deep.include({ uid: object.uid, labels: { last: 'words' }, finalizers: [] });
    }
  });

  it('a DELETE of the collection marks what has finalizers', async () => {
    const { selector, objects } = await subject.crowd(2, i => (i === 0 ? { finalizers: ['a'] } : {}));
    expect((await subject.call('DELETE', `${subject.collection}?${selector}`)).body).to.deep.equal({ count: 2 });
    const left = await subject.list(selector);
    expect(left.items.map(({ name }) => name)).to.deep.equal([objects[0]?.name]);
    expect(left.items[0]).to.have.property('deletedAt');
  });

  it('the policies Foreground and Orphan are finalizers, and Background is the default', async () => {
    for (const [policy, finalizer] of [
      ['Foreground', 'foreground'],
      ['Orphan', 'orphan'],
    ]) {
      const object = await subject.create();
      const { body } = await subject.delete(object, `?propagationPolicy=${policy}`);
      expect(body).to.deep.include({ finalizers: [finalizer], generation: 2 });
      expect((await subject.stored(object))['deletedAt']).to.be.a('string');
    }
    for (const query of ['', '?propagationPolicy=Background']) {
      const object = await subject.create();
      await subject.delete(object, query);
      expectError(await subject.get(object), 404, 'NotFound');
    }
    expectError(await subject.delete({ name: 'x' }, '?propagationPolicy=Other'), 400, 'InvalidQuery');
  });

  describe('with the garbage collector', () => {
    let client: Client;
    let controllers: ReturnType<typeof startControllers>;
    before(async () => {
      client = connect({ url: subject.server().url });
      controllers = startControllers({ apiUrl: subject.server().url, log: () => undefined });
      await controllers.start();
    });
    after(async () => {
      await controllers.stop();
      await client.close();
    });
    const gone = (...objects: Body[]) =>
      until(
        async () => (await Promise.all(objects.map(one => subject.get(one)))).every(({ status }) => status === 404),
        {
          what: `${objects.map(({ name }) => name).join()} to be gone`,
          deadline: 20_000,
        },
      );

    it('owners are matched by uid: a dependent of a former object of the name goes, one of the present object stays', async () => {
      const owner = await subject.create();
      const uid = owner.uid.replace(/^.{8}/, '00000000');
      const [own, former] = [await subject.create(ownerOf(owner)), await subject.create(ownerOf({ ...owner, uid }))];
      await gone(former);
      await subject.stored(own);
    });

    it('Background deletes dependents after the owner, Foreground before it, Orphan not at all', async () => {
      const [background, foreground, orphan] = [await subject.create(), await subject.create(), await subject.create()];
      const behind = await subject.create(ownerOf(background));
      const ahead = await subject.create({
        ...ownerOf(foreground, { blockOwnerDeletion: true }),
        finalizers: ['example.com/a'],
      });
      const left = await subject.create(ownerOf(orphan));
      await subject.delete(background);
      await subject.delete(foreground, '?propagationPolicy=Foreground');
      await subject.delete(orphan, '?propagationPolicy=Orphan');
      await gone(background, behind, orphan);
      await until(async () => (await subject.stored(ahead))['deletedAt'], { what: 'the dependent to be marked' });
      await subject.stored(foreground);
      await subject.patch(ahead, { finalizers: [] });
      await gone(ahead, foreground);
      expect((await subject.stored(left))['owners'] ?? []).to.deep.equal([]);
    });
  });
}
