import type { ErrorDetail } from '../errors.js';
import { checkKey, checkLabelValue } from '../labels.js';
import type { Resource } from '../resource.js';
import type { SetContent } from '../set-content.js';
import type { Rule } from '../type-definition.js';

/**
 * Objects, patches and secrets for all clusters, of any namespace, whose labels match.
 * @scope cluster
 */
export interface SelectorSyncSet extends Resource, SetContent {
  /** Which clusters the set is applied to. An empty selector is refused: to mean all clusters say `matchAll`. */
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

export const rules: Rule[] = [
  {
    fields: ['clusterSelector', 'matchAll'],
    check: object => {
      const { clusterSelector, matchAll } = object as Pick<SelectorSyncSet, 'clusterSelector' | 'matchAll'>;
      const path = 'clusterSelector';
      if (clusterSelector === undefined) {
        return matchAll === true ? [] : [{ path, message: 'is required; to mean all clusters, say matchAll: true' }];
      }
      if (matchAll === true) return [{ path, message: 'must be left out with matchAll: true' }];
      const { matchLabels = {}, matchExpressions = [] } = clusterSelector;
      if (Object.keys(matchLabels).length + matchExpressions.length === 0) {
        return [{ path, message: 'must not be empty; to mean all clusters, say matchAll: true' }];
      }
      return [
        ...Object.entries(matchLabels).flatMap(([key, value]) => {
          const at = `${path}.matchLabels.${key}`;
          return [...checkKey(key, at), ...checkLabelValue(value, at)];
        }),
        ...matchExpressions.flatMap((one, i) => checkExpression(one, `${path}.matchExpressions[${i}]`)),
      ];
    },
  },
  {
    fields: ['secretMappings'],
    check: object => {
      const { secretMappings = [] } = object as Pick<SelectorSyncSet, 'secretMappings'>;
      return secretMappings.flatMap(({ sourceRef }, i) =>
        sourceRef.namespace === undefined
          ? [
              {
                path: `secretMappings[${i}].sourceRef.namespace`,
                message: 'is required: the set itself has no namespace',
              },
            ]
          : [],
      );
    },
  },
];

function checkExpression({ key, operator, values = [] }: LabelExpression, path: string): ErrorDetail[] {
  const errors: ErrorDetail[] = [...checkKey(key, `${path}.key`)];
  const wanted = operator === 'In' || operator === 'NotIn';
  if (wanted && values.length === 0)
    errors.push({ path: `${path}.values`, message: `must have at least one value with ${operator}` });
  if (!wanted && values.length > 0)
    errors.push({ path: `${path}.values`, message: `must be left out with ${operator}` });
  return [...errors, ...values.flatMap((value, i) => checkLabelValue(value, `${path}.values[${i}]`))];
}
