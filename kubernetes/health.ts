import { setMaxListeners } from 'node:events';
import { isMapping } from './document.js';
import { TargetFailure } from './failure.js';
import type { Target, TargetAnswer, TargetRequest } from './target.js';

/** What a cluster says of itself. */
export interface ClusterHealth {
  /** `gitVersion` of the API server: `v1.34.4`. */
  version: string;
  /** Whether the API server holds itself fit for requests. */
  ready: boolean;
  /** Where it is not: the checks that fail. */
  readyMessage?: string;
  /** Absent where the account may not list nodes, or the target is not ready. */
  nodeCount?: number;
}

// Nodes are asked for without spec and status, which are most of a node; servers that cannot do so send them whole.
const metadataOnly = 'application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json';

/**
 * Asks a cluster's version, readiness and number of nodes: three small requests at the same time.
 *
 * An API server that calls itself not ready is reached and answers so; its nodes do not matter then, since without
 * etcd that question hangs. An account without credentials gets an answer too: Kubernetes shows version and readiness
 * to everyone unless told otherwise.
 * @param options `timeoutMs`: one deadline for all three, default 10,000; `signal` as for `Target.request`
 * @throws TargetFailure the first that occurs
 */
export async function probeHealth(
  target: Target,
  options: { timeoutMs?: number; signal?: AbortSignal } = {},
): Promise<ClusterHealth> {
  const { timeoutMs, signal } = options;
  signal?.throwIfAborted();
  const enough = new AbortController();
  if (signal) setMaxListeners(0, signal); // one signal for many probes is usual
  const onAbort = (): void => enough.abort(signal?.reason);
  signal?.addEventListener('abort', onAbort, { once: true });
  const ask: Ask = async (path, more) => {
    return await target.request({
      method: 'GET',
      path,
      maxBytes: 1024 * 1024,
      timeoutMs,
      signal: enough.signal,
      ...more,
    });
  };
  // A failing count is kept until readiness is known, which may excuse it.
  const nodes = nodeCount(target, ask).then(
    count => ({ count }),
    (error: unknown) => ({ error }),
  );
  try {
    const [version, readiness] = await Promise.all([serverVersion(target, ask), serverReadiness(target, ask)]);
    if (!readiness.ready) return { version, ...readiness };
    const counted = await nodes;
    if ('error' in counted) throw counted.error;
    return { version, ...readiness, ...(counted.count !== undefined && { nodeCount: counted.count }) };
  } finally {
    signal?.removeEventListener('abort', onAbort);
    enough.abort();
  }
}

type Ask = (path: string, more?: Pick<TargetRequest, 'query' | 'headers'>) => Promise<TargetAnswer>;

async function serverVersion(target: Target, ask: Ask): Promise<string> {
  const answer = await ask('/version');
  if (answer.status !== 200) throw target.refusal('GET /version', answer);
  const { gitVersion } = mappingOf(target, 'GET /version', answer);
  if (typeof gitVersion !== 'string' || !/^[\x21-\x7e]{1,100}$/.test(gitVersion)) {
    throw notKubernetes(target, 'GET /version');
  }
  return gitVersion;
}

async function serverReadiness(target: Target, ask: Ask): Promise<{ ready: boolean; readyMessage?: string }> {
  const answer = await ask('/readyz', { headers: { accept: 'text/plain, */*' } });
  if (answer.status === 200) return { ready: true };
  if (answer.status !== 500 && answer.status !== 503) throw target.refusal('GET /readyz', answer);
  // The body has a line per check, "[+]ping ok" or "[-]etcd failed: reason withheld".
  const failing = answer.body.split('\n').filter(line => line.startsWith('[-]'));
  const said = failing.length > 0 ? failing.map(line => line.slice(3)).join('; ') : answer.body;
  return { ready: false, readyMessage: target.quote(said) };
}

/** The list's first item, and how many remain: one answer of about 1 KB however many nodes there are. */
async function nodeCount(target: Target, ask: Ask): Promise<number | undefined> {
  const question = 'GET /api/v1/nodes';
  const answer = await ask('/api/v1/nodes', { query: { limit: '1' }, headers: { accept: metadataOnly } });
  if (answer.status === 403) return undefined;
  if (answer.status !== 200) throw target.refusal(question, answer);
  const { metadata, items } = mappingOf(target, question, answer);
  const shown = items ?? []; // a list of metadata only has `null` where there are none
  if (!isMapping(metadata) || !Array.isArray(shown)) throw notKubernetes(target, question);
  const remaining = metadata.remainingItemCount ?? (metadata.continue ? undefined : 0);
  return typeof remaining === 'number' ? shown.length + remaining : undefined;
}

function mappingOf(target: Target, question: string, { body }: TargetAnswer): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(body);
    if (isMapping(value)) return value;
  } catch {
    // says the same as valid JSON of another shape
  }
  throw notKubernetes(target, question);
}

function notKubernetes(target: Target, question: string): TargetFailure {
  return new TargetFailure(
    'UnexpectedAnswer',
    `${target.address} does not answer ${question} as an API server does`,
    200,
  );
}
