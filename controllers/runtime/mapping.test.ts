import { expect } from 'chai';
import type { MapClaim, Resource, SyncSet } from '../../client/index.js';
import type { Controller, Targets } from './controller.js';
import { targetsOf } from './mapping.js';

describe('mapping', () => {
  const state = (fields: object, namespace?: string): Resource => ({
    type: 'syncsets',
    name: 's1',
    ...(namespace !== undefined && { namespace }),
    uid: 'u1',
    resourceVersion: '1',
    generation: 1,
    createdAt: '',
    updatedAt: '',
    ...fields,
  });
  const claim = (...events: MapClaim['events']): MapClaim => ({
    kind: 'map',
    token: 't',
    type: 'syncsets',
    priority: 0,
    events,
    expiresInSeconds: 15,
  });
  const controller = (enqueue: (set: SyncSet) => Targets | undefined, type = 'clusters'): Controller => ({
    name: 'c',
    type,
    watches: [{ type: 'syncsets', enqueue }],
    reconcile: () => Promise.resolve(),
  });

  it('asks with the states before and after every event, and names each key once', () => {
    const byRefs = controller(set => ({ names: set.clusterRefs }));
    const targets = targetsOf(
      byRefs,
      claim(
        { op: 'ADDED', before: null, object: state({ clusterRefs: ['a'] }, 'foo') },
        { op: 'MODIFIED', before: state({ clusterRefs: ['a'] }, 'foo'), object: state({ clusterRefs: ['b'] }, 'foo') },
        { op: 'DELETED', before: state({ clusterRefs: ['c', 'b'] }, 'foo'), object: null },
      ),
    );
    expect(targets).to.deep.equal(['a', 'b', 'c'].map(name => ({ type: 'clusters', namespace: 'foo', name })));
  });

  it('takes selectors, all, other namespaces and nothing', () => {
    const one = (enqueue: () => Targets | undefined) =>
      targetsOf(controller(enqueue), claim({ op: 'ADDED', before: null, object: state({}) }));
    expect(one(() => ({ labelSelector: 'env=prod' }))).to.deep.equal([{ type: 'clusters', labelSelector: 'env=prod' }]);
    expect(one(() => ({ all: true }))).to.deep.equal([{ type: 'clusters', all: true }]);
    expect(one(() => ({ names: ['a'], namespace: 'bar' }))).to.deep.equal([
      { type: 'clusters', namespace: 'bar', name: 'a' },
    ]);
    expect(one(() => ({ names: ['a'] }))).to.deep.equal([{ type: 'clusters', name: 'a' }]);
    expect(one(() => undefined)).to.deep.equal([]);
  });

  it('refuses what it cannot map: a type that is not watched, a key without type', () => {
    const event = { op: 'ADDED', before: null, object: state({}) } as const;
    const all = controller(() => ({ names: ['a'] }), '*');
    expect(() => targetsOf(all, claim(event))).to.throw(TypeError, 'say its type');
    expect(() => targetsOf(all, { ...claim(event), type: 'secrets' })).to.throw(TypeError, 'does not watch secrets');
  });
});
