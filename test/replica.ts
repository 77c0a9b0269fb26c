import { appendFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Cluster } from '../client/index.js';
import { run, type Controller } from '../controllers/index.js';

/**
 * One replica of a controller, as a process of its own. It writes down each reconcile with the times of its begin and end on
 * the monotonic clock, which all processes of a machine share, and the version that it saw; at once, so that nothing of it
 * is lost with the process.
 */
const [name = '', url = '', journal = '', pause = '5', amqpUrl = ''] = process.argv.slice(2);

const note = (entry: object) =>
  appendFileSync(
    journal,
    `${JSON.stringify({ replica: process.pid, at: Number(process.hrtime.bigint()) / 1e6, ...entry })}\n`,
  );

const controller: Controller<Cluster> = {
  name,
  type: 'clusters',
  claimSeconds: 3,
  watches: [{ type: 'syncsets', enqueue: set => ({ names: set.clusterRefs }) }],
  async reconcile(cluster, context) {
    const key = context.key.name;
    note({ key, begins: true, version: cluster?.resourceVersion });
    try {
      await sleep(Number(pause));
      if (!cluster) return;
      const { nodeCount = 0 } = cluster.status ?? {};
      const written = await context.client.clusters.patchStatus(
        { namespace: cluster.namespace, name: cluster.name },
        { nodeCount: nodeCount + 1 },
      );
      note({ key, wrote: written.resourceVersion });
    } catch (error) {
      note({ key, failed: String(error) });
      throw error;
    } finally {
      note({ key, ends: true });
    }
  },
};

const running = await run([controller], {
  url,
  concurrency: 8,
  ...(amqpUrl === '' ? {} : { amqpUrl }),
});
note({ started: true });
process.on('SIGTERM', () => void running.stop().then(() => process.exit(0)));
