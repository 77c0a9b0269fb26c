import type { Endpoint, Template } from './load.js';
import { createCluster, getCluster } from './objects.js';
import type { Stage } from './stage.js';

/** A server that is sent the same requests as ours. */
export interface Peer {
  name: string;
  endpoint: Endpoint;
  create: Template;
  get: Template;
  /** Path of a stream of changes, where it has one. */
  watch?: string;
}

/** Express without a database, then the Kubernetes API server where there is one; each runs only while it is looked at. */
export async function* peers(stage: Stage): AsyncGenerator<Peer, void, undefined> {
  const express = await stage.express();
  yield { name: 'express + tsoa, no database', endpoint: express, create: createCluster, get: getCluster };
  await express.stop();
  yield* kubernetes(stage);
}

/** The Kubernetes API server alone: one peer, or none. */
export async function* kubernetes(
  stage: Stage,
): AsyncGenerator<Peer & { watch: string; list: string }, void, undefined> {
  const peer = await stage.kubernetes();
  if (!peer) return;
  const { endpoint, create, get, watch, list } = peer;
  yield { name: 'kube-apiserver + etcd', endpoint, create, get, watch, list };
  await peer.stop();
}
