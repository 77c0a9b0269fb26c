import { expect } from 'chai';
import { types } from '../../build/types.js';
import { startApi, type TestApi } from '../platform.js';
import { batches } from './batches.js';
import { declarations, declaring } from './declared.js';
import { deletion } from './deletion.js';
import { envelope } from './envelope.js';
import { errors } from './errors.js';
import { examples } from './examples.js';
import { lists } from './lists.js';
import { replicas } from './replicas.js';
import { secrets } from './secrets.js';
import { Subject } from './subject.js';
import { subresources } from './subresources.js';
import { verbs } from './verbs.js';
import { watches } from './watches.js';
import { writes } from './writes.js';
import { written } from './written.js';

/** What holds for every type of the platform, sentence by sentence, on one server. */
describe('conformance', function () {
  this.timeout(60_000);
  let api: TestApi;
  before(async () => {
    api = await startApi({ types: declaring });
  });
  after(() => api.stop());

  it('there is an example of every type that /v1 lists', async () => {
    const { body } = await api.call('GET', '/v1');
    const made = new Set(declaring.map(({ type }) => type));
    const listed = (body.items as { type: string }[]).map(({ type }) => type).filter(type => !made.has(type));
    expect(listed, 'write an example in test/conformance/examples.ts').to.have.members(Object.keys(examples));
    expect(types.map(({ type }) => type)).to.have.members(listed);
  });

  const subjects: Subject[] = [];
  for (const type of types) {
    const example = examples[type.type];
    if (!example) continue;
    const subject = new Subject(type, example, () => api);
    subjects.push(subject);
    describe(`of ${type.type}`, () => {
      describe('the envelope', () => envelope(subject));
      describe('the verbs', () => verbs(subject));
      describe('the subresources', () => subresources(subject));
      describe('every write', () => writes(subject));
      describe('deletion', () => deletion(subject));
      describe('a list', () => lists(subject));
      describe('a watch', () => watches(subject));
      describe('batches', () => batches(subject));
      if (type.secrets.length > 0) describe('the secret field', () => secrets(subject));
      describe('errors', () => errors(subject));
    });
  }

  describe('a server that is started later', () => replicas(subjects, () => api));

  for (const type of declaring) {
    const what = type.namespaced ? 'a type in namespaces' : 'a cluster-wide type';
    if (type.writer === undefined) describe(`of what ${what} declares`, () => declarations(type, () => api));
    else describe(`of ${what} that declares its writer`, () => written(type, () => api));
  }
});
