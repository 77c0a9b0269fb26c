import { expect } from 'chai';
import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { promisify } from 'node:util';
import { Connection } from 'rabbitmq-client';
import { workQueueArguments } from '../amqp.js';
import { startApi, type TestApi } from './platform.js';
import { sharedRabbit } from './rabbitmq.js';
import { blocksOf } from './tour.js';
import { until } from './until.js';

const root = join(import.meta.dirname, '..');
const guide = join(root, 'docs', 'guide');
const run = promisify(execFile);
/** Where the sources of what a reader imports are: the package itself is not built here. */
const sources = new Map([
  ['syncsets/client/testing', 'client/testing/index.js'],
  ['syncsets/client', 'client/index.js'],
  ['syncsets/controllers', 'controllers/index.js'],
]);

describe('the guide to writing a controller', function () {
  this.timeout(120_000);
  let folder: string;
  const children: ChildProcess[] = [];
  /** What the compiler has to say; undefined: nothing. */
  let typed: Promise<string | undefined>;

  before(async () => {
    // Within the sources, so that imports find what they find there.
    folder = await mkdtemp(join(root, 'build', 'guide-'));
    const markdown = await readFile(join(guide, 'writing-a-controller.md'), 'utf8');
    const files = blocksOf(markdown).filter(({ language }) => language === 'ts');
    for (const { text } of files) {
      const name = /^\/\/ (\S+)\n/.exec(text)?.[1] ?? expect.fail('a block without the name of its file');
      const local = text.replaceAll(/from '(syncsets[^']*)'/g, (_, from: string) => {
        return `from '${relative(folder, join(root, sources.get(from) ?? expect.fail(`no source of ${from}`)))}'`;
      });
      await writeFile(join(folder, name), local);
    }
    const config = {
      extends: '../../tsconfig.json',
      compilerOptions: { rootDir: '../..' },
      include: ['*.ts'],
      exclude: [],
    };
    await writeFile(join(folder, 'tsconfig.json'), JSON.stringify(config));
    // Beside the tests, which wait more than they compute.
    const tsc = join(root, 'node_modules', 'typescript', 'bin', 'tsc');
    typed = run(process.execPath, [tsc, '--noEmit', '-p', folder]).then(
      () => undefined,
      (error: unknown) => (error instanceof Error && 'stdout' in error ? String(error.stdout) : String(error)),
    );
  });

  afterEach(async () => {
    for (const child of children.splice(0)) await end(child, 'SIGKILL');
  });

  after(async () => {
    await typed;
    await rm(folder, { recursive: true, force: true });
  });

  async function end(child: ChildProcess, signal: NodeJS.Signals): Promise<unknown> {
    if (child.exitCode !== null || child.signalCode !== null) return child.exitCode;
    const ended = once(child, 'exit');
    child.kill(signal);
    return (await ended)[0];
  }

  function start(program: string, args: string[], cwd: string, env: Record<string, string>) {
    const inherited = { ...process.env };
    delete inherited['AMQP_URL'];
    const child = spawn(program, args, { cwd, env: { ...inherited, ...env }, stdio: 'pipe' });
    children.push(child);
    let output = '';
    for (const stream of [child.stdout, child.stderr]) stream.on('data', data => (output += String(data)));
    return { child, output: () => output };
  }

  /** Creates a cluster and a set that names it, and waits until both are counted. */
  async function expectCounts(api: TestApi, output: () => string): Promise<void> {
    const path = '/v1/clusters/guide/rome';
    const counted = (count: number) =>
      until(async () => (await api.call('GET', path)).body.status?.sets?.matched === count, {
        what: `a count of ${count}`,
        deadline: 40_000,
      }).catch((error: unknown) => expect.fail(`${String(error)}\n${output()}`));
    await api.call('POST', '/v1/clusters', { name: 'rome', namespace: 'guide' });
    await counted(0);
    const set = { name: 'set', namespace: 'guide', clusterRefs: ['rome'], resources: [] };
    expect((await api.call('POST', '/v1/syncsets', set)).status).to.equal(201);
    await counted(1);
    await api.call('DELETE', '/v1/syncsets/guide/set');
    await counted(0);
  }

  it('shows a test that passes, on the platform that the kit starts', async () => {
    const args = ['--import', 'tsx', '--test', join(folder, 'set-counter.test.ts')];
    const { child, output } = start(process.execPath, args, root, { TSX_TSCONFIG_PATH: join(root, 'tsconfig.json') });
    await once(child, 'exit');
    expect(child.exitCode, output()).to.equal(0);
    expect(output()).to.match(/pass 2\b/);
  });

  it('shows a program that works and stops in order', async () => {
    const api = await startApi();
    try {
      const { child, output } = start(process.execPath, ['--import', 'tsx', join(folder, 'main.ts')], root, {
        API_URL: api.url,
        HEALTH_PORT: '0',
      });
      await expectCounts(api, output);
      expect(await end(child, 'SIGTERM'), output()).to.equal(0);
      const { body } = await api.call('GET', '/v1/controllers');
      expect(body.items.map(({ name }: { name: string }) => name)).to.deep.equal(['set-counter', 'tidy']);
    } finally {
      await api.stop();
    }
  });

  /** Skips with the reason when Python, or a library of it, is not there. */
  async function python(context: Mocha.Context, imports: string): Promise<string> {
    // The distribution's packages are seen by its own Python alone, which need not be the first on the path.
    const programs = [process.env['PYTHON'] ?? 'python3', '/usr/bin/python3'];
    for (const program of programs) {
      const found = await run(program, ['-c', `import ${imports}`]).then(
        () => true,
        () => false,
      );
      if (found) return program;
    }
    const how = 'PYTHON names another one; as root, make tools installs what is missing';
    process.stdout.write(`      skipped: ${programs.join(' and ')} cannot import ${imports} (${how})\n`);
    return context.skip();
  }

  it('has the same controller in Python over HTTP, in at most 30 lines', async function () {
    const program = await python(this, 'urllib.request');
    const lines = (await readFile(join(guide, 'set_counter.py'), 'utf8'))
      .split('\n')
      .filter(line => line.trim() !== '');
    expect(lines.length).to.be.at.most(30);
    const api = await startApi();
    try {
      const { output } = start(program, ['set_counter.py'], guide, { API_URL: api.url, PYTHONDONTWRITEBYTECODE: '1' });
      await expectCounts(api, output);
    } finally {
      await Promise.all(children.map(child => end(child, 'SIGKILL')));
      await api.stop();
    }
  });

  it('has the same controller in Python over AMQP, which drops what others put on its queue', async function () {
    const program = await python(this, 'pika');
    const { url: amqpUrl } = await sharedRabbit();
    const api = await startApi({ amqpUrl });
    const broker = new Connection(amqpUrl);
    try {
      const queue = 'syncsets.work.py-counter';
      await broker.queueDeclare({ queue, durable: true, arguments: workQueueArguments });
      const publisher = broker.createPublisher({ confirm: true });
      const json = (value: unknown) => JSON.stringify(value);
      const foreign = [
        'hello',
        json(['rome']),
        json(7),
        json({ name: 7 }),
        json({ type: 'nonsense', name: 'rome' }),
        json({}),
        json({ type: 'clusters', name: 'x'.repeat(1_000) }),
        '['.repeat(100_000),
        Buffer.from([0xff, 0xfe]),
      ];
      for (const body of foreign) await publisher.send({ routingKey: queue, durable: true }, Buffer.from(body));
      await publisher.close();
      const env = { API_URL: api.url, AMQP_URL: amqpUrl, PYTHONDONTWRITEBYTECODE: '1' };
      const { child, output } = start(program, ['set_counter_amqp.py'], guide, env);
      await expectCounts(api, output);
      await until(() => output().match(/^dropped a message/gm)?.length === foreign.length, {
        what: 'one line for each foreign message',
      }).catch((error: unknown) => expect.fail(`${String(error)}\n${output()}`));
      expect(child.exitCode, output()).to.equal(null);
    } finally {
      await Promise.all(children.map(child => end(child, 'SIGKILL')));
      await broker.close();
      await api.call('DELETE', '/v1/controllers/py-counter');
      await api.stop();
    }
  });

  it('shows files that are typed right', async () => {
    expect(await typed).to.equal(undefined);
  });
});
