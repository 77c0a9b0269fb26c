import { isPlatformError, type Cluster, type ClusterStatus, type Condition } from '../../client/index.js';
import { parseKubeconfig, probeHealth, Target, TargetFailure, type ClusterHealth } from '../../kubernetes/index.js';
import type { Context, Controller, Result } from '../runtime/controller.js';

/** Milliseconds for all questions to a cluster together. */
const probeTime = 10_000;
/** Seconds between two looks at a cluster that answers; one that answers but calls itself not ready is looked at sooner. */
const interval = 120;
const notReadyInterval = 30;
/** Seconds between two looks at a cluster that does not answer: at first, and at most. */
const shortestBackoff = 10;
const longestBackoff = 300;
/** Milliseconds for which `lastContact` is not written again, so that edits of a cluster do not each cost a write. */
const contactGrain = 60_000;
/** Attempts at a status that others write at the same time. */
const attempts = 5;

/** What a look at a cluster found. */
type Finding =
  | { status: 'True'; reason: 'Reachable' | 'NotReady'; message: string; health: ClusterHealth }
  | { status: 'False'; reason: string; message: string };

/**
 * Looks after every cluster: asks its API server for version, readiness and number of nodes, and says in `status` whether it
 * can be reached and if not, why. The kubeconfig is read through `reveal`, held by this process no longer than the look takes,
 * and never logged.
 */
export const clusterHealth: Controller<Cluster> = {
  name: 'clusterhealth',
  type: 'clusters',
  reveal: ['clusters'],
  // The claim is certain for four fifths of this, which must be longer than a probe.
  claimSeconds: 30,
  deadline: '1m',
  revision: 1,

  async reconcile(cluster, context) {
    if (!cluster || cluster.deletedAt !== undefined) return undefined;
    const finding = await look(cluster, context);
    const written = await write(cluster, finding, context);
    return written && again(finding, written);
  },
};

async function look(cluster: Cluster, context: Context): Promise<Finding> {
  try {
    const kubeconfig = cluster.kubeconfig === undefined ? undefined : await reveal(cluster, context);
    if (kubeconfig === undefined) {
      return { status: 'False', reason: 'KubeconfigMissing', message: 'The cluster has no kubeconfig' };
    }
    const target = new Target(parseKubeconfig(kubeconfig, cluster.context));
    try {
      await context.hold(probeTime);
      const health = await probeHealth(target, { timeoutMs: probeTime, signal: context.signal });
      if (health.ready) return { status: 'True', reason: 'Reachable', message: `${target.address} answers`, health };
      const why = health.readyMessage ?? 'it does not say why';
      return {
        status: 'True',
        reason: 'NotReady',
        message: `${target.address} answers, but is not ready: ${why}`,
        health,
      };
    } finally {
      target.close();
    }
  } catch (error) {
    // Its messages are made for people and hold no credential.
    if (error instanceof TargetFailure) return { status: 'False', reason: error.reason, message: error.message };
    throw error;
  }
}

async function reveal(cluster: Cluster, context: Context): Promise<string | undefined> {
  const { fields } = await context.client.clusters.reveal(cluster);
  return typeof fields.kubeconfig === 'string' && fields.kubeconfig !== '' ? fields.kubeconfig : undefined;
}

/** Writes what was found; returns the condition as stored, or undefined when the cluster is gone or another one now. */
async function write(cluster: Cluster, finding: Finding, context: Context): Promise<Condition | undefined> {
  let current = cluster;
  for (let attempt = 1; ; attempt++) {
    const { uid, resourceVersion, status = {} } = current;
    const next = statusOf(finding, status, cluster.generation, new Date());
    try {
      // In the version that it was computed from: others' conditions are in the same list.
      await context.client.clusters.patchStatus(current, next.patch, { uid, resourceVersion });
      return next.condition;
    } catch (error) {
      if (isPlatformError(error, 'NotFound')) return undefined;
      if (!isPlatformError(error, 'Conflict') || attempt === attempts) throw error;
    }
    try {
      current = await context.client.clusters.readStatus(cluster);
    } catch (error) {
      if (isPlatformError(error, 'NotFound')) return undefined;
      throw error;
    }
    if (current.uid !== cluster.uid) return undefined;
  }
}

/**
 * The status after a finding. What was last known of a cluster stays when it cannot be reached.
 * @internal
 */
export function statusOf(finding: Finding, status: ClusterStatus, generation: number, now: Date) {
  const { conditions = [], lastContact } = status;
  const before = conditions.find(({ type }) => type === 'Reachable');
  const { status: reachable, reason, message } = finding;
  const flipped = before?.status !== reachable;
  const condition: Condition = {
    type: 'Reachable',
    status: reachable,
    reason,
    message,
    lastTransitionTime: flipped ? now.toISOString() : before.lastTransitionTime,
    observedGeneration: generation,
  };
  const patch: Record<string, unknown> & { conditions: Condition[] } = {
    conditions: [...conditions.filter(({ type }) => type !== 'Reachable'), condition],
  };
  if ('health' in finding) {
    const { version, nodeCount, ready } = finding.health;
    patch.serverVersion = version;
    // Not asked for while the cluster is not ready; absent when the account may not list nodes.
    if (ready) patch.nodeCount = nodeCount ?? null;
    const age = lastContact === undefined ? Infinity : now.getTime() - Date.parse(lastContact);
    if (flipped || age >= contactGrain) patch.lastContact = now.toISOString();
  }
  return { patch, condition };
}

/**
 * When to look again. A kubeconfig that cannot work is looked at when it changes. A cluster that does not answer is asked
 * after as long again as it has been away, within limits, and a tenth sooner at random: 10, 20, 40 s and so on to 5 min.
 * @internal
 */
export function again(finding: Finding, condition: Condition, now = Date.now()): Result | undefined {
  if (finding.status === 'True') return { requeueAfter: finding.reason === 'Reachable' ? interval : notReadyInterval };
  if (finding.reason.startsWith('Kubeconfig')) return undefined;
  const away = (now - Date.parse(condition.lastTransitionTime)) / 1000;
  const backoff = Math.min(longestBackoff, Math.max(shortestBackoff, away));
  return { requeueAfter: backoff * (1 - Math.random() / 10) };
}
