import { expect } from 'chai';
import { connect, type Client, type Cluster, type Condition } from '../../client/index.js';
import { FakeApiServer } from '../../kubernetes/testing/apiserver.js';
import { Authority } from '../../kubernetes/testing/certificates.js';
import { base64, kubeconfigText } from '../../kubernetes/testing/kubeconfig.js';
import { startApi, type TestApi } from '../../test/platform.js';
import { until } from '../../test/until.js';
import { startControllers } from '../start.js';
import { again, statusOf } from './clusterhealth.js';

describe('clusterhealth', () => {
  const now = new Date('2026-11-21T12:00:00.000Z');
  const earlier = '2026-11-21T11:00:00.000Z';
  const condition = (fields: Partial<Condition>): Condition => ({
    type: 'Reachable',
    status: 'True',
    reason: 'Reachable',
    message: '',
    lastTransitionTime: earlier,
    ...fields,
  });
  const health = { version: 'v1.34.4', ready: true, nodeCount: 3 };
  const reachable = { status: 'True', reason: 'Reachable', message: 'answers', health } as const;
  const refused = { status: 'False', reason: 'ConnectionRefused', message: 'refused' } as const;

  describe('what it writes', () => {
    it('keeps the time of the last transition until the status flips, whatever the reason', () => {
      const away = { conditions: [condition({ status: 'False', reason: 'Timeout' })] };
      expect(statusOf(refused, away, 2, now).condition).to.include({
        reason: 'ConnectionRefused',
        lastTransitionTime: earlier,
        observedGeneration: 2,
      });
      expect(statusOf(reachable, away, 2, now).condition.lastTransitionTime).to.equal(now.toISOString());
    });

    it('leaves the conditions of others and what was last known of a cluster that is away', () => {
      const other = condition({ type: 'Applied' });
      const { patch } = statusOf(refused, { conditions: [other], serverVersion: 'v1', nodeCount: 2 }, 1, now);
      expect(patch).to.have.all.keys('conditions');
      expect(patch.conditions.map(({ type }) => type)).to.deep.equal(['Applied', 'Reachable']);
    });

    it('takes the number of nodes away when it may no longer be known, not while the cluster is not ready', () => {
      const forbidden = { ...reachable, health: { version: 'v1.34.4', ready: true } };
      expect(statusOf(forbidden, {}, 1, now).patch).to.have.property('nodeCount', null);
      const unready = { ...reachable, reason: 'NotReady', health: { version: 'v1.34.4', ready: false } } as const;
      expect(statusOf(unready, {}, 1, now).patch).not.to.have.property('nodeCount');
    });

    it('writes the last contact once a minute at most, so that edits of a cluster do not each cost a write', () => {
      const conditions = [condition({})];
      const fresh = { conditions, lastContact: '2026-11-21T11:59:30.000Z' };
      expect(statusOf(reachable, fresh, 1, now).patch).not.to.have.property('lastContact');
      const old = { conditions, lastContact: '2026-11-21T11:58:30.000Z' };
      expect(statusOf(reachable, old, 1, now).patch).to.have.property('lastContact', now.toISOString());
    });
  });

  it('looks again after 2 min, or after as long again as the cluster has been away, or when its kubeconfig changes', () => {
    const at = now.getTime();
    expect(again(reachable, condition({}), at)).to.deep.equal({ requeueAfter: 120 });
    const after = (seconds: number) => {
      const since = new Date(at - seconds * 1000).toISOString();
      return again(refused, condition({ status: 'False', lastTransitionTime: since }), at)?.requeueAfter;
    };
    expect(after(0)).to.be.within(9, 10);
    expect(after(80)).to.be.within(72, 80);
    expect(after(100_000)).to.be.within(270, 300);
    expect(again({ ...refused, reason: 'KubeconfigInvalid' }, condition({}), at)).to.equal(undefined);
  });

  describe('with the platform and a cluster', () => {
    let api: TestApi;
    let client: Client;
    let controllers: ReturnType<typeof startControllers>;
    let authority: Authority;
    let target: FakeApiServer;
    const logged: string[] = [];

    before(async () => {
      api = await startApi();
      client = connect({ url: api.url });
      authority = await Authority.create();
      const pair = await authority.issue('IP:127.0.0.1');
      target = await FakeApiServer.start({ nodes: 3, authorization: 'Bearer sesame' }, pair);
      controllers = startControllers({
        apiUrl: api.url,
        log: (level, message, fields) => logged.push(JSON.stringify([level, message, fields])),
      });
      await controllers.start();
    });

    after(async () => {
      await controllers.stop();
      await client.close();
      await authority.remove();
      await api.stop();
    });

    const key = { namespace: 'foo', name: 'cluster1' };
    const untilReason = async (reason: string): Promise<{ cluster: Cluster; condition: Condition }> =>
      until(
        async () => {
          const cluster = await client.clusters.readStatus(key);
          const found = cluster.status?.conditions?.find(({ type }) => type === 'Reachable');
          return found?.reason === reason && { cluster, condition: found };
        },
        { what: `the reason ${reason}` },
      );
    const work = () =>
      until(
        async () => {
          const { items } = await client.controllers.work('clusterhealth');
          return items.every(({ state }) => state === 'waiting') && { items };
        },
        { what: 'the work to be done' },
      );
    const dueIn = async () => {
      const { items } = await work();
      return (Date.parse(items[0]?.notBefore ?? '') - Date.now()) / 1000;
    };

    it('says why a cluster cannot be reached, and what it is when it can', async () => {
      await client.clusters.create({ ...key, kubeconfig: 'foobar' });
      const invalid = await untilReason('KubeconfigInvalid');
      expect(invalid.condition.status).to.equal('False');
      expect((await work()).items).to.deep.equal([]);

      const kubeconfig = kubeconfigText(target.url, {
        cluster: { 'certificate-authority-data': base64(authority.ca) },
        user: { token: 'sesame' },
      });
      await client.clusters.patch(key, { kubeconfig });
      const { cluster, condition: found } = await untilReason('Reachable');
      expect(found).to.include({ status: 'True', observedGeneration: 2 });
      expect(cluster.status).to.include({ serverVersion: 'v1.34.4', nodeCount: 3 });
      expect(Date.now() - Date.parse(cluster.status?.lastContact ?? '')).to.be.lessThan(10_000);
      expect(await dueIn()).to.be.within(115, 120);

      target.cluster.authorization = 'Bearer other';
      await client.clusters.patch(key, { labels: { look: 'again' } });
      const refusal = await untilReason('Unauthorized');
      expect(refusal.condition.status).to.equal('False');
      expect(refusal.cluster.status).to.include({ serverVersion: 'v1.34.4', nodeCount: 3 });
      expect(await dueIn()).to.be.within(5, 10);

      await target.stop();
      await client.clusters.patch(key, { labels: { look: 'once-more' } });
      const gone = await untilReason('ConnectionRefused');
      expect(gone.condition.lastTransitionTime).to.equal(refusal.condition.lastTransitionTime);

      await client.clusters.patch(key, { kubeconfig: null });
      await untilReason('KubeconfigMissing');
      expect((await work()).items).to.deep.equal([]);
    });

    it('never logs a credential', () => {
      const everything = [...logged, JSON.stringify(api.log)].join('\n');
      expect(everything).not.to.include('sesame');
    });
  });
});
