import { expect } from 'chai';
import { startApi, type TestApi } from '../test/platform.js';
import { ApiError } from './errors.js';
import { parseJson, stringifyJson, type JsonObject } from './json.js';
import { JsonPatch } from './json-patch.js';

const apply = (object: string, patch: string, secrets: string[] = []) =>
  stringifyJson(new JsonPatch(parseJson(patch) as unknown[]).apply(parseJson(object) as JsonObject, secrets));
function refusal(object: string, patch: string | unknown[], secrets: string[] = []): string {
  try {
    apply(object, typeof patch === 'string' ? patch : JSON.stringify(patch), secrets);
  } catch (error) {
    if (error instanceof ApiError) return `${error.code} ${error.details?.[0]?.path ?? ''} ${error.message}`;
    throw error;
  }
  return 'none';
}

describe('a JSON patch', () => {
  // RFC 6902, appendix A
  const examples: [title: string, object: string, patch: string, result: string][] = [
    ['adds a member', '{"foo":"bar"}', '[{"op":"add","path":"/baz","value":"qux"}]', '{"foo":"bar","baz":"qux"}'],
    [
      'adds an element',
      '{"foo":["bar","baz"]}',
      '[{"op":"add","path":"/foo/1","value":"qux"}]',
      '{"foo":["bar","qux","baz"]}',
    ],
    ['removes a member', '{"baz":"qux","foo":"bar"}', '[{"op":"remove","path":"/baz"}]', '{"foo":"bar"}'],
    ['removes an element', '{"foo":["bar","qux","baz"]}', '[{"op":"remove","path":"/foo/1"}]', '{"foo":["bar","baz"]}'],
    [
      'replaces a value',
      '{"baz":"qux","foo":"bar"}',
      '[{"op":"replace","path":"/baz","value":"boo"}]',
      '{"baz":"boo","foo":"bar"}',
    ],
    [
      'moves a value',
      '{"foo":{"bar":"baz","waldo":"fred"},"qux":{"corge":"grault"}}',
      '[{"op":"move","from":"/foo/waldo","path":"/qux/thud"}]',
      '{"foo":{"bar":"baz"},"qux":{"corge":"grault","thud":"fred"}}',
    ],
    [
      'moves an element',
      '{"foo":["all","grass","cows","eat"]}',
      '[{"op":"move","from":"/foo/1","path":"/foo/3"}]',
      '{"foo":["all","cows","eat","grass"]}',
    ],
    [
      'tests values',
      '{"baz":"qux","foo":["a",2,"c"]}',
      '[{"op":"test","path":"/baz","value":"qux"},{"op":"test","path":"/foo/1","value":2}]',
      '{"baz":"qux","foo":["a",2,"c"]}',
    ],
    [
      'adds an object in an object',
      '{"foo":"bar"}',
      '[{"op":"add","path":"/child","value":{"grandchild":{}}}]',
      '{"foo":"bar","child":{"grandchild":{}}}',
    ],
    [
      'ignores members of an operation that it does not know',
      '{"foo":"bar"}',
      '[{"op":"add","path":"/baz","value":"qux","xyz":123}]',
      '{"foo":"bar","baz":"qux"}',
    ],
    ['reads ~ and / in names', '{"/":9,"~1":10}', '[{"op":"test","path":"/~01","value":10}]', '{"/":9,"~1":10}'],
    [
      'appends to a list',
      '{"foo":["bar"]}',
      '[{"op":"add","path":"/foo/-","value":["abc","def"]}]',
      '{"foo":["bar",["abc","def"]]}',
    ],
    [
      'copies a value, which then is one of its own',
      '{"a":{"b":[1]}}',
      '[{"op":"copy","from":"/a","path":"/c"},{"op":"add","path":"/c/b/-","value":2}]',
      '{"a":{"b":[1]},"c":{"b":[1,2]}}',
    ],
    ['replaces the whole', '{"a":1}', '[{"op":"replace","path":"","value":{"b":2}}]', '{"b":2}'],
    ['moves a value to where it is', '{"a":1}', '[{"op":"move","from":"/a","path":"/a"}]', '{"a":1}'],
    [
      'keeps numbers that no double holds',
      '{"n":9007199254740993,"f":0.12345678901234567890}',
      '[{"op":"copy","from":"/n","path":"/m"},{"op":"move","from":"/f","path":"/g"},{"op":"add","path":"/v","value":1e400}]',
      '{"n":9007199254740993,"m":9007199254740993,"g":0.12345678901234567890,"v":1e400}',
    ],
    [
      'compares numbers by value and objects in any order',
      '{"n":9007199254740993,"e":1e400,"o":{"a":1,"b":[2.50]}}',
      '[{"op":"test","path":"/n","value":9007199254740993.0},{"op":"test","path":"/e","value":10e399},{"op":"test","path":"/o","value":{"b":[25e-1],"a":1.0}}]',
      '{"n":9007199254740993,"e":1e400,"o":{"a":1,"b":[2.5]}}',
    ],
  ];
  for (const [title, object, patch, result] of examples) {
    it(title, () => expect(apply(object, patch)).to.equal(result));
  }

  const refused: [title: string, object: string, patch: string, error: RegExp][] = [
    [
      'a failed test',
      '{"a":1}',
      '[{"op":"add","path":"/b","value":1},{"op":"test","path":"/a","value":2}]',
      /^Conflict \[1\]/,
    ],
    [
      'a test of one more digit',
      '{"a":9007199254740993}',
      '[{"op":"test","path":"/a","value":9007199254740992}]',
      /^Conflict/,
    ],
    ['a text tested for a number', '{"/":9,"~1":10}', '[{"op":"test","path":"/~01","value":"10"}]', /^Conflict \[0\]/],
    [
      'a missing parent',
      '{"foo":"bar"}',
      '[{"op":"add","path":"/baz/bat","value":1}]',
      /^Invalid \[0\].*nothing at \/baz/,
    ],
    ['a missing member to remove', '{}', '[{"op":"remove","path":"/a"}]', /^Invalid \[0\].*nothing at \/a/],
    ['a missing member to replace', '{}', '[{"op":"replace","path":"/a","value":1}]', /^Invalid/],
    ['a missing source', '{}', '[{"op":"copy","from":"/a","path":"/b"}]', /^Invalid/],
    ['a member of a text', '{"a":"x"}', '[{"op":"add","path":"/a/b","value":1}]', /^Invalid.*\/a is neither/],
    [
      'a member of an exact number',
      '{"a":9007199254740993}',
      '[{"op":"replace","path":"/a/value","value":"1"}]',
      /^Invalid/,
    ],
    ['an element too far', '{"a":[]}', '[{"op":"add","path":"/a/1","value":1}]', /^Invalid.*no place 1: it has 0/],
    ['an index with a zero in front', '{"a":[1]}', '[{"op":"test","path":"/a/00","value":1}]', /^Invalid.*"00"/],
    ['the end of a list as a source', '{"a":[1]}', '[{"op":"remove","path":"/a/-"}]', /^Invalid.*"-"/],
    ['a move into itself', '{"a":{}}', '[{"op":"move","from":"/a","path":"/a/b"}]', /^Invalid \[0\].*holds path/],
    ['the removal of the whole', '{"a":{}}', '[{"op":"remove","path":""}]', /^Invalid/],
    ['a whole that is no object', '{"a":{}}', '[{"op":"replace","path":"","value":[]}]', /^Invalid.*no object/],
    ['an unknown operation', '{}', '[{"op":"spam","path":"/a"}]', /^Invalid \[0\].*op must be/],
    ['an operation without value', '{}', '[{"op":"add","path":"/a"}]', /^Invalid \[0\].*value is required/],
    ['a path that is no pointer', '{}', '[{"op":"add","path":"a","value":1}]', /^Invalid \[0\].*begins with/],
    ['a pointer with a lone ~', '{}', '[{"op":"add","path":"/a~2","value":1}]', /^Invalid \[0\].*"~"/],
    ['something else than operations', '{}', '[1]', /^Invalid \[0\].*must be an object/],
    [
      'names of the language as members',
      '{}',
      '[{"op":"test","path":"/constructor/name","value":"Object"}]',
      /^Invalid.*nothing at/,
    ],
  ];
  for (const [title, object, patch, error] of refused) {
    it(`refuses ${title}`, () => expect(refusal(object, patch)).to.match(error));
  }

  it('cannot reach what objects inherit', () => {
    const patch =
      '[{"op":"add","path":"/__proto__","value":{"polluted":1}},{"op":"add","path":"/__proto__/x","value":2}]';
    expect(apply('{}', patch)).to.equal('{"__proto__":{"polluted":1,"x":2}}');
    expect(refusal('{}', '[{"op":"add","path":"/__proto__/polluted","value":1}]')).to.match(/^Invalid/);
    expect(({} as JsonObject)['polluted']).to.equal(undefined);
  });

  it('neither tests a secret nor copies its mask', () => {
    const object = '{"key":"••••••","keys":{"a":"••••••"}}';
    const secrets = ['key', 'keys'];
    for (const operation of [
      { op: 'test', path: '/key', value: '••••••' },
      { op: 'test', path: '/keys/a', value: 'x' },
      { op: 'copy', from: '/key', path: '/other' },
      { op: 'move', from: '/keys/a', path: '/keys/b' },
    ]) {
      expect(refusal(object, [operation], secrets), JSON.stringify(operation)).to.match(/^Invalid \[0\].*secret field/);
    }
    expect(refusal(object, [{ op: 'remove', path: '/keys/a' }], secrets)).to.equal('none');
  });

  it('leaves the object that it is applied to, and itself, as they are', () => {
    const patch = new JsonPatch([
      { op: 'add', path: '/a/-', value: { list: [] } },
      { op: 'add', path: '/a/0/list/-', value: 1 },
    ]);
    const object = { a: [] };
    for (let i = 0; i < 2; i++) expect(patch.apply(object, [])).to.deep.equal({ a: [{ list: [1] }] });
    expect(object).to.deep.equal({ a: [] });
  });

  it('is bounded: by its operations, by depth, by what copies multiply and moves shift', () => {
    const before = process.cpuUsage();
    const many = (count: number, one: (i: number) => object) => Array.from({ length: count }, (_, i) => one(i));
    expect(
      refusal(
        '{}',
        many(10_001, i => ({ op: 'add', path: `/${i}`, value: 1 })),
      ),
    ).to.match(/^TooLarge/);
    expect(
      refusal(
        '{}',
        many(10_000, i => ({ op: 'add', path: `/${i}`, value: 1 })),
      ),
    ).to.equal('none');
    const doubling = many(64, () => ({ op: 'copy', from: '/a', path: '/a/-' }));
    expect(refusal('{"a":[1]}', doubling)).to.match(/^TooLarge|^Invalid.*64 levels/);
    const long = 'x'.repeat(100_000);
    const copies = many(100, i => ({ op: 'copy', from: '/a', path: `/b${i}` }));
    expect(refusal(`{"a":"${long}"}`, copies)).to.match(/^TooLarge \[30\]/);
    const list = JSON.stringify({ a: Array.from({ length: 500_000 }, () => 1) });
    expect(
      refusal(
        list,
        many(10_000, () => ({ op: 'add', path: '/a/0', value: 1 })),
      ),
    ).to.match(/^TooLarge/);
    expect(
      refusal(
        list,
        many(10_000, () => ({ op: 'move', from: '/a', path: '/a' })),
      ),
    ).to.match(/^TooLarge/);
    expect(
      refusal(
        list,
        many(10_000, () => ({ op: 'test', path: '/a', value: [] })),
      ),
    ).to.match(/^Conflict \[0\]/);
    const wide = JSON.stringify({ a: Object.fromEntries(Array.from({ length: 100_000 }, (_, i) => [i, 1])) });
    const deep = many(10_000, i => ({ op: 'move', from: i % 2 ? '/b' : '/a', path: i % 2 ? '/a' : '/b' }));
    expect(refusal(wide, deep)).to.match(/^TooLarge/);
    const nested = many(65, i => ({ op: 'add', path: '/a'.repeat(i + 1), value: {} }));
    expect(refusal('{}', nested)).to.match(/^Invalid \[64\].*64/);
    const hung = [...nested.slice(0, 60), ...many(8, () => ({ op: 'copy', from: '/a', path: '/a/a/a/a/a/a/a/a/b' }))];
    expect(refusal('{}', hung)).to.match(/^Invalid \[6\d\].*64 levels/);
    const { user, system } = process.cpuUsage(before);
    expect((user + system) / 1_000).to.be.below(5_000);
  });

  describe('over HTTP', () => {
    let api: TestApi;
    let serial = 0;
    before(async () => {
      api = await startApi();
    });
    after(() => api.stop());
    const headers = { 'Content-Type': 'application/json-patch+json' };
    async function create(fields: object = {}) {
      const { body } = await api.call('POST', '/v1/clusters', { name: `j${++serial}`, namespace: 'foo', ...fields });
      return body;
    }
    const send = (object: { name: string }, operations: unknown, suffix = '') =>
      api.call('PATCH', `/v1/clusters/foo/${object.name}${suffix}`, operations, headers);

    it('changes an object, and the result is validated', async () => {
      const object = await create({ labels: { a: '1' }, kubeconfig: 'k' });
      const changed = await send(object, [
        { op: 'test', path: '/labels/a', value: '1' },
        { op: 'move', from: '/labels/a', path: '/labels/b' },
        { op: 'add', path: '/context', value: 'admin' },
      ]);
      expect(changed.status, JSON.stringify(changed.body)).to.equal(200);
      expect(changed.body).to.include({ context: 'admin', generation: 2, kubeconfig: '••••••' });
      expect(changed.body.labels).to.deep.equal({ b: '1' });
      const wrong = await send(object, [{ op: 'add', path: '/verifySeconds', value: 1 }]);
      expect([wrong.status, wrong.body.error.details[0].path]).to.deep.equal([422, 'verifySeconds']);
      const unknown = await send(object, [{ op: 'add', path: '/bogus', value: 1 }]);
      expect([unknown.status, unknown.body.error.code]).to.deep.equal([400, 'UnknownField']);
      for (const field of ['name', 'namespace', 'type']) {
        const other = await send(object, [{ op: 'replace', path: `/${field}`, value: 'other' }]);
        expect([other.status, other.body.error.details[0].path]).to.deep.equal([422, field]);
      }
    });

    it('changes a secret, and is refused as a test of one', async () => {
      const object = await create({ kubeconfig: 'first' });
      expect((await send(object, [{ op: 'replace', path: '/kubeconfig', value: 'second' }])).body.generation).to.equal(
        2,
      );
      expect((await send(object, [{ op: 'replace', path: '/kubeconfig', value: 'second' }])).body.generation).to.equal(
        2,
      );
      const test = await send(object, [{ op: 'test', path: '/kubeconfig', value: 'second' }]);
      expect([test.status, test.body.error.code]).to.deep.equal([422, 'Invalid']);
      expect(test.body.error.details[0]).to.deep.include({ path: '[0]' });
      expect(JSON.stringify(test.body)).not.to.contain('second');
    });

    it('changes status and metadata alone on their paths', async () => {
      const object = await create({ labels: { a: '1' } });
      const both = [
        { op: 'add', path: '/status', value: { nodeCount: 3 } },
        { op: 'add', path: '/labels/b', value: '2' },
        { op: 'add', path: '/context', value: 'no' },
      ];
      const status = await send(object, both, '/status');
      expect(status.body.status).to.deep.equal({ nodeCount: 3 });
      expect(status.body.labels).to.deep.equal({ a: '1' });
      const metadata = await send(object, [both[1], both[2]], '/metadata');
      expect(metadata.body.labels).to.deep.equal({ a: '1', b: '2' });
      expect(metadata.body).not.to.have.property('context');
    });

    it('tells a failed test from a path that leads nowhere, and stores nothing of either', async () => {
      const object = await create({ context: 'a' });
      const first = { op: 'replace', path: '/context', value: 'b' };
      const failed = await send(object, [first, { op: 'test', path: '/context', value: 'a' }]);
      expect([failed.status, failed.body.error.code, failed.body.error.details[0].path]).to.deep.equal([
        409,
        'Conflict',
        '[1]',
      ]);
      const lost = await send(object, [first, { op: 'remove', path: '/labels/x' }]);
      expect([lost.status, lost.body.error.code, lost.body.error.details[0].path]).to.deep.equal([
        422,
        'Invalid',
        '[1]',
      ]);
      const stale = await send(object, [first, { op: 'add', path: '/resourceVersion', value: '1' }]);
      expect(stale.status).to.equal(409);
      expect((await api.call('GET', `/v1/clusters/foo/${object.name}`)).body).to.deep.equal(object);
    });

    it('adds up when several come at once: each is applied to what the one before made', async () => {
      const object = await create({ finalizers: ['example.com/start'] });
      const answers = await Promise.all(
        Array.from({ length: 8 }, (_, i) =>
          send(object, [{ op: 'add', path: '/finalizers/-', value: `example.com/f${i}` }]),
        ),
      );
      expect(answers.map(answer => answer.status)).to.deep.equal(Array(8).fill(200));
      expect((await api.call('GET', `/v1/clusters/foo/${object.name}`)).body.finalizers).to.have.length(9);
    });

    it('must be a list, of a body that is JSON', async () => {
      const object = await create();
      for (const [body, status, code] of [
        ['{"context": "a"}', 400, 'InvalidJson'],
        ['[{"op": "add"', 400, 'InvalidJson'],
        ['[{"op": "add", "path": "/context", "value": "\\u0000"}]', 422, 'Invalid'],
        ['[]', 200, undefined],
      ] as const) {
        const answer = await send(object, body);
        expect([answer.status, answer.body.error?.code], body).to.deep.equal([status, code]);
      }
      const put = await api.call('PUT', `/v1/clusters/foo/${object.name}`, [], headers);
      expect(put.status).to.equal(415);
    });
  });
});
