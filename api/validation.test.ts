import { ValidateError } from '@tsoa/runtime';
import { expect } from 'chai';
import { clusters, secrets, syncsets, types } from '../build/types.js';
import { fieldErrors, InvalidArguments, validate, validateStatus, type FieldError } from './validation.js';

const found = (errors: FieldError[]) => Object.fromEntries(errors.map(({ path, message }) => [path, message]));
const cluster = { name: 'c1', namespace: 'foo' };
const set = { name: 's1', namespace: 'foo', clusterRefs: ['c1'] };

describe('validation of objects', () => {
  it('takes an object with every kind of field', () => {
    const resources = [
      { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'x', labels: {} }, data: { n: 1, deep: [[{}]] } },
    ];
    const object = {
      ...set,
      type: 'syncsets',
      labels: { env: 'prod' },
      resources,
      patches: [{ apiVersion: 'v1', kind: 'Node', name: 'n', patch: '{}', patchType: 'merge' }],
      secretMappings: [{ sourceRef: { name: 'a' }, targetRef: { name: 'b', namespace: 'c' } }],
      applyBehavior: 'CreateOnly',
      deletionBudget: { maxObjects: 0, maxClustersPercent: 12.5 },
      paused: { reason: 'freeze', until: '2027-01-31T12:00:00.5+02:00' },
      ignoreFields: [{ kind: 'Deployment', paths: ['/spec/replicas', '/metadata/annotations/example.com~1x'] }],
      verifySeconds: 600,
    };
    expect(validate(syncsets, object)).to.deep.equal([]);
  });

  it('lists all unknown fields at once, nested ones with their path', () => {
    const errors = validate(syncsets, {
      ...set,
      nope: 1,
      paused: { reason: 'x', since: 1 },
      ignoreFields: [{ paths: ['/a'] }, { paths: ['/a'], pathes: [] }],
    });
    expect(errors.filter(error => error.unknown).map(error => error.path)).to.have.members([
      'nope',
      'paused.since',
      'ignoreFields[1].pathes',
    ]);
    expect(errors).to.have.length(3);
    expect(found(errors)['paused.since']).to.equal('is unknown; there are reason, until');
  });

  it('reports every violation with its own path, also those in two elements of a list in a list', () => {
    const errors = validate(syncsets, {
      ...set,
      clusterRefs: ['ok', 'Not_ok', 3],
      ignoreFields: [{ paths: ['a', '/ok'] }, { paths: ['b'] }, { paths: [] }],
      applyBehavior: 'Applied',
      verifySeconds: 59,
      paused: { reason: '' },
    });
    expect(found(errors)).to.have.all.keys(
      'clusterRefs[1]',
      'clusterRefs[2]',
      'ignoreFields[0].paths[0]',
      'ignoreFields[1].paths[0]',
      'ignoreFields[2].paths',
      'applyBehavior',
      'verifySeconds',
      'paused.reason',
    );
  });

  it('says what is wrong and what is allowed, and never the value', () => {
    const errors = validate(clusters, {
      name: 'A',
      namespace: 'foo.bar',
      kubeconfig: { token: 'hunter2' },
      cleanup: 'true',
      verifySeconds: '60',
      paused: null,
      labels: ['x'],
    });
    expect(found(errors)).to.include({
      kubeconfig: 'must be a text, not an object',
      cleanup: 'must be true or false, not a text',
      verifySeconds: 'must be a whole number of seconds',
      paused: 'must be an object, not null',
      labels: 'must be an object, not a list',
    });
    expect(found(errors)['name']).to.match(/^must be a DNS-1123 subdomain/);
    expect(found(errors)['namespace']).to.match(/^must be a DNS-1123 label/);
    expect(JSON.stringify(errors)).not.to.contain('hunter2');
  });

  it('takes a choice as it is written only', () => {
    const mode = (resourceApplyMode: unknown) => found(validate(syncsets, { ...set, resourceApplyMode }));
    expect(mode('Sync')).to.deep.equal({});
    for (const wrong of [['Sync'], 'sync', null, true]) {
      expect(mode(wrong)).to.deep.equal({ resourceApplyMode: 'must be one of "Upsert", "Sync"' });
    }
  });

  it('names the limit of names and of lists without repetition', () => {
    expect(validate(clusters, { name: 'a'.repeat(253) })).to.deep.equal([]);
    expect(found(validate(clusters, { name: 'a'.repeat(254) }))).to.deep.equal({
      name: 'must have at most 253 characters',
    });
    expect(found(validate(syncsets, { ...set, clusterRefs: ['a', 'b', 'a'] }))).to.deep.equal({
      clusterRefs: 'must not name a cluster twice',
    });
  });

  it('names fields that are missing', () => {
    expect(found(validate(syncsets, {}))).to.deep.equal({ clusterRefs: 'is required' });
    const resources = [{ apiVersion: 'v1', metadata: {} }];
    expect(found(validate(syncsets, { ...set, resources }))).to.deep.equal({
      'resources[0].kind': 'is required',
      'resources[0].metadata.name': 'is required',
    });
  });

  it('refuses the type of another URL', () => {
    expect(found(validate(clusters, { ...cluster, type: 'syncsets' }))).to.deep.equal({ type: 'must be "clusters"' });
  });

  it('takes back what the server sets', () => {
    const received = {
      ...cluster,
      type: 'clusters',
      uid: 'b5a3',
      resourceVersion: '17',
      generation: 1,
      createdAt: '2027-01-01T00:00:00Z',
      updatedAt: '2027-01-01T00:00:00Z',
      status: { anything: 1 },
    };
    expect(validate(clusters, received)).to.deep.equal([]);
    expect(found(validate(clusters, { ...received, resourceVersion: 'abc' }))).to.have.all.keys('resourceVersion');
  });

  it('looks at nothing but the given fields when it is told them', () => {
    const old = { name: 'Old_Name', clusterRefs: 3, verifySeconds: 1, gone: 1 };
    expect(validate(syncsets, old, new Set(['allowMissing']))).to.deep.equal([]);
    expect(found(validate(syncsets, old, new Set(['verifySeconds', 'gone'])))).to.have.all.keys(
      'verifySeconds',
      'gone',
    );
    expect(found(validate(syncsets, {}, new Set(['clusterRefs'])))).to.deep.equal({ clusterRefs: 'is required' });
  });

  it('leaves the object as it is', () => {
    const object = { ...set, patches: [{ apiVersion: 'v1', kind: 'Node', name: 'n', patch: '{}' }] };
    const before = structuredClone(object);
    validate(syncsets, object);
    expect(object).to.deep.equal(before);
  });

  it('is not confused by names of the language', () => {
    const object = JSON.parse('{"name": "c1", "constructor": 1, "__proto__": {"x": 1}, "toString": 2}') as Record<
      string,
      unknown
    >;
    expect(validate(clusters, object).map(error => error.path)).to.have.members([
      'constructor',
      '__proto__',
      'toString',
    ]);
  });

  it('stops after a thousand violations', () => {
    const object = Object.fromEntries(Array.from({ length: 5_000 }, (_, i) => [`x${i}`, 1]));
    expect(validate(clusters, { ...cluster, ...object })).to.have.length(1_000);
  });

  it('is quick with hostile texts', () => {
    const before = process.cpuUsage();
    validate(clusters, { name: `${'a-'.repeat(120)}!`, namespace: 'a'.repeat(1_000_000) });
    validate(syncsets, { ...set, ignoreFields: [{ paths: [`/${'a'.repeat(500_000)}~`] }] });
    const { user, system } = process.cpuUsage(before);
    expect((user + system) / 1_000).to.be.below(500);
  });
});

