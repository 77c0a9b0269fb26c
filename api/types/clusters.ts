import type { Condition, Pause, Resource, Timestamp } from '../resource.js';

/**
 * A Kubernetes cluster that sets are applied to and that is looked after.
 * @scope namespaced
 */
export interface Cluster extends Resource {
  /**
   * How the cluster is reached: a kubeconfig with all data inline. `exec`, `auth-provider` and file paths are not followed: the
   * cluster is then reported as not reachable, with the reason `KubeconfigUnsupported`.
   * @secret
   */
  kubeconfig?: string;
  /**
   * The context of the kubeconfig to use. Left out: its `current-context`.
   * @minLength 1 must not be empty
   */
  context?: string;
  /** Nothing is applied to or deleted from this cluster while this is set. */
  paused?: Pause;
  /**
   * What becomes of the objects that sets brought to the cluster when this object is deleted: `true` deletes them first,
   * `false` leaves them.
   * @default false
   */
  cleanup?: boolean;
  /**
   * Seconds between two passes that read the objects in the cluster back and correct drift; spread by 10 %. If a set has a value
   * as well, the shorter one holds; if neither has, 7200.
   * @isInt must be a whole number of seconds
   * @minimum 60 must be at least 60
   * @maximum 2592000 must be at most 2592000 (30 days)
   * @example 3600
   */
  verifySeconds?: number;
  status?: ClusterStatus;
}

/** What the controllers last saw of the cluster. */
export interface ClusterStatus {
  /**
   * `Reachable`: whether the cluster's API server answers. Reasons when it does not: `KubeconfigMissing`, `KubeconfigInvalid`,
   * `KubeconfigUnsupported`, `Unauthorized`, `Timeout`, `ConnectionRefused`, `CertificateInvalid` and other words of that kind.
   */
  conditions?: Condition[];
  /**
   * The API server's version, for example `v1.34.4`.
   * @example "v1.34.4"
   */
  serverVersion?: string;
  /**
   * How many nodes the cluster has.
   * @isInt
   * @minimum 0
   * @example 3
   */
  nodeCount?: number;
  /** When the API server last answered. */
  lastContact?: Timestamp;
  /** How the sets that match this cluster are doing. */
  sets?: ClusterSets;
}

/** How many sets match a cluster, and how they are doing. */
export interface ClusterSets {
  /**
   * @isInt
   * @minimum 0
   */
  matched: number;
  /**
   * All of their objects are applied.
   * @isInt
   * @minimum 0
   */
  applied: number;
  /**
   * At least one object could not be applied.
   * @isInt
   * @minimum 0
   */
  failing: number;
  /**
   * None failed, and some are still to be applied.
   * @isInt
   * @minimum 0
   */
  pending: number;
}
