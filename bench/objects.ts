import type { Template } from './load.js';

/** Five labels, as an inventory has them. */
export const labels = {
  env: 'prod',
  region: 'eu-central-1',
  tier: 'gold',
  team: 'payments',
  'example.com/fleet': 'north',
};
export const annotations = { 'example.com/sent': '{sent}', 'example.com/note': 'made by the benchmark' };

/** A small kubeconfig, which ours encrypts; its length makes the whole object 1 KB. */
export const kubeconfig = `apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://203.0.113.7:6443"}}]
users: [{name: u, user: {token: ${'t'.repeat(460)}}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
current-context: c
`;

/** A cluster of 1 KB: labels, annotations, a secret. */
export const cluster = { name: '{name}', namespace: 'bench', labels, annotations, kubeconfig };

export const createCluster: Template = { method: 'POST', path: '/v1/clusters', body: JSON.stringify(cluster) };
export const getCluster: Template = { method: 'GET', path: '/v1/clusters/bench/{name}' };
