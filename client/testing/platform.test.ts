import { expect } from 'chai';
import { spawn } from 'node:child_process';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect, isPlatformError } from '../index.js';
import { startPlatform, until, type TestPlatform } from './index.js';

describe('the test kit', function () {
  this.timeout(90_000);
  let platform: TestPlatform;

  before(async () => {
    platform = await startPlatform();
  });

  after(() => platform.stop());

  it('runs a real platform, which keeps its address and its objects over a restart', async () => {
    const { client } = platform;
    await client.clusters.create({ name: 'kept', namespace: 'kit' });
    const refused: unknown = await client.clusters.create({ name: 'Not A Name' }).catch((error: unknown) => error);
    expect(isPlatformError(refused, 'Invalid'), platform.log()).to.equal(true);
    await platform.restart();
    const kept = await until(() => client.clusters.read({ name: 'kept', namespace: 'kit' }), { what: 'the object' });
    expect(kept.resourceVersion).to.equal('1');
  });

  it('tells what a condition gave last when it waits in vain', async () => {
    const error: unknown = await until(() => Promise.reject(new Error('not there')), {
      what: 'nothing',
      deadline: 0.1,
    }).catch((thrown: unknown) => thrown);
    expect(error).to.include({ message: 'waited 0.1 s for nothing; the last look gave the error "not there"' });
  });

  it('ends with the process that started it, also when that is killed', async () => {
    // Where it puts what is temporary, so that nobody else's is looked at.
    const folder = await mkdtemp(join(tmpdir(), 'syncsets-test-'));
    const script = `import { startPlatform } from ${JSON.stringify(new URL('./index.ts', import.meta.url).href)};
      const { url } = await startPlatform();
      console.log(url);
      setInterval(() => undefined, 1000);`;
    const child = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '--eval', script], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { ...process.env, TMPDIR: folder },
    });
    const url = await new Promise<string>(resolve => child.stdout.once('data', data => resolve(String(data).trim())));
    const client = connect({ url, retrySeconds: 0 });
    await client.clusters.list();
    child.kill('SIGKILL');
    await until(
      () =>
        client.clusters.list().then(
          () => false,
          () => true,
        ),
      { what: 'the end of the API', deadline: 30 },
    );
    await client.close();
    await until(async () => (await readdir(folder)).every(name => !name.startsWith('syncsets-kit-')), {
      what: 'the end of its data',
      deadline: 30,
    });
    await rm(folder, { recursive: true });
  });
});
