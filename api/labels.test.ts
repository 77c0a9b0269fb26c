import { expect } from 'chai';
import { checkEnvelope, checkLabels } from './labels.js';

const paths = (errors: { path: string }[]) => errors.map(error => error.path);

describe('labels', () => {
  it('takes what Kubernetes takes', () => {
    const labels = {
      env: 'prod',
      'app.kubernetes.io/name': 'web',
      a: '',
      A_b: 'v1.2-3',
      ['n'.repeat(63)]: 'v'.repeat(63),
    };
    expect(checkLabels(labels, 'labels')).to.deep.equal([]);
  });

  it('refuses keys and values that Kubernetes refuses, each with its path', () => {
    const wrong = {
      '-env': 'x',
      'env-': 'x',
      '': 'x',
      'a b': 'x',
      'Example.com/x': 'x',
      'example.com/': 'x',
      'a/b/c': 'x',
      ['n'.repeat(64)]: 'x',
      [`${'d'.repeat(254)}/n`]: 'x',
    };
    expect(paths(checkLabels(wrong, 'labels'))).to.deep.equal(Object.keys(wrong).map(key => `labels.${key}`));
    const values = { a: '-x', b: 'x-', c: 'x y', d: 'v'.repeat(64), e: 'ü' };
    expect(paths(checkLabels(values, 'labels'))).to.deep.equal([
      'labels.a',
      'labels.b',
      'labels.c',
      'labels.d',
      'labels.e',
    ]);
  });

  it('names the limit of a value of 64 characters', () => {
    const [error] = checkLabels({ env: 'v'.repeat(64) }, 'labels');
    expect(error).to.deep.equal({ path: 'labels.env', message: 'must have at most 63 characters, not 64' });
  });

  it('refuses more than 64 labels', () => {
    const many = (count: number) => Object.fromEntries(Array.from({ length: count }, (_, i) => [`l${i}`, 'x']));
    expect(checkLabels(many(64), 'labels')).to.deep.equal([]);
    expect(checkLabels(many(65), 'labels')).to.deep.equal([
      { path: 'labels', message: 'must have at most 64 labels, not 65' },
    ]);
  });
});

describe('the envelope', () => {
  const owner = { type: 'clusters', name: 'c1', uid: 'u1' };

  it('may be empty', () => expect(checkEnvelope({ name: 'x' })).to.deep.equal([]));

  it('reports wrong types with their paths', () => {
    const errors = checkEnvelope({
      labels: { a: 1 },
      annotations: [],
      finalizers: 'x',
      owners: [{ type: 5 }, 3],
    });
    expect(paths(errors)).to.have.members([
      'labels.a',
      'annotations',
      'finalizers',
      'owners[0].type',
      'owners[0].name',
      'owners[0].uid',
      'owners[1]',
    ]);
  });

  it('refuses annotations of more than 256 KiB together', () => {
    const half = 'x'.repeat(128 * 1024 - 1);
    expect(checkEnvelope({ annotations: { a: half, b: half } })).to.deep.equal([]);
    expect(paths(checkEnvelope({ annotations: { a: half, b: `${half}x` } }))).to.deep.equal(['annotations']);
    expect(paths(checkEnvelope({ annotations: { 'a b': '' } }))).to.deep.equal(['annotations.a b']);
  });

  it('counts annotations in bytes', () => {
    expect(paths(checkEnvelope({ annotations: { a: 'ü'.repeat(128 * 1024) } }))).to.deep.equal(['annotations']);
  });

  it('refuses finalizers that are no qualified names, or that are there twice', () => {
    expect(checkEnvelope({ finalizers: ['foreground', 'example.com/volumes'] })).to.deep.equal([]);
    const errors = checkEnvelope({ finalizers: ['a', 'not a name', 'a', ''] });
    expect(paths(errors)).to.deep.equal(['finalizers[1]', 'finalizers[2]', 'finalizers[3]']);
  });

  it('refuses two owners that both control, or the same owner twice', () => {
    const other = { ...owner, name: 'c2', uid: 'u2' };
    expect(checkEnvelope({ namespace: 'foo', owners: [{ ...owner, controller: true }, other] })).to.deep.equal([]);
    expect(
      paths(
        checkEnvelope({
          namespace: 'foo',
          owners: [
            { ...owner, controller: true },
            { ...other, controller: true },
          ],
        }),
      ),
    ).to.deep.equal(['owners']);
    expect(paths(checkEnvelope({ namespace: 'foo', owners: [owner, owner] }))).to.deep.equal(['owners[1].uid']);
  });

  it('refuses owners of another namespace', () => {
    const local = { ...owner, namespace: 'foo' };
    expect(checkEnvelope({ namespace: 'foo', owners: [local, { ...owner, uid: 'u2' }] })).to.deep.equal([]);
    expect(paths(checkEnvelope({ namespace: 'bar', owners: [local] }))).to.deep.equal(['owners[0].namespace']);
    expect(paths(checkEnvelope({ owners: [local] }))).to.deep.equal(['owners[0].type']);
  });
});
