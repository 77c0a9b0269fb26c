import { expect } from 'chai';
import { expectError, type Subject } from './subject.js';

const uuid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const moment = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z$/;
const absent = '00000000-0000-4000-8000-000000000000';

/** What all objects carry around their own fields. */
export function envelope(subject: Subject): void {
  const { namespaced, type } = subject.definition;

  it('the server sets type, uid, resourceVersion, generation, createdAt and updatedAt', async () => {
    const object = await subject.create();
    expect(object['type']).to.equal(type);
    expect(object.uid).to.match(uuid);
    expect(object.resourceVersion).to.match(/^[1-9]\d*$/);
    expect(object.generation).to.equal(1);
    expect(object['createdAt']).to.match(moment).and.equal(object['updatedAt']);
    expect(object).not.to.have.any.keys('deletedAt', 'status');
  });

  it('what the server sets is ignored in bodies', async () => {
    const forged = { generation: 7, createdAt: 'x', updatedAt: 1, deletedAt: '2020-01-01T00:00:00Z', status: { a: 1 } };
    const object = await subject.create(forged);
    expect(object.generation).to.equal(1);
    expect(object['createdAt']).to.match(moment);
    expect(object).not.to.have.any.keys('deletedAt', 'status');
    const replaced = await subject.put(object, { ...subject.example.object, ...forged });
    expect(replaced.body).to.deep.equal(object);
    expect((await subject.patch(object, forged)).body).to.deep.equal(object);
  });

  it('a type in a body must be that of the URL', async () => {
    expect((await subject.post({ type })).status).to.equal(201);
    expectError(await subject.post({ type: 'others' }), 422, 'Invalid', ['type']);
    const object = await subject.create();
    expectError(await subject.put(object, { ...object, type: 'others' }), 422, 'Invalid', ['type']);
    expectError(await subject.patch(object, { type: 'others' }), 422, 'Invalid', ['type']);
  });

  it('a name is required, or generateName: a DNS-1123 subdomain of at most 253 characters', async () => {
    expectError(await subject.post({ name: undefined }), 422, 'Invalid', ['name']);
    for (const name of ['', 'A', 'a_b', '-a', 'a.', 'x'.repeat(254), 'a/b'])
      expectError(await subject.post({ name }), 422, 'Invalid', ['name']);
    for (const name of [subject.fresh('a.b-'), subject.fresh('x'.repeat(240))])
      expect((await subject.get(await subject.create({ name }))).status, name).to.equal(200);
  });

  it('a name never changes', async () => {
    const object = await subject.create();
    expectError(await subject.put(object, { ...object, name: 'other' }), 422, 'Invalid', ['name']);
    expectError(await subject.patch(object, { name: 'other' }), 422, 'Invalid', ['name']);
    const patch = [{ op: 'replace', path: '/name', value: 'other' }];
    const headers = { 'Content-Type': 'application/json-patch+json' };
    expectError(await subject.patch(object, patch, '', headers), 422, 'Invalid', ['name']);
  });

  if (namespaced) {
    it('a namespace is "default" unless said, a DNS-1123 label of at most 63 characters, and never changes', async () => {
      const name = subject.fresh();
      const inDefault = await subject.post({ name, namespace: undefined });
      expect(inDefault.body).to.include({ name, namespace: 'default' });
      expect(inDefault.headers.get('location')).to.equal(`/v1/${type}/default/${name}`);
      for (const namespace of ['a.b', 'A', '', 'x'.repeat(64)])
        expectError(await subject.post({ namespace }), 422, 'Invalid', ['namespace']);
      const object = await subject.create();
      expectError(await subject.put(object, { ...object, namespace: 'other' }), 422, 'Invalid', ['namespace']);
    });

    it('the same name may be taken in each namespace', async () => {
      const { name } = await subject.create();
      expect((await subject.post({ name, namespace: 'elsewhere' })).status).to.equal(201);
    });
  } else {
    it('a cluster-wide type has no namespace, neither in bodies nor in answers', async () => {
      expect(await subject.create()).not.to.have.property('namespace');
      expectError(await subject.post({ namespace: 'default' }), 400, 'UnknownField', ['namespace']);
      expectError(await subject.call('GET', `${subject.collection}?namespace=default`), 400, 'InvalidQuery');
    });
  }

  it('labels and annotations are maps of texts in the syntax of Kubernetes', async () => {
    const fine = { 'example.com/a_B.c-1': 'x'.repeat(63), empty: '' };
    const object = await subject.create({ labels: fine, annotations: { ...fine, note: 'any text,\nof any form' } });
    expect(object).to.deep.include({ labels: fine });
    expectError(await subject.post({ labels: { 'a b': 'x' } }), 422, 'Invalid', ['labels.a b']);
    expectError(await subject.post({ labels: { a: 'x'.repeat(64), b: '-' } }), 422, 'Invalid', [
      'labels.a',
      'labels.b',
    ]);
    expectError(await subject.post({ labels: { a: 1 } }), 422, 'Invalid', ['labels.a']);
    expectError(await subject.patch(object, { annotations: { 'a/b/c': '' } }), 422, 'Invalid', ['annotations.a/b/c']);
  });

  it('finalizers are qualified names, each there once', async () => {
    expect(await subject.create({ finalizers: ['example.com/a', 'b'] })).to.deep.include({
      finalizers: ['example.com/a', 'b'],
    });
    expectError(await subject.post({ finalizers: ['a', 'a', 'b c'] }), 422, 'Invalid', [
      'finalizers[1]',
      'finalizers[2]',
    ]);
  });

  it('owners name type, name and uid; at most one controls, none is named twice, none lies in another namespace', async () => {
    const owner = await subject.create();
    const { name, uid } = owner;
    const one = { type, name, uid };
    const owners = [{ ...one, controller: true, blockOwnerDeletion: true }];
    expect(await subject.create({ owners })).to.deep.include({ owners });
    expectError(await subject.post({ owners: [one, one] }), 422, 'Invalid', ['owners[1].uid']);
    const both = [owners[0], { ...one, uid: absent, controller: true }];
    expectError(await subject.post({ owners: both }), 422, 'Invalid', ['owners']);
    expectError(await subject.post({ owners: [{ type, name }] }), 422, 'Invalid', ['owners[0].uid']);
    expectError(await subject.post({ owners: [{ ...one, type: 'nothings' }] }), 422, 'Invalid', ['owners[0].type']);
    const elsewhere = [{ ...one, namespace: 'elsewhere' }];
    expectError(await subject.post({ owners: elsewhere }), 422, 'Invalid', ['owners[0].namespace']);
  });

  it('generateName adds five of the characters bcdfghjklmnpqrstvwxz2456789', async () => {
    const { body, headers, status } = await subject.post({ name: undefined, generateName: 'made-' });
    expect(status).to.equal(201);
    expect(body.name).to.match(/^made-[bcdfghjklmnpqrstvwxz2456789]{5}$/);
    expect(body).not.to.have.property('generateName');
    expect(headers.get('location')).to.equal(subject.path(body));
    expect((await subject.get(body)).body).to.deep.equal(body);
    expectError(await subject.post({ name: undefined, generateName: 'No_' }), 422, 'Invalid', ['generateName']);
  });

  it("the type's own fields are checked by its model, and their defaults filled in", async () => {
    const { field, value } = subject.example.wrong;
    expectError(await subject.post({ [field]: value }), 422, 'Invalid', [field]);
    const object = await subject.create();
    expectError(await subject.put(object, { ...subject.example.object, [field]: value }), 422, 'Invalid', [field]);
    expectError(await subject.patch(object, { [field]: value }), 422, 'Invalid', [field]);
    for (const [name, standard] of Object.entries(subject.definition.defaults)) {
      if (name in subject.example.object) continue;
      expect(object[name]).to.deep.equal(standard);
      expect((await subject.patch(object, { [name]: null })).body, name).to.deep.equal(object);
    }
  });
}
