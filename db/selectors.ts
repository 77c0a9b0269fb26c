import { indexedKey, indexedValue, type IndexedField } from './field-index.js';

/** One condition on a label. `in` with one value is equality; `notin` and `absent` also match objects without the key. */
export type LabelCondition =
  { key: string; op: 'in' | 'notin'; values: string[] } | { key: string; op: 'exists' | 'absent' };

/** One condition on a field: `name`, `namespace`, `uid`, or a path into the object, compared as text. */
export interface FieldCondition {
  path: string[];
  op: 'in' | 'notin' | 'contains';
  values: string[];
  /** The index of the field that the path names, if it has one. */
  index?: IndexedField;
}

/** All conditions must hold. */
export interface Selector {
  labels: LabelCondition[];
  fields: FieldCondition[];
}

/** A selector as SQL conditions, in parts for who plans by them. */
export interface SelectorParts {
  /** On the columns of the primary key alone. */
  key: string[];
  rest: string[];
  /** Whether an index finds what the rest selects. */
  indexed: boolean;
}

const columns: Record<string, string> = { name: 'name', namespace: 'namespace', uid: 'uid::text' };

/** The selector as SQL conditions over columns `namespace, name, uid, labels, object` of `alias`; `and` joins them. */
export function selectorSql(selector: Selector, alias: string, values: unknown[]): string[] {
  const { key, rest } = selectorParts(selector, alias, values);
  return [...key, ...rest];
}

/**
 * The selector as SQL over columns `namespace, name, uid, labels, object` of `alias`; every value is bound.
 * `values` receives the parameters. The index of labels finds equal ones alone: keys and their absence are looked at object by
 * object (docs/decisions/label-index.md has the figures).
 */
export function selectorParts(selector: Selector, alias: string, values: unknown[]): SelectorParts {
  const bind = (value: unknown) => `$${values.push(value)}`;
  const sql: SelectorParts = { key: [], rest: [], indexed: false };
  const labels = `${alias}.labels`;
  for (const condition of selector.labels) {
    switch (condition.op) {
      case 'in':
        // Each value is a look into the index; where there are many, reading the label is cheaper.
        if (condition.values.length <= 20) {
          const equal = condition.values.map(
            value => `${labels} @> ${bind(JSON.stringify({ [condition.key]: value }))}::jsonb`,
          );
          sql.rest.push(`(${equal.join(' or ')})`);
          sql.indexed = true;
        } else sql.rest.push(`${labels} ->> ${bind(condition.key)} = any (${bind(condition.values)}::text[])`);
        break;
      case 'notin':
        sql.rest.push(
          `not coalesce(${labels} ->> ${bind(condition.key)} = any (${bind(condition.values)}::text[]), false)`,
        );
        break;
      case 'exists':
        sql.rest.push(`${labels} ? ${bind(condition.key)}`);
        break;
      case 'absent':
        sql.rest.push(`not ${labels} ? ${bind(condition.key)}`);
        break;
    }
  }
  for (const { path, op, values: wanted, index } of selector.fields) {
    const column = path.length === 1 ? columns[path[0] ?? ''] : undefined;
    const field = column ? `${alias}.${column}` : `${alias}.object #>> ${bind(path)}::text[]`;
    const into = column !== undefined && path[0] !== 'uid' ? sql.key : sql.rest;
    if (op === 'contains') into.push(`position(${bind(wanted[0])} in ${field}) > 0`);
    else if (op === 'notin') into.push(`not coalesce(${field} = any (${bind(wanted)}::text[]), false)`);
    else {
      into.push(`${field} = any (${bind(wanted)}::text[])`);
      const keys = index && wanted.map(value => indexedKey(index, value));
      if (!index || !keys?.every(key => key !== undefined)) continue;
      const kind = index.kind === 'number' ? 'numeric' : 'text';
      into.push(`${indexedValue(index, `${alias}.object`)} = any (${bind(keys)}::${kind}[])`);
      sql.indexed = true;
    }
  }
  return sql;
}
