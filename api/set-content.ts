import type { NamespaceName, Pause, ResourceName } from './resource.js';

/** What a set brings to its clusters and how: the fields that `syncsets` and `selectorsyncsets` share. */
export interface SetContent {
  /**
   * Kubernetes objects, applied one after another in this order. An object that fails does not stop the others, except those
   * that need it (its namespace, its CustomResourceDefinition).
   * @example [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "hello", "namespace": "default"}, "data": {"greeting": "hello"}}]
   */
  resources?: KubernetesObject[];
  /** Changes to objects that something else has made; applied after resources and secrets, never undone. */
  patches?: Patch[];
  /** Objects of the type `secrets` that are copied to the clusters as Kubernetes Secrets, with their labels and annotations. */
  secretMappings?: SecretMapping[];
  /**
   * `Upsert` never deletes. `Sync` deletes from a cluster what the set brought there and no longer holds, also when the set
   * is deleted or no longer matches the cluster; an object that any other set still wants stays.
   * @default "Upsert"
   */
  resourceApplyMode?: 'Upsert' | 'Sync';
  /**
   * How resources and secrets are written. `ServerSideApply`: by the API server, field manager `syncsets`, taking fields over
   * from others. `Apply`: three-way merge with the last-applied annotation, as `kubectl apply` does on the client.
   * `CreateOnly`: an object that is there is left alone. `CreateOrUpdate`: as `Apply`, but without adding the annotation, so
   * that fields are not removed; for objects too large for an annotation (256 KiB).
   * @default "ServerSideApply"
   */
  applyBehavior?: 'ServerSideApply' | 'Apply' | 'CreateOnly' | 'CreateOrUpdate';
  /**
   * Whether text values in `resources` are templates: `{{ fromCDLabel "key" }}`, `{{ clusterLabel "key" }}`,
   * `{{ clusterAnnotation "key" }}`, `{{ clusterName }}` and `{{ clusterNamespace }}` are replaced per cluster. A missing
   * label is an empty text. Keys are never templates.
   * @default false
   */
  enableResourceTemplates?: boolean;
  /**
   * The same for the text of `patches`, which must be valid JSON or YAML once it is rendered.
   * @default false
   */
  enablePatchTemplates?: boolean;
  /**
   * How much may be deleted within an hour before somebody must approve it. Left out: 10 objects on 10 % of the clusters, and
   * no limit for a set that matches fewer than 10 clusters.
   */
  deletionBudget?: DeletionBudget;
  /** Nothing of this set is applied or deleted while this is set. */
  paused?: Pause;
  /** Fields that others may change in the cluster: they are applied at creation, then neither written nor called drift. */
  ignoreFields?: IgnoredFields[];
  /**
   * Seconds between two passes that read the objects back and correct drift; spread by 10 %. If the cluster has a value as
   * well, the shorter one holds; if neither has, 7200.
   * @isInt must be a whole number of seconds
   * @minimum 60 must be at least 60
   * @maximum 2592000 must be at most 2592000 (30 days)
   */
  verifySeconds?: number;
}

/** A Kubernetes object as in a manifest. Everything beside the fields below is passed on as it is. */
export interface KubernetesObject {
  /**
   * For example `apps/v1`.
   * @minLength 1 must not be empty
   */
  apiVersion: string;
  /**
   * For example `Deployment`.
   * @minLength 1 must not be empty
   */
  kind: string;
  metadata: KubernetesMetadata;
  [field: string]: unknown;
}

/** The metadata of a Kubernetes object. Everything beside the fields below is passed on as it is. */
export interface KubernetesMetadata {
  /** @minLength 1 must not be empty */
  name: string;
  /** Left out for cluster-wide kinds; for others it then means `default`. */
  namespace?: string;
  [field: string]: unknown;
}

/** A change to an object that is already in the cluster. An object that is missing is a failure, tried again. */
export interface Patch {
  /** @minLength 1 must not be empty */
  apiVersion: string;
  /** @minLength 1 must not be empty */
  kind: string;
  /** @minLength 1 must not be empty */
  name: string;
  /** Left out for cluster-wide kinds. */
  namespace?: string;
  /**
   * The patch as a text, in JSON or YAML.
   * @minLength 1 must not be empty
   */
  patch: string;
  /** `strategic` (meant when left out; built-in kinds only), `merge` (RFC 7396) or `json` (RFC 6902). */
  patchType?: 'strategic' | 'merge' | 'json';
}

/** A secret here, and the Secret that it becomes in the cluster. */
export interface SecretMapping {
  sourceRef: SecretSource;
  targetRef: SecretTarget;
}

/** An object of the type `secrets`. */
export interface SecretSource {
  name: ResourceName;
  /** In a syncset: that of the set, and may be left out. In a selectorsyncset it must be given. */
  namespace?: NamespaceName;
}

/** A Secret in the target cluster. */
export interface SecretTarget {
  name: ResourceName;
  /** Left out, it means `default`. */
  namespace?: NamespaceName;
}

/** A deletion beyond both numbers is held until it is approved. */
export interface DeletionBudget {
  /**
   * Objects that may be deleted within an hour, over all clusters. Left out: 10.
   * @isInt must be a whole number
   * @minimum 0 must not be negative
   */
  maxObjects?: number;
  /**
   * Percentage of the set's clusters (as of an hour ago) that may lose objects within an hour. Left out: 10.
   * @minimum 0 must be between 0 and 100
   * @maximum 100 must be between 0 and 100
   */
  maxClustersPercent?: number;
}

/** Fields that are left to others, in the objects that match all that is given. */
export interface IgnoredFields {
  /** @minLength 1 must not be empty */
  apiVersion?: string;
  /** @minLength 1 must not be empty */
  kind?: string;
  /** @minLength 1 must not be empty */
  name?: string;
  /**
   * JSON pointers (RFC 6901) such as `/spec/replicas`; a part that is `*` stands for each element or key.
   * @minItems 1 must name at least one field
   */
  paths: FieldPointer[];
}

/**
 * A JSON pointer (RFC 6901) to a field.
 * @maxLength 1024 must have at most 1024 characters
 * @pattern ^(/([^/~]|~[01])+)+$ must be a JSON pointer such as /spec/replicas ("~1" for "/", "~0" for "~")
 */
export type FieldPointer = string;
