import { expect } from 'chai';
import { expectError, type Body, type Subject } from './subject.js';

/** What holds for every write: versions, generations, preconditions, dry runs. */
export function writes(subject: Subject): void {
  const statuses = subject.example.status;
  const number = ({ resourceVersion }: { resourceVersion: string }) => Number(resourceVersion);

  it('versions of a type grow strictly, in the order of the answers', async () => {
    const object = await subject.create();
    const versions = [number(object)];
    for (let i = 0; i < 5; i++) versions.push(number((await subject.patch(object, { labels: { i: String(i) } })).body));
    versions.push(number(await subject.create()), number((await subject.delete(object)).body));
    expect(versions).to.deep.equal([...new Set(versions)].sort((a, b) => a - b));
  });

  it('an object has the version of its latest event', async () => {
    const before = await subject.version();
    const object = await subject.create();
    const changed = (await subject.patch(object, subject.change)).body as Body;
    const gone = (await subject.delete(object)).body as Body;
    await subject.create({ name: `${object.name}-last` });
    const events = await subject.eventsUntil(before, `${object.name}-last`);
    const own = events.filter(event => event.object?.name === object.name);
    expect(
      own.map(({ type, resourceVersion, object }) => [type, resourceVersion, object?.resourceVersion]),
    ).to.deep.equal([
      ['ADDED', object.resourceVersion, object.resourceVersion],
      ['MODIFIED', changed.resourceVersion, changed.resourceVersion],
      ['DELETED', gone.resourceVersion, gone.resourceVersion],
    ]);
  });

  it('a write that changes nothing stores nothing, bumps nothing, emits nothing', async () => {
    const object = await subject.create({ labels: { a: 'b' }, annotations: { c: 'd' } });
    for (const answer of [
      await subject.put(object, object),
      await subject.patch(object, {}),
      await subject.patch(object, { labels: { a: 'b' } }),
      await subject.patch(object, [], '', { 'Content-Type': 'application/json-patch+json' }),
      await subject.put(object, object, '/metadata'),
      await subject.patch(object, {}, '/metadata'),
    ]) {
      expect(answer.status).to.equal(200);
      expect(answer.body).to.deep.equal(object);
      expect(answer.headers.get('etag')).to.equal(`"${object.resourceVersion}"`);
    }
    const events = await subject.server().database.query({
      text: 'select from syncsets.events where type = $1 and uid = $2',
      values: [subject.type, object.uid],
    });
    expect(events).to.have.length(1);
  });

  it('the generation grows with own fields and with deletedAt, not with labels, annotations, finalizers, owners or status', async () => {
    const object = await subject.create();
    const owner = await subject.create();
    const owners = [{ type: subject.type, name: owner.name, uid: owner.uid }];
    const generations = [
      await subject.patch(object, { labels: { a: 'b' } }),
      await subject.patch(object, { annotations: { a: 'b' } }),
      await subject.patch(object, { finalizers: ['example.com/a'] }),
      await subject.patch(object, { owners }),
      ...(statuses ? [await subject.put(object, { status: statuses.first }, '/status')] : []),
      await subject.patch(object, subject.change),
      await subject.delete(object),
    ].map(({ body }) => body.generation);
    expect(generations).to.deep.equal([1, 1, 1, 1, ...(statuses ? [1] : []), 2, 3]);
  });

  it('updatedAt moves with every change, createdAt and uid never', async () => {
    const object = await subject.create();
    const { body } = await subject.patch(object, { labels: { a: 'b' } });
    expect(body).to.include({ createdAt: object['createdAt'], uid: object.uid });
    expect(Date.parse(body.updatedAt)).to.be.at.least(Date.parse(String(object['updatedAt'])));
    expect(body.updatedAt).not.to.equal(object['updatedAt']);
  });

  it('a write that names a stale version is a Conflict, whatever the verb, and one that names the stored version is done', async () => {
    for (const [what, write] of subject.labelWrites()) {
      const object = await subject.create();
      const { resourceVersion } = (await subject.patch(object, { labels: { moved: 'on' } })).body;
      const stale = { resourceVersion: object.resourceVersion };
      expectError(await write(object, stale), 409, 'Conflict');
      expectError(await write(object, {}, { 'If-Match': `"${object.resourceVersion}"` }), 409, 'Conflict');
      const current = await write(object, { resourceVersion });
      expect(current.status, what).to.equal(200);
      const matched = await write(object, {}, { 'If-Match': `"${current.body.resourceVersion}"` });
      expect(matched.status, what).to.equal(200);
      expect((await write(object, {}, { 'If-Match': '*' })).status, what).to.equal(200);
    }
    const object = await subject.create();
    expectError(await subject.delete(object, '?resourceVersion=1'), 409, 'Conflict');
    expect((await subject.delete(object, `?resourceVersion=${object.resourceVersion}`)).status).to.equal(200);
  });

  it('a write that names another uid is a Conflict, whatever the verb', async () => {
    const uid = '00000000-0000-4000-8000-000000000000';
    for (const [what, write] of subject.labelWrites()) {
      const object = await subject.create();
      expectError(await write(object, { uid }), 409, 'Conflict');
      expect((await write(object, { uid: object.uid })).status, what).to.equal(200);
    }
    const object = await subject.create();
    expectError(await subject.delete(object, `?uid=${uid}`), 409, 'Conflict');
    expect((await subject.delete(object, `?uid=${object.uid}`)).status).to.equal(200);
  });

  it('of two PUTs at once with the same version exactly one is done, the other a Conflict', async () => {
    const object = await subject.create();
    const { resourceVersion } = object;
    const answers = await Promise.all(
      ['a', 'b'].map(by => subject.put(object, { ...subject.example.object, labels: { by }, resourceVersion })),
    );
    expect(answers.map(({ status }) => status).sort()).to.deep.equal([200, 409]);
    expect(await subject.stored(object)).to.deep.equal(answers.find(({ status }) => status === 200)?.body);
  });

  it('patches at once without a version all come about: each is computed on what is stored', async () => {
    const object = await subject.create();
    const answers = await Promise.all(
      Array.from({ length: 6 }, (_, i) => subject.patch(object, { labels: { [`l${i}`]: '' } })),
    );
    expect(answers.map(({ status }) => status)).to.deep.equal(Array(6).fill(200));
    expect(Object.keys((await subject.stored(object))['labels'] as object)).to.have.length(6);
  });

  it('fields that a write leaves unchanged are not validated again, nor own fields by status and metadata writes', async () => {
    const { field, value } = subject.example.wrong;
    const object = await subject.create();
    await subject.server().database.query({
      text: 'update syncsets.objects set object = jsonb_set(object, array[$3], $4::jsonb) where type = $1 and uid = $2',
      values: [subject.type, object.uid, field, JSON.stringify(value)],
    });
    for (const [what, write] of subject.labelWrites()) {
      // A PUT that leaves the field out changes it.
      const answer = await write(object, what === 'PUT' ? { [field]: value } : {});
      expect(answer.status, `${what}: ${JSON.stringify(answer.body)}`).to.equal(200);
      expect(answer.body[field], what).to.deep.equal(value);
    }
    if (statuses) expect((await subject.put(object, { status: statuses.first }, '/status')).status).to.equal(200);
    await subject.server().database.query({
      text: `update syncsets.objects set object = object || '{"owners": [{"type": "former"}], "finalizers": ["a b"]}'
        where type = $1 and uid = $2`,
      values: [subject.type, object.uid],
    });
    expect((await subject.patch(object, { labels: { a: 'b' } })).status).to.equal(200);
    expect((await subject.patch(object, { finalizers: null }, '/metadata')).status).to.equal(200);
    expect((await subject.delete(object)).status).to.equal(200);
  });

  it('dryRun=All answers as each write would, stores nothing, and nobody hears of it', async () => {
    const before = await subject.version();
    const object = await subject.create({ labels: { a: 'b' } });
    const name = subject.fresh();
    const query = '?dryRun=All';
    const planned = subject.input({ name });
    const answers = [
      await subject.post({ name }, { query }),
      await subject.put(planned, planned, query, { 'If-None-Match': '*' }),
      await subject.put(object, { ...subject.example.object, ...subject.change }, query),
      await subject.patch(object, subject.change, query),
      await subject.put(object, { labels: { c: 'd' } }, `/metadata${query}`),
      await subject.patch(object, { labels: { c: 'd' } }, `/metadata${query}`),
      ...(statuses
        ? [
            await subject.put(object, { status: statuses.first }, `/status${query}`),
            await subject.patch(object, { status: statuses.first }, `/status${query}`),
          ]
        : []),
      await subject.delete(object, query),
    ];
    for (const { status, headers } of answers) {
      expect(status).to.be.within(200, 201);
      expect([headers.get('location'), headers.get('etag')]).to.deep.equal([null, null]);
    }
    expect(answers.map(({ status }) => status)).to.deep.equal([201, 201, ...Array(statuses ? 7 : 5).fill(200)]);
    expect(answers[0]?.body).to.include({ name, resourceVersion: '0', generation: 1 });
    expect(answers[2]?.body).to.include({ ...subject.change, generation: 2, resourceVersion: object.resourceVersion });
    const swept = await subject.call('DELETE', `${subject.collection}${query}&fieldSelector=name%3D${object.name}`);
    expect(swept.body).to.deep.equal({ count: 1 });
    expect(await subject.stored(object)).to.deep.equal(object);
    expect((await subject.get({ name })).status).to.equal(404);
    const last = await subject.create();
    const events = await subject.eventsUntil(before, last.name);
    expect(events.map(event => event.object?.name)).to.deep.equal([object.name, last.name]);
  });

  it('dryRun refuses what the write would be refused for, and takes no other value', async () => {
    const object = await subject.create();
    const query = '?dryRun=All';
    const { field, value } = subject.example.wrong;
    expectError(await subject.post({ name: object.name }, { query }), 409, 'AlreadyExists');
    expectError(await subject.post({ [field]: value }, { query }), 422, 'Invalid', [field]);
    expectError(await subject.patch(object, { resourceVersion: '1' }, query), 409, 'Conflict');
    expectError(await subject.delete({ name: 'nobody' }, query), 404, 'NotFound');
    expectError(await subject.post({}, { query: '?dryRun=Some' }), 400, 'InvalidQuery', ['dryRun']);
  });

  it('a POST, PUT or PATCH is applied once for one Idempotency-Key, and another body under it is refused', async () => {
    const headers = { 'Idempotency-Key': subject.fresh('key') };
    const name = subject.fresh();
    const [made, again] = [await subject.post({ name }, { headers }), await subject.post({ name }, { headers })];
    expect([made.status, again.status]).to.deep.equal([201, 201]);
    expect(again.body).to.deep.equal(made.body);
    expect(again.headers.get('location')).to.equal(subject.path({ name }));
    expectError(await subject.post({ name, labels: { a: 'b' } }, { headers }), 422, 'Invalid', ['Idempotency-Key']);
    for (const method of ['put', 'patch'] as const) {
      const key = { 'Idempotency-Key': subject.fresh('key') };
      const body = { ...subject.example.object, labels: { by: method } };
      const first = await subject[method]({ name }, body, '', key);
      await subject.patch({ name }, { labels: { by: 'another' } });
      expect((await subject[method]({ name }, body, '', key)).body).to.deep.equal(first.body);
      expect((await subject.stored({ name }))['labels']).to.deep.equal({ by: 'another' });
    }
  });
}
