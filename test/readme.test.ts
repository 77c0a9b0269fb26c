import { expect } from 'chai';
import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { chmod, cp, lstat, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import type { Cluster, Notice } from '../client/index.js';
import { FakeApiServer } from '../kubernetes/testing/apiserver.js';
import { kubeconfigText } from '../kubernetes/testing/kubeconfig.js';
import { call } from './platform.js';
import { freePort } from './ports.js';
import { variables } from './settings.js';
import { blocksOf, missing, type as typeIn } from './tour.js';
import { until } from './until.js';

const root = join(import.meta.dirname, '..');
const readme = await readFile(join(root, 'README.md'), 'utf8');
const run = promisify(execFile);

describe('a fresh copy of the sources', function () {
  this.timeout(120_000);
  let folder: string;
  let copy: string;
  let port: number;
  let url: string;
  let platform: Running;
  let env: NodeJS.ProcessEnv;
  let target: FakeApiServer;
  const background: Running[] = [];

  /** The text of README.md with the address that this run has in place of the usual one. */
  const here = (text: string) => text.replaceAll(/(localhost|127\.0\.0\.1):7070/g, `$1:${port}`);

  /** The files that README.md shows, by the name in their first line. */
  const example = (file: string) => {
    const found = blocksOf(readme).find(({ language, text }) => language === 'ts' && text.startsWith(`// ${file}\n`));
    return found ?? expect.fail(`README.md shows no ${file}`);
  };

  /** Something that goes on until it is stopped. */
  interface Running {
    child: ChildProcess;
    output: () => string;
    errors: () => string;
    ended: Promise<unknown[]>;
  }

  function start(command: string, args: string[], cwd = copy): Running {
    // A group of its own, as in a terminal, where Ctrl-C reaches make and all it has started.
    const child = spawn(command, args, { cwd, env, detached: true, stdio: ['ignore', 'pipe', 'pipe'] });
    const output: string[] = [];
    const errors: string[] = [];
    child.stdout.setEncoding('utf8').on('data', (text: string) => output.push(text));
    // curl shows its progress here, because standard output is no terminal.
    child.stderr.setEncoding('utf8').on('data', (text: string) => errors.push(text));
    return { child, output: () => output.join(''), errors: () => errors.join(''), ended: once(child, 'close') };
  }

  async function ctrlC({ child, ended }: Running): Promise<void> {
    if (child.pid !== undefined && child.exitCode === null && child.signalCode === null)
      process.kill(-child.pid, 'SIGINT');
    await ended;
  }

  /** Waits until something shows what it should; fails with what it shows. */
  async function untilShown({ output }: Running, expected: string, place: string): Promise<void> {
    // A watch gets bookmarks at times of their own, between any two lines.
    const shown = () => output().replaceAll(/^\{"type":"BOOKMARK","resourceVersion":"\d+"\}\n/gm, '');
    await until(() => missing(shown(), expected) === undefined, { what: place }).catch(() =>
      expect.fail(`${place}\ndoes not show\n${missing(shown(), expected) ?? ''}\nbut\n${output()}`),
    );
  }

  async function makeRun(): Promise<number> {
    const begun = performance.now();
    platform = start('make', ['run']);
    const line = await until(
      () => /^(ready: .*)\n/m.exec(platform.output())?.[1] ?? (platform.child.exitCode === null ? '' : 'ended'),
      { what: 'make run to be ready', deadline: 240_000 },
    );
    expect(line, platform.output() + platform.errors()).to.equal(`ready: http://127.0.0.1:${port}`);
    return performance.now() - begun;
  }

  before('make run in it, which installs, generates, builds and starts', async function () {
    this.timeout(300_000);
    folder = await mkdtemp(join(tmpdir(), 'readme-'));
    // Run by root, the database is another user, who must be able to get in.
    await chmod(folder, 0o711);
    copy = join(folder, 'syncsets');
    const list = ['-c', 'safe.directory=*', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'];
    const { stdout } = await run('git', list, { cwd: root });
    for (const file of stdout.split('\0').filter(name => name !== '')) {
      await cp(join(root, file), join(copy, file)).catch((error: unknown) => {
        // Deleted and not yet committed.
        if (!(error instanceof Error && 'code' in error && error.code === 'ENOENT')) throw error;
      });
    }
    port = await freePort();
    url = `http://127.0.0.1:${port}`;
    for (const name of ['home/.kube', 'tmp', 'httpie', 'package']) await mkdir(join(folder, name), { recursive: true });
    await chmod(join(folder, 'tmp'), 0o777);
    const plain = { default_options: ['--pretty=format'], disable_update_warnings: true };
    await writeFile(join(folder, 'httpie/config.json'), JSON.stringify(plain));
    target = await FakeApiServer.start({ nodes: 3 });
    await writeFile(join(folder, 'home/.kube/config'), kubeconfigText(target.url));
    const ours = variables();
    const inherited = Object.entries(process.env).filter(
      ([name]) => !ours.includes(name) && !/^M(AKE|FLAGS)/.test(name),
    );
    const cache = await run('npm', ['config', 'get', 'cache']);
    env = {
      ...Object.fromEntries(inherited),
      HOME: join(folder, 'home'),
      TMPDIR: join(folder, 'tmp'),
      npm_config_userconfig: process.env['npm_config_userconfig'] ?? join(homedir(), '.npmrc'),
      npm_config_cache: cache.stdout.trim(),
      HTTPIE_CONFIG_DIR: join(folder, 'httpie'),
      LC_ALL: 'C.UTF-8',
      PORT: String(port),
      // What `make controllers` finds by itself where the port is the usual one.
      API_URL: url,
    };
    console.log(`      first start, with npm ci and build: ${seconds(await makeRun())}`);
  });

  after(async () => {
    for (const one of [...background, platform]) await ctrlC(one);
    await target.stop();
    await rm(folder, { recursive: true, maxRetries: 10 });
  });

  it('does and shows what README.md says, command by command', async () => {
    const [first, ...steps] = blocksOf(readme).filter(({ language }) => language === 'sh');
    expect(first?.text).to.equal('make run');
    expect(missing(platform.output(), here(first?.shown ?? '…nothing'))).to.equal(undefined);
    expect(steps.length).to.be.greaterThan(15);
    const watched: { running: Running; shown: string; place: string }[] = [];
    for (const { text, shown, line } of steps) {
      const place = `README.md:${line}: ${text}`;
      const expected = here(shown ?? '');
      // These end at Ctrl-C only. The reader goes on when they have begun; the rest of what they show comes with what follows.
      if (/^(curl -N|make controllers)/.test(text)) {
        const running = start('bash', ['-c', here(text)]);
        background.push(running);
        watched.push({ running, shown: expected, place });
        await untilShown(running, expected.split('\n')[0] ?? '', place);
        continue;
      }
      // A single read is repeated for the 2 s that a controller may take to do what it shows.
      const deadline = performance.now() + (/^http GET [^\n]*$/.test(text) ? 2_000 : 0);
      for (;;) {
        const output = await typeIn(here(text), { cwd: copy, env });
        const lacking = missing(output, expected);
        if (lacking === undefined) break;
        if (performance.now() > deadline) expect.fail(`${place}\ndoes not show\n${lacking}\nbut\n${output}`);
      }
    }
    for (const { running, shown, place } of watched) await untilShown(running, shown, place);
  });

  it('knows within 2 s whether a cluster can be reached', async () => {
    const real = process.env['KUBECONFIG'];
    const kubeconfigs: [string, string, string, string | undefined][] = [
      ['quick1', 'foobar', 'KubeconfigInvalid', undefined],
      ['quick2', kubeconfigText(target.url), 'Reachable', 'v1.34.4'],
    ];
    if (real) {
      const { stdout } = await run('kubectl', ['version', '--output=json'], {
        env: { ...process.env, KUBECONFIG: real },
      });
      const { serverVersion } = JSON.parse(stdout) as { serverVersion: { gitVersion: string } };
      kubeconfigs.push(['quick3', await readFile(real, 'utf8'), 'Reachable', serverVersion.gitVersion]);
    }
    for (const [name, kubeconfig, reason, version] of kubeconfigs) {
      expect((await call(url, 'POST', '/v1/clusters', { name, namespace: 'foo', kubeconfig })).status).to.equal(201);
      const status = await until(
        async () => ((await call(url, 'GET', `/v1/clusters/foo/${name}`)).body as Cluster).status,
        { what: `the status of ${name}`, deadline: 2_000 },
      );
      expect(status.conditions?.[0]).to.include({ type: 'Reachable', reason, status: version ? 'True' : 'False' });
      expect(status.serverVersion).to.equal(version);
    }
  });

  it('serves the examples of controller and client in a package of their own', async () => {
    const pack = join(folder, 'package');
    const npm = ['install', '--ignore-scripts', '--no-audit', '--no-fund', '--prefer-offline', copy];
    await run('npm', npm, { cwd: pack, env });
    for (const file of ['reachability.mts', 'client.mts']) await writeFile(join(pack, file), here(example(file).text));
    const bin = (name: string) => join(copy, 'node_modules/.bin', name);
    const strict = '--noEmit --strict --skipLibCheck --module nodenext --target es2022 --lib es2023,dom'.split(' ');
    await run(bin('tsc'), [...strict, 'reachability.mts', 'client.mts'], { cwd: pack, env });

    const { stdout } = await run(bin('tsx'), ['client.mts'], { cwd: pack, env });
    expect(missing(stdout, example('client.mts').shown ?? '…nothing'), stdout).to.equal(undefined);

    // Without tsx's own process in between, which at Ctrl-C may end first, and then with a code of its own.
    const loader = pathToFileURL(join(copy, 'node_modules/tsx/dist/loader.mjs')).href;
    const controller = start(process.execPath, ['--import', loader, 'reachability.mts'], pack);
    background.push(controller);
    await until(
      async () => {
        const { body } = await call(url, 'GET', '/v1/clusters?labelSelector=reachable=False,env=prod');
        return (body.items as Cluster[]).some(({ name }) => name === 'cluster1');
      },
      { what: `the controller to label cluster1; it said ${controller.errors()}` },
    );
    await until(
      async () => {
        const { body } = await call(url, 'GET', '/v1/clusters/foo/cluster1/notices');
        return (body.items as Notice[]).some(({ reason, actor }) => reason === 'Labelled' && actor === 'reachability');
      },
      { what: 'the notice' },
    );
    await ctrlC(controller);
    expect([controller.child.exitCode, controller.errors()]).to.deep.equal([0, '']);
  });

  it('ends at Ctrl-C with everything it has started, and has written nowhere else', async () => {
    for (const one of background) await ctrlC(one);
    await ctrlC(platform);
    // make itself ends by the signal, as the shell wants it; it would say so had node failed.
    expect(platform.child.signalCode).to.equal('SIGINT');
    expect(platform.errors()).not.to.match(/\*\*\*|^error/m);
    const { stdout } = await run('ps', ['-A', '-o', 'pid=,args=']);
    expect(stdout.split('\n').filter(line => line.includes(folder))).to.deep.equal([]);
    const free = createServer().listen(port, '127.0.0.1');
    await once(free, 'listening');
    await once(free.close(), 'close');
    expect(await readdir(join(folder, 'home'), { recursive: true })).to.have.members(['.kube', '.kube/config']);
    // Caches of tsx and npm, which are theirs.
    const left = (await readdir(join(folder, 'tmp'))).filter(name => !/^(tsx-|node-compile-cache)/.test(name));
    expect(left).to.deep.equal([]);
    // The database is there and not behind a link, as where the server cannot enter the data directory.
    expect((await lstat(join(copy, '.data/postgres'))).isDirectory()).to.equal(true);
  });

  it('starts again with all that was stored', async () => {
    console.log(`      second start: ${seconds(await makeRun())}`);
    const { body } = await call(url, 'GET', '/v1/clusters/foo/cluster1');
    expect(body).to.deep.include({ name: 'cluster1', kubeconfig: '••••••' });
    expect(body.labels).to.include({ env: 'prod', region: 'eu' });
  });

  it('takes the example of a type', async () => {
    await writeFile(join(copy, 'api/types/widgets.ts'), example('api/types/widgets.ts').text);
    await run('make', ['generate'], { cwd: copy, env });
    const document: unknown = JSON.parse(await readFile(join(copy, 'build/openapi.json'), 'utf8'));
    expect(document).to.have.nested.property('components.schemas.Widget.properties.size.minimum', 1);
    expect(document).to.have.nested.property('paths./v1/widgets/{namespace}/{name}/status');
  });
});

function seconds(milliseconds: number): string {
  return `${(milliseconds / 1000).toFixed(1)} s`;
}
