import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { expect } from 'chai';
import { parseKubeconfig, probeHealth, Target, TargetFailure } from './index.js';
import { FakeApiServer } from './testing/apiserver.js';
import { errorOf, expectFailure } from './testing/failure.js';
import { kubeconfigText } from './testing/kubeconfig.js';

describe('probeHealth', () => {
  let fake: FakeApiServer;
  let target: Target;

  beforeEach(async () => {
    fake = await FakeApiServer.start();
    target = new Target(parseKubeconfig(kubeconfigText(fake.url)));
  });
  afterEach(async () => {
    target.close();
    await fake.stop();
  });

  it('tells version, readiness and the number of nodes, by three small requests', async () => {
    fake.cluster.nodes = 5000;
    expect(await probeHealth(target)).to.deep.equal({ version: 'v1.34.4', ready: true, nodeCount: 5000 });
    expect(fake.requests.toSorted()).to.deep.equal(['GET /api/v1/nodes?limit=1', 'GET /readyz', 'GET /version']);
    for (const nodes of [1, 0]) {
      fake.cluster.nodes = nodes;
      expect((await probeHealth(target)).nodeCount).to.equal(nodes);
    }
  });

  it('leaves the number out where nodes may not be listed or the server does not count them', async () => {
    fake.cluster.nodesAllowed = false;
    expect(await probeHealth(target)).to.deep.equal({ version: 'v1.34.4', ready: true });
    fake.cluster.instead = (request, response) => {
      if (request.url?.startsWith('/api/') !== true) return false;
      response.end('{"metadata": {"continue": "more"}, "items": [{}]}');
      return true;
    };
    expect(await probeHealth(target)).to.deep.equal({ version: 'v1.34.4', ready: true });
  });

  it('names the failing checks of a server that is not ready, without waiting for its nodes', async () => {
    fake.cluster.failing = ['etcd', 'etcd-readiness'];
    let released: Promise<unknown> | undefined;
    fake.cluster.instead = (request, response) => {
      if (request.url?.startsWith('/api/') !== true) return false;
      released = once(response, 'close');
      return true; // hangs, as without etcd
    };
    expect(await probeHealth(target)).to.deep.equal({
      version: 'v1.34.4',
      ready: false,
      readyMessage: 'etcd failed: reason withheld; etcd-readiness failed: reason withheld',
    });
    await released;
  });

  it('has one deadline for all three', async () => {
    for (const path of ['/version', '/readyz', '/api/v1/nodes?limit=1']) {
      fake.cluster.instead = request => request.url === path;
      const start = performance.now();
      await expectFailure('Timeout', () => probeHealth(target, { timeoutMs: 200 }));
      expect(performance.now() - start).to.be.within(190, 1000);
    }
  });

  it('fails as soon as one question fails for good', async () => {
    fake.cluster.authorization = 'Bearer another';
    const failure = await expectFailure('Unauthorized', () => probeHealth(target));
    expect(failure.status).to.equal(401);
    expect(failure.message).to.match(/^127.0.0.1:\d+ answered 401 to GET \/\w+: Unauthorized \(no token/);
    fake.cluster.instead = (request, response) => {
      if (request.url === '/version') response.writeHead(503).end('<html>no backend</html>');
      return true; // the others hang
    };
    await expectFailure('ServerError', () => probeHealth(target, { timeoutMs: 5000 }));
  });

  it('fails where nodes may be listed but the answer is an error', async () => {
    fake.cluster.instead = (request, response) => {
      if (request.url?.startsWith('/api/') !== true) return false;
      response.writeHead(429).end();
      return true;
    };
    await expectFailure('TooManyRequests', () => probeHealth(target));
  });

  for (const body of [
    '<html>Welcome to nginx</html>',
    '[]',
    '{}',
    '{"gitVersion": 7}',
    '{"gitVersion": "a\\u0000"}',
    '',
  ]) {
    it(`does not take ${body || 'an empty body'} for an API server`, async () => {
      fake.cluster.instead = (request, response) => {
        if (request.url !== '/version') return false;
        response.end(body);
        return true;
      };
      await expectFailure('UnexpectedAnswer', () => probeHealth(target));
    });
  }

  it('stops when it is told to, with the reason that it is told', async () => {
    const controller = new AbortController();
    const reason = new Error('this process stops');
    fake.cluster.instead = () => {
      controller.abort(reason);
      return true;
    };
    expect(await errorOf(() => probeHealth(target, { signal: controller.signal }))).to.equal(reason);
    expect(await errorOf(() => probeHealth(target, { signal: controller.signal }))).to.equal(reason);
  });
});

// Reads only, so any cluster will do.
describe('A real API server (the first file of KUBECONFIG)', () => {
  let target: Target;

  before(async function () {
    const file = process.env.KUBECONFIG?.split(':')[0];
    if (!file) {
      console.log('      KUBECONFIG is not set: skipped');
      return this.skip();
    }
    try {
      target = new Target(parseKubeconfig(await readFile(file, 'utf8')));
    } catch (error) {
      if (!(error instanceof TargetFailure) || error.reason !== 'KubeconfigUnsupported') throw error;
      console.log(`      ${error.message}: skipped`);
      this.skip();
    }
  });
  after(() => (target as Target | undefined)?.close());

  it('is ready and counts its nodes', async () => {
    const health = await probeHealth(target);
    expect(health.version).to.match(/^v1\.\d+/);
    expect(health.ready).to.equal(true);
    const all = await target.request({ method: 'GET', path: '/api/v1/nodes' });
    if (all.status === 200) {
      expect(health.nodeCount).to.equal((JSON.parse(all.body) as { items: unknown[] }).items.length);
    } else expect(health).not.to.have.property('nodeCount');
  });

  it('explains what it does not have in a Status', async () => {
    const answer = await target.request({ method: 'GET', path: '/api/v1/namespaces/syncsets-no-such-namespace' });
    const failure = target.refusal('GET namespace', answer);
    expect(failure.message).to.match(
      /answered (404|403) to GET namespace: namespaces "syncsets-no-such-namespace"|forbidden/,
    );
  });

  it('streams a watch', async () => {
    const query = { watch: 'true', timeoutSeconds: '5' };
    const watch = await target.stream({ method: 'GET', path: '/api/v1/namespaces/default/configmaps', query });
    expect(watch.status).to.equal(200);
    watch.close();
  });
});