describe('validation of a status', () => {
  it('reports what is wrong below status', () => {
    const condition = {
      type: 'Reachable',
      status: 'True',
      reason: 'Answered',
      message: '',
      lastTransitionTime: '2027-01-01T00:00:00Z',
    };
    expect(validateStatus(clusters, { conditions: [condition], serverVersion: 'v1.34.4', nodeCount: 3 })).to.deep.equal(
      [],
    );
    const errors = validateStatus(clusters, {
      conditions: [
        { ...condition, status: 'true' },
        { ...condition, lastTransitionTime: '2027-13-01T00:00:00Z' },
      ],
      nodeCount: 1.5,
      extra: 1,
    });
    expect(found(errors)).to.have.all.keys(
      'status.conditions[0].status',
      'status.conditions[1].lastTransitionTime',
      'status.nodeCount',
      'status.extra',
    );
    expect(errors.find(error => error.path === 'status.extra')?.unknown).to.equal(true);
  });

  it('refuses one for a type that has none', () => {
    expect(validateStatus(secrets, {})).to.deep.equal([
      { path: 'status', message: 'secrets have no status', unknown: true },
    ]);
  });
});

describe('the type definitions', () => {
  it('have defaults that their own model takes', () => {
    for (const type of types) {
      expect(validate(type, type.defaults, new Set(Object.keys(type.defaults))), type.type).to.deep.equal([]);
    }
    expect(syncsets.defaults).to.include({
      resourceApplyMode: 'Upsert',
      applyBehavior: 'ServerSideApply',
      allowMissing: false,
    });
  });

  it('name secret fields and say which are maps', () => {
    expect(clusters.secrets).to.deep.equal([{ field: 'kubeconfig', map: false }]);
    expect(secrets.secrets).to.deep.equal([
      { field: 'data', map: true },
      { field: 'binaryData', map: true },
    ]);
  });
});

describe('errors of routes', () => {
  it('lose the prefix of the body', () => {
    expect(fieldErrors(new ValidateError({ 'body.a.b': { message: 'wrong' } }, ''))).to.deep.equal([
      { path: 'a.b', message: 'wrong' },
    ]);
    const errors = [{ path: 'limit', message: 'wrong', query: true }];
    expect(fieldErrors(new InvalidArguments(errors))).to.deep.equal(errors);
    expect(new InvalidArguments([{ path: 'a', message: 'wrong' }]).fields).to.have.all.keys('body.a');
  });
});
