import { expect } from 'chai';
import { expectError, jsonPatch, type Body, type Subject } from './subject.js';

const mask = '••••••';
// Base64, for types whose rules want that.
const canary = 'Y2FuYXJ5LW5ldmVyLXNlZW4h';
const other = 'b3RoZXItY2FuYXJ5';

/** Fields marked `@secret`. */
export function secrets(subject: Subject): void {
  for (const { field, map } of subject.definition.secrets) describe(field, () => secretField(subject, field, map));
}

function secretField(subject: Subject, field: string, map: boolean): void {
  const holding = (value: string, more: Record<string, string> = {}) => ({
    [field]: map ? { key: value, ...more } : value,
  });
  const masked = holding(mask);

  async function reveal({ name }: Body, registration: object = { reveal: [subject.type] }) {
    const controller = subject.fresh('seer');
    await subject.call('PUT', `/v1/controllers/${controller}`, { type: subject.type, ...registration });
    await subject.call('POST', `/v1/controllers/${controller}/enqueue`, { keys: [{ name, ...subject.namespace }] });
    const { body } = await subject.call('POST', `/v1/controllers/${controller}/claims`, { worker: 'w', max: 1_000 });
    const claim = (body.claims as { name: string; token: string }[]).find(one => one.name === name);
    const answer = await subject.get({ name }, '/reveal', { Claim: claim?.token ?? '' });
    await subject.call('DELETE', `/v1/controllers/${controller}`);
    return answer;
  }

  it('is masked in every answer and event, in a map each value, and encrypted at rest', async () => {
    const before = await subject.version();
    const object = await subject.create(holding(canary));
    expect(object).to.deep.include(masked);
    const last = await subject.create();
    const seen = [
      (await subject.get(object)).body,
      await subject.list(''),
      (await subject.patch(object, { labels: { a: 'b' } })).body,
      (await subject.post({ name: object.name, ...holding(canary) })).body,
      (await subject.post({ name: 'No Name', ...holding(canary) })).body,
      (await subject.post({ ...holding(canary) }, { query: '?dryRun=All' })).body,
      (
        await subject.batch([
          subject.operation('upsert', object, { object: { ...subject.example.object, ...holding(canary) } }),
        ])
      ).body,
      await subject.eventsUntil(before, last.name),
      await subject
        .server()
        .database.query({ text: 'select o::text from syncsets.objects o where type = $1', values: [subject.type] }),
      await subject
        .server()
        .database.query({ text: 'select e::text from syncsets.events e where type = $1', values: [subject.type] }),
      subject.server().log,
    ];
    expect(JSON.stringify(seen)).to.contain(mask).and.not.contain(canary);
  });

  it('sent as the mask keeps its stored value; a mask where nothing is stored is 422', async () => {
    const path = map ? `${field}.key` : field;
    expectError(await subject.post(masked), 422, 'Invalid', [path]);
    const object = await subject.create(holding(canary));
    expect((await subject.put(object, object)).body).to.deep.equal(object);
    expect((await subject.patch(object, masked)).body).to.deep.equal(object);
    if (map) expectError(await subject.patch(object, { [field]: { none: mask } }), 422, 'Invalid', [`${field}.none`]);
    expect((await reveal(object)).body.fields).to.deep.equal(holding(canary));
  });

  it('the value that is stored is no change; another one raises the generation', async () => {
    const object = await subject.create(holding(canary));
    expect((await subject.patch(object, holding(canary))).body).to.deep.equal(object);
    expect((await subject.put(object, { ...object, ...holding(canary) })).body).to.deep.equal(object);
    const { body } = await subject.patch(object, holding(other));
    expect(body).to.deep.include({ ...masked, generation: 2 });
    expect((await reveal(object)).body.fields).to.deep.equal(holding(other));
    const removed = await subject.patch(object, { [field]: null });
    expect(removed.body).to.include({ generation: 3 }).and.not.have.property(field);
    expect((await reveal(object)).body.fields).to.deep.equal({});
  });

  it('is refused in selectors and in the test of a JSON patch', async () => {
    const object = await subject.create(holding(canary));
    const selector = encodeURIComponent(`${field}${map ? '.key' : ''}=${canary}`);
    expectError(await subject.call('GET', `${subject.collection}?fieldSelector=${selector}`), 422, 'Invalid');
    const patch = [{ op: 'test', path: `/${field}${map ? '/key' : ''}`, value: canary }];
    expectError(await subject.patch(object, patch, '', jsonPatch), 422, 'Invalid');
  });

  it('is revealed to a held claim of a controller that registered for it, never cached, with a line in the log', async () => {
    const object = await subject.create(holding(canary));
    expectError(await subject.get(object, '/reveal'), 403, 'Forbidden');
    expectError(await subject.get(object, '/reveal', { Claim: 'made-up' }), 409, 'Fenced');
    expectError(await reveal(object, {}), 403, 'Forbidden');
    const { status, body, headers } = await reveal(object);
    expect(status).to.equal(200);
    expect(body).to.deep.equal({ resourceVersion: object.resourceVersion, fields: holding(canary) });
    expect(headers.get('cache-control')).to.equal('no-store');
    const lines = subject
      .server()
      .log.filter(({ fields }) => fields['audit'] === true && fields['name'] === object.name);
    expect(lines[0]?.fields)
      .to.include({ type: subject.type })
      .and.deep.include({ fields: [field] });
  });
}
