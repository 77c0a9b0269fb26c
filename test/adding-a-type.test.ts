import { expect } from 'chai';
import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { cpSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { call, encryptionKey, type Answer } from './platform.js';
import { createDatabase, type TestDatabase } from './postgres.js';
import { until } from './until.js';

const root = join(import.meta.dirname, '..');
const left = ['node_modules', '.git', '.data', 'dist', 'build', 'client/generated'].map(path => join(root, path));

const widgets = `import type { Resource } from '../resource.js';

/**
 * A thing that is turned.
 * @scope namespaced
 */
export interface Widget extends Resource {
  /**
   * How large it is, in millimetres.
   * @isInt must be a whole number
   * @minimum 1 must be at least 1
   */
  size: number;
  /**
   * The colour of its coat.
   * @default "red"
   */
  colour?: 'red' | 'blue';
  /**
   * What opens it.
   * @secret
   */
  key?: string;
  status?: WidgetStatus;
}

/** How it is doing. */
export interface WidgetStatus {
  /** How often it was turned. */
  turns?: number;
}
`;

// What somebody writes who uses the type through the client.
const rules = `import type { Rule } from '../admission.js';
import type { Widget } from './widgets.js';

export const rules: Rule<Widget>[] = [
  {
    fields: ['size', 'colour'],
    admit: ({ size, colour }) => ({
      violations: size === 13 ? [{ path: 'size', message: 'must not be 13' }] : [],
      warnings: colour === 'blue' ? ['blue fades'] : [],
    }),
  },
];
`;

const user = `import { connect } from './client/index.js';

const client = connect({ url: process.argv[2] ?? '' });
const made = await client.widgets.create({ name: 'w2', namespace: 'foo', size: 5, colour: 'blue' });
await client.widgets.patchStatus({ namespace: 'foo', name: 'w2' }, { turns: 7 });
const read = await client.widgets.read({ namespace: 'foo', name: 'w2' });
const { items } = await client.widgets.list({ namespace: 'foo' });
const turns: number | undefined = read.status?.turns;
console.log(JSON.stringify({ made: [made.type, made.size, made.colour], turns, names: items.map(one => one.name) }));
await client.close();
`;

describe('adding a type', function () {
  this.timeout(180_000);
  let copy: string;
  let database: TestDatabase;
  let platform: ChildProcess | undefined;
  let url: string;
  const output: string[] = [];
  const run = promisify(execFile);
  const tsx = (...args: string[]) => run(process.execPath, ['--import', 'tsx', ...args], { cwd: copy });
  const ask = (method: string, path: string, body?: unknown): Promise<Answer> => call(url, method, path, body);

  before('one file is written, and one of rules beside it, and everything else is generated', async () => {
    copy = mkdtempSync(join(tmpdir(), 'adding-a-type-'));
    cpSync(root, copy, { recursive: true, filter: path => !left.includes(path) });
    symlinkSync(join(root, 'node_modules'), join(copy, 'node_modules'));
    writeFileSync(join(copy, 'api/types/widgets.ts'), widgets);
    writeFileSync(join(copy, 'api/types/widgets.rules.ts'), rules);
    writeFileSync(join(copy, 'user.ts'), user);
    database = await createDatabase();
    await tsx('api/generate.ts');
    platform = spawn(process.execPath, ['--import', 'tsx', 'main.ts', 'api'], {
      cwd: copy,
      env: {
        PATH: process.env['PATH'] ?? '',
        DATABASE_URL: database.url,
        ENCRYPTION_KEY: encryptionKey.toString('base64'),
        PORT: '0',
      },
    });
    for (const stream of [platform.stdout, platform.stderr]) stream?.on('data', data => output.push(String(data)));
    url = await until(() => /^ready: (\S+)$/m.exec(output.join(''))?.[1], {
      deadline: 120_000,
      what: `the platform to be ready; it said ${output.join('')}`,
    });
  });

  after(async () => {
    if (platform && platform.exitCode === null) {
      const ended = new Promise(resolve => platform?.once('exit', resolve));
      platform.kill('SIGTERM');
      await ended;
    }
    await database.drop();
    rmSync(copy, { recursive: true });
  });

  it('gives it validation, defaults, secrets and a status over HTTP', async () => {
    const made = await ask('POST', '/v1/widgets', { name: 'w1', namespace: 'foo', size: 3, key: 'hunter2' });
    expect(made.status).to.equal(201);
    expect(made.body).to.include({ type: 'widgets', size: 3, colour: 'red', key: '••••••' });
    const wrong = await ask('POST', '/v1/widgets', { name: 'w3', namespace: 'foo', size: 0, colour: 'green' });
    expect(wrong.status).to.equal(422);
    expect(wrong.body)
      .to.have.nested.property('error.details')
      .that.has.deep.members([
        { path: 'size', message: 'must be at least 1' },
        { path: 'colour', message: 'must be one of "red", "blue"' },
      ]);
    const unknown = await ask('PATCH', '/v1/widgets/foo/w1', { sise: 4 });
    expect(unknown.status).to.equal(400);
    expect(unknown.body).to.nested.include({ 'error.code': 'UnknownField' });
    const turned = await ask('PUT', '/v1/widgets/foo/w1/status', { status: { turns: 1 } });
    expect(turned.status).to.equal(200);
    expect(turned.body).to.deep.include({ status: { turns: 1 }, generation: 1 });
  });

  it('asks the rules beside it', async () => {
    const wrong = await ask('POST', '/v1/widgets?dryRun=All', { name: 'w4', namespace: 'foo', size: 13 });
    expect([wrong.status, wrong.body.error.message]).to.deep.equal([422, 'size: must not be 13']);
    const warned = await ask('PATCH', '/v1/widgets/foo/w1?dryRun=All', { colour: 'blue' });
    expect([warned.status, warned.headers.get('warning')]).to.deep.equal([200, '299 - "blue fades"']);
  });

  it('makes it known: in the list of types and in the documentation', async () => {
    const types = await ask('GET', '/v1');
    expect(JSON.stringify(types.body)).to.contain('"type":"widgets","kind":"Widget","namespaced":true');
    const document = await ask('GET', '/openapi.json');
    expect(document.body).to.nested.include({
      'components.schemas.Widget.properties.size.description': 'How large it is, in millimetres.',
      'components.schemas.WidgetInput.properties.colour.default': 'red',
    });
    expect(document.body)
      .to.have.property('paths')
      .that.includes.keys('/v1/widgets', '/v1/widgets/{namespace}/{name}/reveal');
  });

  it('lets it be used through the client', async () => {
    const { stdout } = await tsx('user.ts', url);
    expect(JSON.parse(stdout)).to.deep.equal({ made: ['widgets', 5, 'blue'], turns: 7, names: ['w1', 'w2'] });
  });
});
