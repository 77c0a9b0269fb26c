import type { Resource, ResourceName } from '../resource.js';
import type { SetContent } from '../set-content.js';

/**
 * Objects, patches and secrets for some clusters of one namespace, given by name.
 * @scope namespaced
 */
export interface SyncSet extends Resource, SetContent {
  /**
   * The names of the clusters that the set is applied to, in the set's own namespace.
   * @uniqueItems must not name a cluster twice
   * @example ["cluster1"]
   */
  clusterRefs: ResourceName[];
  /**
   * Whether clusters may be named that do not exist yet; the set is applied once they do.
   * @default false
   * @example true
   */
  allowMissing?: boolean;
}
