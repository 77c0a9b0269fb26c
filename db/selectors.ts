/** One condition on a label. `in` with one value is equality; `notin` and `absent` also match objects without the key. */
export type LabelCondition =
  { key: string; op: 'in' | 'notin'; values: string[] } | { key: string; op: 'exists' | 'absent' };

/** One condition on a field: `name`, `namespace`, `uid`, or a path into the object, compared as text. */
export interface FieldCondition {
  path: string[];
  op: 'in' | 'notin' | 'contains';
  values: string[];
}

/** All conditions must hold. */
export interface Selector {
  labels: LabelCondition[];
  fields: FieldCondition[];
}

const columns: Record<string, string> = { name: 'name', namespace: 'namespace', uid: 'uid::text' };

/**
 * The selector as SQL over columns `namespace, name, uid, labels, object` of `alias`; every value is bound.
 * `values` receives the parameters. Equality of labels is served by the GIN index, the rest is a filter.
 */
export function selectorSql(selector: Selector, alias: string, values: unknown[]): string[] {
  const bind = (value: unknown) => `$${values.push(value)}`;
  const conditions = selector.labels.map(condition => {
    const labels = `${alias}.labels`;
    switch (condition.op) {
      case 'in':
        return condition.values.length <= 20
          ? `(${condition.values.map(value => `${labels} @> ${bind(JSON.stringify({ [condition.key]: value }))}::jsonb`).join(' or ')})`
          : `${labels} ->> ${bind(condition.key)} = any (${bind(condition.values)}::text[])`;
      case 'notin':
        return `not coalesce(${labels} ->> ${bind(condition.key)} = any (${bind(condition.values)}::text[]), false)`;
      case 'exists':
        return `${labels} ? ${bind(condition.key)}`;
      case 'absent':
        return `not ${labels} ? ${bind(condition.key)}`;
    }
  });
  for (const { path, op, values: wanted } of selector.fields) {
    const column = path.length === 1 ? columns[path[0] ?? ''] : undefined;
    const field = column ? `${alias}.${column}` : `${alias}.object #>> ${bind(path)}::text[]`;
    if (op === 'contains') conditions.push(`position(${bind(wanted[0])} in ${field}) > 0`);
    else if (op === 'in') conditions.push(`${field} = any (${bind(wanted)}::text[])`);
    else conditions.push(`not coalesce(${field} = any (${bind(wanted)}::text[]), false)`);
  }
  return conditions;
}
