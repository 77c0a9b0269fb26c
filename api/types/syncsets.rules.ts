import type { Rule } from '../admission.js';
import type { SyncSet } from './syncsets.js';

export const rules: Rule<SyncSet>[] = [
  {
    fields: ['secretMappings'],
    admit: ({ secretMappings = [], namespace = 'default' }) => ({
      violations: secretMappings.flatMap(({ sourceRef }, i) =>
        (sourceRef.namespace ?? namespace) === namespace
          ? []
          : [
              {
                path: `secretMappings[${i}].sourceRef.namespace`,
                message: `must be the namespace of the set, "${namespace}"`,
              },
            ],
      ),
    }),
  },
  {
    fields: ['clusterRefs', 'allowMissing'],
    reads: ['clusters'],
    // A cluster that was there when it was named and has been deleted since does not stand in the way of other changes.
    async admit({ clusterRefs, allowMissing, namespace = 'default' }, previous, context) {
      if (allowMissing === true) return undefined;
      const known = new Set(previous?.allowMissing === true ? [] : previous?.clusterRefs);
      const named = clusterRefs.filter(name => !known.has(name)).map(name => ({ namespace, name }));
      const missing = await context.missing('clusters', named);
      // To look for each in the list took 10 s for 60,000.
      const places = new Map(clusterRefs.map((name, place) => [name, place]));
      return {
        violations: missing.map(({ name }) => ({
          path: `clusterRefs[${places.get(name) ?? ''}]`,
          message: `there is no cluster ${namespace}/${name}; create it first, or say allowMissing: true`,
        })),
      };
    },
  },
];
