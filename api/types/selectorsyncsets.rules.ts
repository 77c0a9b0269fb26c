import type { Rule } from '../admission.js';
import type { ErrorDetail } from '../errors.js';
import { checkKey, checkLabelValue } from '../labels.js';
import type { LabelExpression, LabelSelector, SelectorSyncSet } from './selectorsyncsets.js';

export const rules: Rule<SelectorSyncSet>[] = [
  {
    fields: ['clusterSelector', 'matchAll'],
    admit: ({ clusterSelector, matchAll }) => ({ violations: checkSelector(clusterSelector, matchAll === true) }),
  },
  {
    fields: ['secretMappings'],
    admit: ({ secretMappings = [] }) => ({
      violations: secretMappings.flatMap(({ sourceRef }, i) => {
        const path = `secretMappings[${i}].sourceRef.namespace`;
        return sourceRef.namespace === undefined
          ? [{ path, message: 'is required: the set itself has no namespace' }]
          : [];
      }),
    }),
  },
];

function checkSelector(selector: LabelSelector | undefined, matchAll: boolean): ErrorDetail[] {
  const path = 'clusterSelector';
  if (selector === undefined)
    return matchAll ? [] : [{ path, message: 'is required; to mean all clusters, say matchAll: true' }];
  if (matchAll) return [{ path, message: 'must be left out with matchAll: true' }];
  const { matchLabels = {}, matchExpressions = [] } = selector;
  if (Object.keys(matchLabels).length + matchExpressions.length === 0)
    return [{ path, message: 'must not be empty; to mean all clusters, say matchAll: true' }];
  return [
    ...Object.entries(matchLabels).flatMap(([key, value]) => {
      const at = `${path}.matchLabels.${key}`;
      return [...checkKey(key, at), ...checkLabelValue(value, at)];
    }),
    ...matchExpressions.flatMap((one, i) => checkExpression(one, `${path}.matchExpressions[${i}]`)),
  ];
}

function checkExpression({ key, operator, values = [] }: LabelExpression, path: string): ErrorDetail[] {
  const errors: ErrorDetail[] = [...checkKey(key, `${path}.key`)];
  const wanted = operator === 'In' || operator === 'NotIn';
  if (wanted && values.length === 0)
    errors.push({ path: `${path}.values`, message: `must have at least one value with ${operator}` });
  if (!wanted && values.length > 0)
    errors.push({ path: `${path}.values`, message: `must be left out with ${operator}` });
  return [...errors, ...values.flatMap((value, i) => checkLabelValue(value, `${path}.values[${i}]`))];
}
