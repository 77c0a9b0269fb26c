import { expect } from 'chai';
import { expectError, jsonPatch, mergePatch, type Subject } from './subject.js';

/** The table of verbs, row by row. */
export function verbs(subject: Subject): void {
  const { field, to } = subject.example.change;

  it('POST answers 201 with the object, its Location and its version as ETag', async () => {
    const { status, body, headers } = await subject.post();
    expect(status).to.equal(201);
    expect(headers.get('location')).to.equal(subject.path(body));
    expect(headers.get('etag')).to.equal(`"${body.resourceVersion}"`);
    expect(body).to.deep.include(subject.example.object);
  });

  it('POST of a name that is taken answers 409 AlreadyExists and changes nothing', async () => {
    const object = await subject.create();
    expectError(await subject.post({ name: object.name, ...subject.change }), 409, 'AlreadyExists');
    expect(await subject.stored(object)).to.deep.equal(object);
  });

  it('POST cannot be meant for a version or uid: 409 Conflict', async () => {
    expectError(await subject.post({ resourceVersion: '1' }), 409, 'Conflict');
    expectError(await subject.post({ uid: '00000000-0000-4000-8000-000000000000' }), 409, 'Conflict');
  });

  it('GET answers 200 with what was answered to the write, and the version as ETag', async () => {
    const object = await subject.create();
    const { status, body, headers } = await subject.get(object);
    expect(status).to.equal(200);
    expect(body).to.deep.equal(object);
    expect(headers.get('etag')).to.equal(`"${object.resourceVersion}"`);
  });

  it('GET with If-None-Match of the version answers 304, of another one 200', async () => {
    const object = await subject.create();
    for (const [tag, status] of [
      [`"${object.resourceVersion}"`, 304],
      [`W/"${object.resourceVersion}"`, 304],
      [`"1", "${object.resourceVersion}"`, 304],
      ['*', 304],
      ['"1"', 200],
    ] as const) {
      expect((await subject.get(object, '', { 'If-None-Match': tag })).status, tag).to.equal(status);
    }
  });

  it('HEAD answers as GET does, without the body', async () => {
    const object = await subject.create();
    const head = async (path: string) => {
      const response = await fetch(subject.server().url + path, { method: 'HEAD' });
      return [response.status, await response.text(), response.headers.get('etag')];
    };
    expect(await head(subject.path(object))).to.deep.equal([200, '', `"${object.resourceVersion}"`]);
    expect(await head(subject.path({ name: 'nobody' }))).to.deep.equal([404, '', null]);
    expect(await head(subject.collection)).to.deep.equal([200, '', null]);
    expect(await head(`${subject.collection}?resourceVersion=999999999`)).to.deep.equal([410, '', null]);
  });

  it('what does not exist is 404 NotFound to every verb', async () => {
    const nobody = { name: 'nobody' };
    for (const suffix of ['', '/metadata', ...(subject.definition.status === undefined ? [] : ['/status'])]) {
      expectError(await subject.get(nobody, suffix), 404, 'NotFound');
      expectError(await subject.put(nobody, {}, suffix), 404, 'NotFound');
      expectError(await subject.patch(nobody, {}, suffix), 404, 'NotFound');
    }
    expectError(await subject.delete(nobody), 404, 'NotFound');
  });

  it('PUT replaces: what the body leaves out is removed, or set to its default', async () => {
    const object = await subject.create({ labels: { a: 'b' }, annotations: { c: 'd' } });
    const { status, body } = await subject.put(object, { ...subject.example.object, [field]: to });
    expect(status).to.equal(200);
    expect(body).to.include({ [field]: to, uid: object.uid, createdAt: object['createdAt'] });
    expect(body).not.to.have.any.keys('labels', 'annotations');
    expect(await subject.stored(object)).to.deep.equal(body);
  });

  it('PUT creates only with If-None-Match: *, and then only what is not there', async () => {
    const object = subject.input();
    const headers = { 'If-None-Match': '*' };
    expectError(await subject.put(object, object), 404, 'NotFound');
    const created = await subject.put(object, { ...object, name: undefined, namespace: undefined }, '', headers);
    expect(created.status).to.equal(201);
    expect(created.headers.get('location')).to.equal(subject.path(object));
    expect(await subject.stored(object)).to.deep.equal(created.body);
    expectError(await subject.put(object, object, '', headers), 409, 'AlreadyExists');
  });

  it('PATCH merges: what is left out stays, null removes', async () => {
    const object = await subject.create({ labels: { a: '1', b: '2' }, annotations: { c: 'd' } });
    for (const headers of [{}, mergePatch]) {
      const patch = { labels: { b: null, [subject.fresh('l')]: '3' }, annotations: null };
      const { status, body } = await subject.patch(object, patch, '', headers);
      expect(status).to.equal(200);
      expect(body).to.deep.include(subject.example.object);
      expect(body.labels).to.include({ a: '1' }).and.not.have.property('b');
      expect(body).not.to.have.property('annotations');
    }
  });

  it('PATCH takes a JSON patch; a failed test is a Conflict, a path that leads nowhere Invalid, and neither stores', async () => {
    const object = await subject.create();
    const patch = [
      { op: 'test', path: `/${field}`, value: object[field] },
      { op: 'replace', path: `/${field}`, value: to },
      { op: 'add', path: '/labels', value: { a: 'b' } },
    ];
    const { status, body } = await subject.patch(object, patch, '', jsonPatch);
    expect(status).to.equal(200);
    expect(body).to.deep.include({ [field]: to, labels: { a: 'b' }, generation: 2 });
    expectError(await subject.patch(object, patch, '', jsonPatch), 409, 'Conflict');
    const nowhere = [
      { op: 'remove', path: '/labels/a' },
      { op: 'remove', path: '/labels/none' },
    ];
    expectError(await subject.patch(object, nowhere, '', jsonPatch), 422, 'Invalid');
    expect(await subject.stored(object)).to.deep.equal(body);
  });

  it('the result of a patch is validated, not the patch', async () => {
    const object = await subject.create();
    const { field: name, value } = subject.example.wrong;
    const add = (path: string, what: unknown) => [{ op: 'add', path, value: what }];
    expectError(await subject.patch(object, add(`/${name}`, value), '', jsonPatch), 422, 'Invalid', [name]);
    expectError(await subject.patch(object, add('/nope', 1), '', jsonPatch), 400, 'UnknownField', ['nope']);
    const thereAndBack = [...add(`/${name}`, value), { op: 'remove', path: `/${name}` }, ...add('/labels', { a: 'b' })];
    // A required field cannot be taken out; of the examples, none of the wrong fields is one.
    expect((await subject.patch(object, thereAndBack, '', jsonPatch)).status).to.equal(200);
  });

  it('any other content type is 415', async () => {
    const object = await subject.create();
    const headers = { 'Content-Type': 'application/apply-patch+yaml' };
    expectError(await subject.patch(object, {}, '', headers), 415, 'UnsupportedMediaType');
    expectError(await subject.put(object, {}, '', mergePatch), 415, 'UnsupportedMediaType');
    expectError(await subject.post({}, { headers: { 'Content-Type': 'text/plain' } }), 415, 'UnsupportedMediaType');
  });

  it('DELETE answers 200 with the object as it was last, takes no body, and the object is gone', async () => {
    const object = await subject.create();
    expectError(await subject.call('DELETE', subject.path(object), {}), 400, 'InvalidJson');
    const { status, body } = await subject.delete(object);
    expect(status).to.equal(200);
    expect({ ...body, resourceVersion: '' }).to.deep.equal({ ...object, resourceVersion: '' });
    expectError(await subject.get(object), 404, 'NotFound');
  });

  it('an object that is deleted and made again has another uid, and generation 1', async () => {
    const object = await subject.create();
    await subject.patch(object, subject.change);
    await subject.delete(object);
    const again = await subject.create({ name: object.name });
    expect(again.uid).not.to.equal(object.uid);
    expect(again.generation).to.equal(1);
    expect(Number(again.resourceVersion)).to.be.greaterThan(Number(object.resourceVersion));
  });

  it('DELETE of the collection needs a selector or all=true, and counts', async () => {
    const { selector, objects } = await subject.crowd(3);
    expectError(await subject.call('DELETE', subject.collection), 400, 'InvalidQuery');
    expectError(await subject.call('DELETE', `${subject.collection}?labelSelector=`), 400, 'InvalidQuery');
    expectError(await subject.call('DELETE', `${subject.collection}?${selector}&all=true`), 400, 'InvalidQuery');
    const owner = objects[0];
    const owners = [{ type: subject.type, name: owner?.name, uid: owner?.uid }];
    const owned = await subject.create({ owners });
    const byOwner = await subject.call('DELETE', `${subject.collection}?ownerUid=${owner?.uid}`);
    expect([byOwner.status, byOwner.body]).to.deep.equal([200, { count: 1 }]);
    expect((await subject.get(owned)).status).to.equal(404);
    const answer = await subject.call('DELETE', `${subject.collection}?${selector}`);
    expect([answer.status, answer.body]).to.deep.equal([200, { count: 3 }]);
    expect((await subject.list(selector)).items).to.deep.equal([]);
  });

  it('Prefer: return=minimal leaves the object out of the answer to a write', async () => {
    const headers = { Prefer: 'return=minimal' };
    const name = subject.fresh();
    const answers = [
      await subject.post({ name }, { headers }),
      await subject.put({ name }, subject.example.object, '', headers),
      await subject.patch({ name }, subject.change, '', headers),
      await subject.call('DELETE', subject.path({ name }), undefined, headers),
    ];
    expect(answers.map(({ status }) => status)).to.deep.equal([201, 204, 204, 204]);
    for (const answer of answers) {
      expect(answer.body).to.equal('');
      expect(answer.headers.get('etag')).to.match(/^"\d+"$/);
      expect(answer.headers.get('preference-applied')).to.equal('return=minimal');
    }
    expect(answers[0]?.headers.get('location')).to.equal(subject.path({ name }));
  });

  it('/v1 lists the type, /openapi.json documents its routes, and its table has its name', async () => {
    const { kind, namespaced, description, type } = subject.definition;
    const types = await subject.call('GET', '/v1');
    expect(types.body.items).to.deep.include({ type, kind, namespaced, description, path: `/v1/${type}` });
    const { paths } = (await subject.call('GET', '/openapi.json')).body;
    const object = `/v1/${type}${namespaced ? '/{namespace}' : ''}/{name}`;
    expect(paths).to.include.keys(`/v1/${type}`, object, `${object}/metadata`);
    const { name } = await subject.create();
    const rows = await subject
      .server()
      .database.query({ text: `select 1 from public.${type} where name = $1`, values: [name] });
    expect(rows).to.have.length(1);
  });
}
