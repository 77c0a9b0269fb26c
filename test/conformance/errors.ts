import { expect } from 'chai';
import { until } from '../until.js';
import { expectError, type Subject } from './subject.js';

/** Bad input and limits; `expectError` sees that every error has the one form. */
export function errors(subject: Subject): void {
  it('an unknown field is 400, with all of them listed', async () => {
    const { field, value } = subject.example.wrong;
    expectError(await subject.post({ nope: 1, bogus: 2, [field]: value }), 400, 'UnknownField', ['nope', 'bogus']);
    const object = await subject.create();
    expectError(await subject.put(object, { ...object, nope: 1, bogus: 2 }), 400, 'UnknownField', ['nope', 'bogus']);
    expectError(await subject.patch(object, { nope: 1, bogus: 2 }), 400, 'UnknownField', ['nope', 'bogus']);
  });

  it('wrong types and patterns are 422, with every violation and its path', async () => {
    const { field, value } = subject.example.wrong;
    const wrong = { name: 'No', labels: { a: 1 }, finalizers: 'x', [field]: value };
    expectError(await subject.post(wrong), 422, 'Invalid', ['name', 'labels.a', 'finalizers', field]);
  });

  it('what is no JSON is 400 with its position, and a body that is no object', async () => {
    const answer = await subject.call('POST', subject.collection, '{"name": "a",}');
    expectError(answer, 400, 'InvalidJson');
    expect(answer.body.error.message).to.match(/line 1, column 14 \(position 13\)/);
    for (const body of ['[]', '1', '"x"', 'null', ' '])
      expectError(await subject.call('POST', subject.collection, body), 400, 'InvalidJson');
  });

  it('NUL and halves of surrogate pairs are 422 with their path', async () => {
    for (const text of ['\\u0000', '\\ud800']) {
      const body = JSON.stringify(subject.input({ annotations: { a: 'HERE' } })).replace('HERE', text);
      expectError(await subject.call('POST', subject.collection, body), 422, 'Invalid', ['annotations.a']);
    }
  });

  it('an integer beyond 2^53 is 422 with its path where the field takes none, never another number', async () => {
    const { field } = subject.example.wrong;
    const input = { ...subject.input({ annotations: { a: 'HERE' } }), [field]: 'HERE' };
    const body = JSON.stringify(input).replaceAll('"HERE"', '9007199254740993');
    const answer = await subject.call('POST', subject.collection, body);
    expect(answer.status).to.equal(422);
    const paths = (answer.body.error.details as { path: string }[]).map(({ path }) => path);
    expect(paths).to.include('annotations.a');
    expect(paths.some(path => path.startsWith(field))).to.equal(true);
  });

  it('more than 64 labels, 64 finalizers or 1,000 owners are 422 that names the limit', async () => {
    const count = <T>(length: number, one: (i: number) => T) => Array.from({ length }, (_, i) => one(i));
    const labels = Object.fromEntries(count(65, i => [`l${i}`, '']));
    const finalizers = count(65, i => `f${i}`);
    const owners = count(1_001, i => ({ type: subject.type, name: 'a', uid: `u${i}` }));
    for (const [field, value, limit] of [
      ['labels', labels, '64'],
      ['finalizers', finalizers, '64'],
      ['owners', owners, '1000'],
    ] as const) {
      const answer = await subject.post({ [field]: value });
      expectError(answer, 422, 'Invalid', [field]);
      expect(answer.body.error.message).to.contain(limit);
    }
  });

  it('JSON deeper than 64 levels is 422, a body above 3 MB is 413, each with the limit', async () => {
    const deep = `{"name":"deep","annotations":{"a":${'['.repeat(70)}${']'.repeat(70)}}}`;
    const nested = await subject.call('POST', subject.collection, deep);
    expectError(nested, 422, 'Invalid');
    expect(JSON.stringify(nested.body)).to.contain('64');
    // By its length alone: the body is not sent, and the connection closed.
    const large = await subject.post({ annotations: { a: 'x'.repeat(3 * 2 ** 20) } }).catch(() => undefined);
    if (large) expectError(large, 413, 'TooLarge');
  });

  // 429 takes a second of waiting and is the same for every type: test/protection.test.ts proves it.
  it('a write that the database gives up is 504, one whose connection breaks 503 with Retry-After; neither is stored', async () => {
    const { database } = subject.server();
    for (const [end, status, code, retryAfter] of [
      ['pg_cancel_backend', 504, 'Timeout', null],
      ['pg_terminate_backend', 503, 'Unavailable', '1'],
    ] as const) {
      const name = subject.fresh();
      const answer = await database.transaction(async queries => {
        await queries.query({ text: 'select from syncsets.types where type = $1 for update', values: [subject.type] });
        const waiting = subject.post({ name });
        await until(
          async () => {
            // Not on the connection that holds the lock: a transaction sees the activity of its first look.
            const ended = await database.query({
              text: `select ${end}(pid) from pg_stat_activity
                where datname = current_database() and wait_event_type = 'Lock' and query like '%syncsets.write%'`,
            });
            return ended.length > 0;
          },
          { what: 'the write to wait for its turn' },
        );
        return waiting;
      });
      expectError(answer, status, code);
      expect(answer.headers.get('retry-after'), code).to.equal(retryAfter);
      expectError(await subject.get({ name }), 404, 'NotFound');
    }
  });

  it('what leads nowhere is 404 and tells where the types are', async () => {
    const answer = await subject.call('GET', `${subject.collection}-not`);
    expectError(answer, 404, 'UnknownType');
    expect(answer.body.error.message).to.contain('/v1');
    expectError(await subject.get({ name: 'x' }, '/nope/nope'), 404, 'UnknownType');
  });
}
