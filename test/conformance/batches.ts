import { expect } from 'chai';
import { expectError, type Subject } from './subject.js';

/** Several objects in one request. */
export function batches(subject: Subject): void {
  const created = (name: string, fields: object = {}) =>
    subject.operation('create', { name }, { object: { ...subject.example.object, ...fields } });
  const statuses = ({ body }: { body: { results: { status: number }[] } }) => body.results.map(({ status }) => status);

  for (const atomic of [false, true]) {
    const kind = atomic ? 'an atomic batch' : 'a batch';

    it(`${kind} creates, replaces, patches, upserts and deletes, each operation after those before it on its object`, async () => {
      const name = subject.fresh();
      const { field, to } = subject.example.change;
      const answer = await subject.batch(
        [
          created(name),
          subject.operation('patch', { name }, { patch: { labels: { a: 'b' } } }),
          subject.operation(
            'patch',
            { name },
            { patchType: 'json', patch: [{ op: 'add', path: '/labels/c', value: 'd' }] },
          ),
          subject.operation(
            'patch',
            { name },
            { subresource: 'metadata', patch: { annotations: { e: 'f' }, ...subject.change } },
          ),
          subject.operation('replace', { name }, { subresource: 'metadata', object: { labels: { g: 'h' } } }),
          subject.operation('replace', { name }, { object: { ...subject.example.object, [field]: to } }),
          subject.operation(
            'upsert',
            { name },
            { object: { ...subject.example.object, [field]: to, labels: { i: 'j' } } },
          ),
          subject.operation('upsert', { name: `${name}-new` }, { object: subject.example.object }),
          subject.operation('delete', { name }),
        ],
        { atomic },
      );
      expect(answer.status, JSON.stringify(answer.body)).to.equal(200);
      expect(statuses(answer), JSON.stringify(answer.body)).to.deep.equal([
        201, 200, 200, 200, 200, 200, 200, 201, 200,
      ]);
      const objects = answer.body.results.map(({ object }: { object: object }) => object);
      expect(objects[2]).to.deep.include({ labels: { a: 'b', c: 'd' } });
      expect(objects[3]).to.deep.include({ annotations: { e: 'f' }, ...subject.example.object, generation: 1 });
      expect(objects[4])
        .to.deep.include({ labels: { g: 'h' } })
        .and.not.have.property('annotations');
      expect(objects[5])
        .to.include({ [field]: to, generation: 2 })
        .and.not.have.property('labels');
      expect(objects[6]).to.deep.include({ labels: { i: 'j' }, generation: 2 });
      expect((await subject.get({ name })).status).to.equal(404);
      expect(await subject.stored({ name: `${name}-new` })).to.deep.equal(objects[7]);
    });

    const { status } = subject.example;
    if (status) {
      it(`${kind} writes a status as its subresource`, async () => {
        const name = subject.fresh();
        const answer = await subject.batch(
          [
            created(name),
            subject.operation(
              'replace',
              { name },
              { subresource: 'status', object: { ...subject.change, status: status.first } },
            ),
            subject.operation('patch', { name }, { subresource: 'status', patch: { status: status.second } }),
          ],
          { atomic },
        );
        expect(statuses(answer), JSON.stringify(answer.body)).to.deep.equal([201, 200, 200]);
        expect(answer.body.results[2].object).to.deep.include({
          status: status.second,
          generation: 1,
          ...subject.example.object,
        });
      });
    }

    it(`${kind} is replayed under its Idempotency-Key, and another one refused`, async () => {
      const headers = { 'Idempotency-Key': subject.fresh('key') };
      const name = subject.fresh();
      const operations = [
        created(name),
        subject.operation('patch', { name }, { patch: {} }),
        subject.operation('delete', { name }),
      ];
      const first = await subject.batch(operations, { atomic }, headers);
      expect(statuses(first), JSON.stringify(first.body)).to.deep.equal([201, 200, 200]);
      await subject.create({ name });
      const again = await subject.batch(operations, { atomic }, headers);
      expect(again.body).to.deep.equal(first.body);
      await subject.stored({ name });
      expectError(await subject.batch(operations.slice(1), { atomic }, headers), 422, 'Invalid', ['Idempotency-Key']);
    });
  }

  it('a batch gives each operation the status and error it would have alone', async () => {
    const object = await subject.create();
    const { field, value } = subject.example.wrong;
    const stale = { resourceVersion: '1', patch: { labels: { a: 'b' } } };
    const answer = await subject.batch([
      created(object.name),
      created(subject.fresh(), { [field]: value }),
      created(subject.fresh(), { nope: 1 }),
      subject.operation('patch', { name: 'nobody' }, { patch: {} }),
      subject.operation('patch', object, stale),
      subject.operation('delete', object, { uid: '00000000-0000-4000-8000-000000000000' }),
      subject.operation('patch', object, { patch: { labels: { c: 'd' } } }),
      { op: 'create', type: 'nothings', object: {} },
      subject.operation('delete', object, { object: {} }),
    ]);
    const results = answer.body.results as { status: number; error?: { code: string } }[];
    expect(results.map(({ status, error }) => [status, error?.code])).to.deep.equal([
      [409, 'AlreadyExists'],
      [422, 'Invalid'],
      [400, 'UnknownField'],
      [404, 'NotFound'],
      [409, 'Conflict'],
      [409, 'Conflict'],
      [200, undefined],
      [404, 'UnknownType'],
      [422, 'Invalid'],
    ]);
  });

  it('an atomic batch with a failing operation stores nothing, answers its error, and says which one it was', async () => {
    const object = await subject.create();
    const name = subject.fresh();
    const operations = [
      created(name),
      subject.operation('patch', object, { patch: subject.change }),
      subject.operation('delete', { name: 'nobody' }),
    ];
    const answer = await subject.batch(operations, { atomic: true });
    expectError(answer, 404, 'NotFound');
    expect(answer.body.error.details[0].path).to.equal('operations[2]');
    expect((await subject.get({ name })).status).to.equal(404);
    expect(await subject.stored(object)).to.deep.equal(object);
  });

  it('a batch has at least one operation and at most 1,000, and none that it does not know', async () => {
    const many = Array.from({ length: 1_001 }, () => subject.operation('delete', { name: 'nobody' }));
    expectError(await subject.batch(many), 422, 'Invalid', ['operations']);
    expectError(await subject.batch([subject.operation('steal', { name: 'x' })]), 422, 'Invalid', ['operations[0].op']);
  });

  it('an NDJSON batch answers a line for each line, in their order, and replays them by key and line', async () => {
    const name = subject.fresh();
    const lines = [
      JSON.stringify(created(name)),
      '{"op": ',
      JSON.stringify(subject.operation('patch', { name }, { patch: { labels: { a: 'b' } } })),
      JSON.stringify(subject.operation('delete', { name })),
    ];
    const headers = { 'Content-Type': 'application/x-ndjson', 'Idempotency-Key': subject.fresh('key') };
    const send = async () => {
      const response = await fetch(`${subject.server().url}/v1/batch`, {
        method: 'POST',
        headers,
        body: lines.join('\n'),
      });
      expect(response.headers.get('content-type')).to.contain('application/x-ndjson');
      const text = await response.text();
      return text
        .trim()
        .split('\n')
        .map(line => JSON.parse(line) as Record<string, unknown>);
    };
    const first = await send();
    expect(first.map(({ index, status }) => [index, status])).to.deep.equal([
      [0, 201],
      [1, 400],
      [2, 200],
      [3, 200],
    ]);
    expect(first[2]?.['object']).to.deep.include({ labels: { a: 'b' } });
    // What could not be read has no answer of before.
    const readable = (results: typeof first) => results.filter(({ status }) => status !== 400);
    expect(readable(await send())).to.deep.equal(readable(first));
  });
}
