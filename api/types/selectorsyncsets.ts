import type { Resource } from '../resource.js';
import type { SetContent } from '../set-content.js';

/**
 * Objects, patches and secrets for all clusters, of any namespace, whose labels match.
 * @scope cluster
 */
export interface SelectorSyncSet extends Resource, SetContent {
  /**
   * Which clusters the set is applied to. An empty selector is refused: to mean all clusters say `matchAll`.
   * @example {"matchLabels": {"env": "prod"}}
   */
  clusterSelector?: LabelSelector;
  /** `true` applies the set to every cluster there is and will be; then there must be no `clusterSelector`. */
  matchAll?: boolean;
}

/** A choice of objects by their labels; all that is given must hold. */
export interface LabelSelector {
  /** Labels that must be there with this very value. */
  matchLabels?: { [key: string]: string };
  matchExpressions?: LabelExpression[];
}

/** A condition on one label. */
export interface LabelExpression {
  /** The label's key. */
  key: string;
  /** `NotIn` also holds for objects without the label. */
  operator: 'In' | 'NotIn' | 'Exists' | 'DoesNotExist';
  /** With `In` and `NotIn`: at least one value. With `Exists` and `DoesNotExist`: none. */
  values?: string[];
}
