import { expect } from 'chai';
import { types } from '../build/types.js';
import { startApi, type Answer, type TestApi } from '../test/platform.js';
import { until } from '../test/until.js';
import type { AnyRule } from './admission.js';
import type { Resource } from './resource.js';

const kubeconfig = `apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://203.0.113.7:6443"}}]
users: [{name: u, user: {token: t}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
current-context: c
`;

describe('admission', () => {
  let api: TestApi;
  let serial = 0;
  const fresh = () => `a${++serial}`;
  before(async () => {
    api = await startApi();
  });
  after(() => api.stop());

  const paths = (answer: Answer) => answer.body.error?.details?.map((detail: { path: string }) => detail.path) ?? [];
  async function create(type: string, fields: object = {}) {
    const answer = await api.call('POST', `/v1/${type}`, { name: fresh(), ...fields });
    expect(answer.status, JSON.stringify(answer.body)).to.equal(201);
    return answer.body;
  }

  describe('by rules of a type that a test makes', () => {
    const clusters = types.find(({ type }) => type === 'clusters');
    const original = clusters?.rules;
    afterEach(() => {
      if (clusters) clusters.rules = original;
    });
    const rule = (fields: string[], admit: AnyRule['admit'], reads?: string[]) => {
      if (clusters) clusters.rules = [{ fields, admit, ...(reads && { reads }) }];
    };
    const patched = (object: { name: string }, body: object, suffix = '') =>
      api.call('PATCH', `/v1/clusters/default/${object.name}${suffix}`, body);

    it('asks them at every write path, when one of their fields changes', async () => {
      const object = await create('clusters', { context: 'good' });
      const target = `/v1/clusters/default/${object.name}`;
      rule(['context'], ({ context }: Partial<Resource> & { context?: string }) => ({
        violations: context === 'bad' ? [{ path: 'context', message: 'must not be bad' }] : [],
      }));
      const bad = { context: 'bad' };
      const json = { 'Content-Type': 'application/json-patch+json' };
      const answers = [
        await api.call('POST', '/v1/clusters', { name: fresh(), ...bad }),
        await api.call('POST', '/v1/clusters?dryRun=All', { name: fresh(), ...bad }),
        await api.call('PUT', target, bad),
        await api.call('PUT', `/v1/clusters/default/${fresh()}`, bad, { 'If-None-Match': '*' }),
        await api.call('PATCH', target, bad),
        await api.call('PATCH', `${target}?dryRun=All`, bad),
        await api.call('PATCH', target, [{ op: 'replace', path: '/context', value: 'bad' }], json),
      ];
      for (const answer of answers) {
        expect([answer.status, answer.body.error.code]).to.deep.equal([422, 'Invalid']);
        expect(answer.body.error.details).to.deep.equal([{ path: 'context', message: 'must not be bad' }]);
      }
      await api.database.query({
        text: `update syncsets.objects set object = jsonb_set(object, '{context}', '"bad"') where name = $1`,
        values: [object.name],
      });
      expect((await patched(object, { labels: { a: 'b' } })).status).to.equal(200);
      expect((await patched(object, { status: { nodeCount: 1 } }, '/status')).status).to.equal(200);
    });

    it('asks for a status only rules that name it', async () => {
      const object = await create('clusters');
      let asked = 0;
      rule(['status'], ({ status }: Partial<Resource> & { status?: { nodeCount?: number } }) => {
        asked++;
        return status?.nodeCount === 13 ? { violations: [{ path: 'status.nodeCount', message: 'is unlucky' }] } : {};
      });
      const wrong = await patched(object, { status: { nodeCount: 13 } }, '/status');
      expect([wrong.status, paths(wrong)]).to.deep.equal([422, ['status.nodeCount']]);
      expect((await patched(object, { status: { nodeCount: 14 } }, '/status')).status).to.equal(200);
      await patched(object, { context: 'x' });
      await create('clusters');
      expect(asked).to.equal(2);
    });

    it('stores what a rule makes of an object, within what the write is about, and only if it is valid', async () => {
      rule(['labels', 'annotations'], object => {
        const labels = { ...object.labels, stamped: object.annotations?.['wish'] ?? 'yes' };
        return { object: { ...object, labels, name: 'other', generation: 99 } };
      });
      const object = await create('clusters', { labels: { a: 'b' } });
      expect(object.labels).to.deep.equal({ a: 'b', stamped: 'yes' });
      expect(object).to.include({ generation: 1 }).and.not.to.include({ name: 'other' });
      const again = await patched(object, { labels: { stamped: null } });
      expect(again.body).to.deep.equal(object);
      const broken = await patched(object, { annotations: { wish: 'not ok' } });
      expect(paths(broken)).to.include('labels.stamped');
    });

    it('asks again on the version that the write is then applied to', async () => {
      const object = await create('clusters', { annotations: { count: '0' } });
      const seen: (string | undefined)[] = [];
      let between: (() => Promise<unknown>) | undefined = () =>
        patched(object, { annotations: { count: '1' } }, '/metadata');
      rule(['context'], async (_object, previous) => {
        seen.push(previous?.annotations?.['count']);
        const act = between;
        between = undefined;
        await act?.();
        return undefined;
      });
      expect((await patched(object, { context: 'x' })).body.annotations).to.deep.equal({ count: '1' });
      expect(seen).to.deep.equal(['0', '1']);
    });

    it('shows rules no stored secret, lets none out of their messages, and tells who writes', async () => {
      const shown: unknown[] = [];
      rule(['kubeconfig', 'context'], (object, previous, { verb, controller, dryRun }) => {
        shown.push([
          verb,
          controller,
          dryRun,
          Reflect.get(object, 'kubeconfig'),
          previous && Reflect.get(previous, 'kubeconfig'),
        ]);
        return { warnings: [`it is ${String(Reflect.get(object, 'kubeconfig'))}`] };
      });
      const created = await api.call('POST', '/v1/clusters', { name: fresh(), kubeconfig: 'hunter2' });
      expect(created.headers.get('warning')).to.equal('299 - "it is ?"');
      await patched(created.body, { context: 'x' });
      const put = await api.call('PUT', `/v1/clusters/default/${created.body.name}?dryRun=All`, {
        kubeconfig: 'hunter3',
      });
      expect(put.headers.get('warning')).to.equal('299 - "it is ?"');
      expect(shown).to.deep.equal([
        ['create', undefined, false, 'hunter2', undefined],
        ['patch', undefined, false, '••••••', '••••••'],
        ['replace', undefined, true, 'hunter3', '••••••'],
      ]);
      rule(['kubeconfig'], object => {
        throw new Error(`cannot read ${String(Reflect.get(object, 'kubeconfig'))}`);
      });
      const failed = await patched(created.body, { kubeconfig: 'hunter4' });
      expect(failed.status).to.equal(500);
      const logged = api.log
        .map(({ fields }) => (fields['error'] instanceof Error ? fields['error'].stack : ''))
        .join();
      expect(logged).to.contain('cannot read ••••••').and.not.to.contain('hunter');
    });

    it('shows a rule one moment of all other objects, and leaves no connection behind', async () => {
      const other = await create('clusters', { context: 'before' });
      const key = { namespace: 'default', name: other.name };
      const seen: unknown[] = [];
      rule(
        ['context'],
        async (_object, _previous, { read, missing }) => {
          seen.push(Reflect.get((await read('clusters', key)) ?? {}, 'context'));
          await patched(other, { annotations: { a: String(seen.length) } }, '/metadata');
          await api.database.query({
            text: `update syncsets.objects set object = jsonb_set(object, '{context}', '"after"') where name = $1`,
            values: [other.name],
          });
          seen.push(Reflect.get((await read('clusters', key)) ?? {}, 'context'));
          seen.push(await missing('clusters', [key, { namespace: 'default', name: 'none' }]));
          return undefined;
        },
        ['clusters'],
      );
      expect((await api.call('POST', '/v1/clusters', { name: fresh() })).status).to.equal(201);
      expect(seen).to.deep.equal(['before', 'before', [{ namespace: 'default', name: 'none' }]]);
      const [open] = await api.database.query<{ count: number }>({
        text: `select count(*)::int as count from pg_stat_activity where datname = current_database() and state like 'idle in%'`,
      });
      expect(open?.count).to.equal(0);
    });

    it('shows a rule no objects of types that it does not name', async () => {
      const key = { namespace: 'default', name: 'any' };
      for (const look of ['read', 'missing'] as const) {
        rule(
          ['context'],
          async (_object, _previous, { read, missing }) => {
            await (look === 'read' ? read('secrets', key) : missing('secrets', [key]));
            return undefined;
          },
          ['clusters'],
        );
        expect((await api.call('POST', '/v1/clusters', { name: fresh() })).status).to.equal(500);
        const errors = api.log.flatMap(({ fields }) => (fields['error'] instanceof Error ? [fields['error']] : []));
        expect(errors.at(-1)?.message).to.contain('looks at secrets; name them in its "reads"');
      }
    });
  });

  describe('of selectorsyncsets', () => {
    const check = async (object: object) =>
      paths(await api.call('POST', '/v1/selectorsyncsets?dryRun=All', { name: 'x', ...object }));

    it('refuses an empty selector and asks for matchAll', async () => {
      expect(await check({ matchAll: true })).to.deep.equal([]);
      expect(await check({ clusterSelector: { matchLabels: { env: 'prod' } } })).to.deep.equal([]);
      for (const clusterSelector of [{}, { matchLabels: {} }, { matchLabels: {}, matchExpressions: [] }]) {
        const answer = await api.call('POST', '/v1/selectorsyncsets', { name: 'x', clusterSelector });
        expect([answer.status, answer.body.error.message]).to.deep.equal([
          422,
          'clusterSelector: must not be empty; to mean all clusters, say matchAll: true',
        ]);
      }
      expect(await check({})).to.deep.equal(['clusterSelector']);
      expect(await check({ matchAll: false })).to.deep.equal(['clusterSelector']);
      expect(await check({ matchAll: true, clusterSelector: { matchLabels: { a: 'b' } } })).to.deep.equal([
        'clusterSelector',
      ]);
    });

    it('refuses to have the selector taken away, and checks it when only matchAll changes', async () => {
      const set = await create('selectorsyncsets', { clusterSelector: { matchLabels: { a: 'b' } } });
      const target = `/v1/selectorsyncsets/${set.name}`;
      expect(paths(await api.call('PATCH', target, { clusterSelector: null }))).to.deep.equal(['clusterSelector']);
      expect(paths(await api.call('PATCH', target, { matchAll: true }))).to.deep.equal(['clusterSelector']);
      expect((await api.call('PATCH', target, { clusterSelector: null, matchAll: true })).status).to.equal(200);
    });

    it('checks labels and operators', async () => {
      const clusterSelector = {
        matchLabels: { 'a b': 'x', env: 'not ok' },
        matchExpressions: [
          { key: 'env', operator: 'In', values: [] },
          { key: 'env', operator: 'Exists', values: ['x'] },
          { key: 'env', operator: 'NotIn', values: ['ok', '-'] },
          { key: '/', operator: 'DoesNotExist' },
        ],
      };
      expect(new Set(await check({ clusterSelector }))).to.deep.equal(
        new Set([
          'clusterSelector.matchLabels.a b',
          'clusterSelector.matchLabels.env',
          'clusterSelector.matchExpressions[0].values',
          'clusterSelector.matchExpressions[1].values',
          'clusterSelector.matchExpressions[2].values[1]',
          'clusterSelector.matchExpressions[3].key',
        ]),
      );
    });

    it('wants secrets with their namespace', async () => {
      const mapping = (sourceRef: object) => ({
        matchAll: true,
        secretMappings: [{ sourceRef: { name: 'a', ...sourceRef }, targetRef: { name: 'b' } }],
      });
      expect(await check(mapping({ namespace: 'bar' }))).to.deep.equal([]);
      expect(await check(mapping({}))).to.deep.equal(['secretMappings[0].sourceRef.namespace']);
    });
  });

  describe('of syncsets', () => {
    it('wants the clusters that are named to exist in the namespace of the set, unless allowMissing', async () => {
      const { name } = await create('clusters', { namespace: 'foo' });
      const set = (fields: object) => api.call('POST', '/v1/syncsets', { name: fresh(), namespace: 'foo', ...fields });
      const answer = await set({ clusterRefs: [name, 'gone', 'never'] });
      expect([answer.status, paths(answer)]).to.deep.equal([422, ['clusterRefs[1]', 'clusterRefs[2]']]);
      expect(answer.body.error.details[0].message).to.equal(
        'there is no cluster foo/gone; create it first, or say allowMissing: true',
      );
      expect((await set({ clusterRefs: [name] })).status).to.equal(201);
      expect((await set({ clusterRefs: [name, 'gone'], allowMissing: true })).status).to.equal(201);
      expect((await set({ clusterRefs: [name], namespace: 'bar' })).status).to.equal(422);
    });

    it('asks only for clusters that are new in it, so that a deleted one locks nobody out', async () => {
      const first = await create('clusters', { namespace: 'foo' });
      const second = await create('clusters', { namespace: 'foo' });
      const set = await create('syncsets', { namespace: 'foo', clusterRefs: [first.name] });
      const target = `/v1/syncsets/foo/${set.name}`;
      await api.call('DELETE', `/v1/clusters/foo/${first.name}`);
      expect((await api.call('PATCH', target, { verifySeconds: 600 })).status).to.equal(200);
      const added = await api.call('PATCH', target, { clusterRefs: [first.name, second.name] });
      expect(added.status, JSON.stringify(added.body)).to.equal(200);
      expect(paths(await api.call('PATCH', target, { clusterRefs: ['none'] }))).to.deep.equal(['clusterRefs[0]']);
      await api.call('PATCH', target, { allowMissing: true });
      expect(paths(await api.call('PATCH', target, { allowMissing: false }))).to.deep.equal(['clusterRefs[0]']);
    });

    it('keeps secrets of other namespaces out', async () => {
      const set = (namespace: string) => ({
        name: 'x',
        namespace: 'foo',
        clusterRefs: [],
        secretMappings: [{ sourceRef: { name: 'a', namespace }, targetRef: { name: 'b' } }],
      });
      expect((await api.call('POST', '/v1/syncsets?dryRun=All', set('foo'))).status).to.equal(201);
      expect(paths(await api.call('POST', '/v1/syncsets?dryRun=All', set('bar')))).to.deep.equal([
        'secretMappings[0].sourceRef.namespace',
      ]);
    });
  });

  describe('of secrets', () => {
    it('wants base64 and usable keys, and leaves stored values alone', async () => {
      const check = async (object: object) =>
        paths(await api.call('POST', '/v1/secrets?dryRun=All', { name: 'x', ...object }));
      expect(
        await check({ data: { 'tls.crt': 'text', _: '' }, binaryData: { a: '', b: 'AAEC', c: 'AA==' } }),
      ).to.deep.equal([]);
      expect(await check({ data: { 'a b': 'x' }, binaryData: { a: 'AA', b: 'no base64', '': '' } })).to.have.members([
        'data.a b',
        'binaryData.a',
        'binaryData.b',
        'binaryData.',
      ]);
      const secret = await create('secrets', { binaryData: { a: 'AAEC' } });
      const target = `/v1/secrets/default/${secret.name}`;
      expect((await api.call('PATCH', target, { binaryData: { a: '••••••', b: 'AA==' } })).status).to.equal(200);
    });
  });

  describe('of clusters', () => {
    it('names the error of a kubeconfig in a header, and stores it', async () => {
      const odd = await api.call('POST', '/v1/clusters', { name: fresh(), kubeconfig: 'foobar' });
      expect(odd.status).to.equal(201);
      expect(odd.headers.get('warning')).to.match(/^299 - "kubeconfig: The kubeconfig .* \(KubeconfigInvalid\)"$/);
      expect(odd.headers.get('warning')).not.to.contain('foobar');
      const target = `/v1/clusters/default/${odd.body.name}`;
      const fine = await api.call('PATCH', target, { kubeconfig });
      expect([fine.status, fine.headers.get('warning')]).to.deep.equal([200, null]);
      // Advice has a share of the time: the first ones, on a busy machine, may have spent it for a second.
      let changed = kubeconfig;
      const replace = () => api.call('PUT', target, { kubeconfig: (changed += '\n'), context: 'nowhere' });
      const warning = await until(async () => (await replace()).headers.get('warning'), { what: 'the advice' });
      expect(warning).to.contain('the context asked for');
      expect((await api.call('PATCH', target, { labels: { a: 'b' } })).headers.get('warning')).to.equal(null);
      const none = await api.call('POST', '/v1/clusters', { name: fresh() });
      expect(none.headers.get('warning')).to.equal(null);
    });
  });
});
