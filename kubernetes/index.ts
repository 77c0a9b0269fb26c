// The door of the room: how a target cluster is talked to.
export { TargetFailure, type FailureReason } from './failure.js';
export { probeHealth, type ClusterHealth } from './health.js';
export { parseKubeconfig, type ClusterAccess } from './kubeconfig.js';
export { Target, type TargetAnswer, type TargetRequest, type TargetStream } from './target.js';
