import { expect } from 'chai';
import { expectError, jsonPatch, type Subject } from './subject.js';

/** What is written apart from the rest of an object. */
export function subresources(subject: Subject): void {
  const { status: statuses } = subject.example;
  if (statuses) status(subject, statuses);
  else {
    it('a type without status has no status subresource, and ignores one in bodies', async () => {
      const object = await subject.create({ status: { any: 1 } });
      expect(object).not.to.have.property('status');
      expectError(await subject.get(object, '/status'), 404, 'UnknownType');
      expectError(await subject.put(object, { status: {} }, '/status'), 404, 'UnknownType');
      const [result] = (
        await subject.batch([subject.operation('patch', object, { subresource: 'status', patch: { status: {} } })])
      ).body.results;
      expect(result.status).to.equal(400);
    });
  }

  it('metadata is read, replaced and patched apart; what it leaves out of labels, annotations, finalizers and owners goes', async () => {
    const object = await subject.create({ labels: { a: '1' }, annotations: { b: '2' } });
    expect((await subject.get(object, '/metadata')).body).to.deep.equal(object);
    const put = await subject.put(
      object,
      { ...object, ...subject.change, labels: { c: '3' }, annotations: undefined },
      '/metadata',
    );
    expect(put.status).to.equal(200);
    expect(put.body).to.deep.include({ ...subject.example.object, labels: { c: '3' }, generation: 1 });
    expect(put.body).not.to.have.property('annotations');
    const patched = await subject.patch(
      object,
      { ...subject.change, labels: { d: '4' }, finalizers: ['x'] },
      '/metadata',
    );
    expect(patched.body).to.deep.include({
      ...subject.example.object,
      labels: { c: '3', d: '4' },
      finalizers: ['x'],
      generation: 1,
    });
    const patch = [{ op: 'remove', path: '/finalizers/0' }];
    expect((await subject.patch(object, patch, '/metadata', jsonPatch)).body).to.deep.include({ finalizers: [] });
  });

  it('metadata is checked as everywhere', async () => {
    const object = await subject.create();
    expectError(await subject.put(object, { labels: { 'a b': '' } }, '/metadata'), 422, 'Invalid', ['labels.a b']);
    expectError(await subject.patch(object, { owners: 1 }, '/metadata'), 422, 'Invalid', ['owners']);
  });
}

function status(subject: Subject, { first, second, wrong }: NonNullable<Subject['example']['status']>): void {
  it('the status is written through its subresource only, and everything else sent there is ignored', async () => {
    const object = await subject.create({ status: first });
    expect(object).not.to.have.property('status');
    const put = await subject.put(
      object,
      { ...object, ...subject.change, labels: { no: 'way' }, status: first },
      '/status',
    );
    expect([put.status, put.body.status]).to.deep.equal([200, first]);
    expect(put.body).to.deep.include(subject.example.object).and.not.have.property('labels');
    expect((await subject.put(object, { ...subject.example.object, status: second })).body.status).to.deep.equal(first);
    expect((await subject.patch(object, { labels: { a: 'b' }, status: second })).body.status).to.deep.equal(first);
    expect((await subject.patch(object, { status: null }, '/metadata')).body.status).to.deep.equal(first);
    expect((await subject.get(object, '/status')).body).to.deep.equal(await subject.stored(object));
  });

  it('the status is patched by merge and by JSON patch, and removed by a PUT without one', async () => {
    const object = await subject.create();
    const merged = await subject.patch(object, { status: second, ...subject.change }, '/status');
    expect(merged.body).to.deep.include({ status: second, ...subject.example.object });
    const patch = [{ op: 'replace', path: '/status', value: first }];
    expect((await subject.patch(object, patch, '/status', jsonPatch)).body.status).to.deep.equal(first);
    expect((await subject.put(object, {}, '/status')).body).not.to.have.property('status');
  });

  it('a status is validated by its model', async () => {
    const object = await subject.create();
    const path = `status.${wrong.field}`;
    expectError(await subject.put(object, { status: { [wrong.field]: wrong.value } }, '/status'), 422, 'Invalid', [
      path,
    ]);
    expectError(await subject.patch(object, { status: { nope: 1 } }, '/status'), 400, 'UnknownField', ['status.nope']);
  });

  it('a status write has a new version and the same generation; one that changes nothing has neither', async () => {
    const object = await subject.create();
    const { body } = await subject.put(object, { status: first }, '/status');
    expect(body.generation).to.equal(1);
    expect(Number(body.resourceVersion)).to.be.greaterThan(Number(object.resourceVersion));
    expect((await subject.put(object, { status: first }, '/status')).body).to.deep.equal(body);
  });

  it('a status write meant for another version or uid is a Conflict', async () => {
    const object = await subject.create();
    await subject.patch(object, { labels: { a: 'b' } });
    const { resourceVersion, uid } = object;
    expectError(await subject.put(object, { status: first, resourceVersion }, '/status'), 409, 'Conflict');
    expectError(await subject.patch(object, { status: first, resourceVersion }, '/status'), 409, 'Conflict');
    const other = uid.replace(/^.{8}/, '00000000');
    expectError(await subject.put(object, { status: first, uid: other }, '/status'), 409, 'Conflict');
  });
}
