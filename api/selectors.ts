import type { FieldCondition, LabelCondition, Selector } from '../db/index.js';
import { ApiError } from './errors.js';
import { isObject, stringifyJson, type JsonObject } from './json.js';
import { checkKey, checkLabelValue } from './labels.js';
import type { TypeDefinition } from './type-definition.js';

const limits = { conditions: 64, values: 512, parts: 16 };

/**
 * Reads both selectors of a request. Throws InvalidQuery that says what is wrong, where, and what is allowed, and Invalid for a
 * secret field.
 */
export function parseSelector(
  type: TypeDefinition,
  labelSelector: string | undefined,
  fieldSelector: string | undefined,
): Selector {
  return { labels: parseLabelSelector(labelSelector ?? ''), fields: parseFieldSelector(type, fieldSelector ?? '') };
}

/** `a=b,c!=d,e in (f,g),h notin (i),j,!k`: all must hold (Kubernetes' syntax). Throws InvalidQuery. */
export function parseLabelSelector(text: string): LabelCondition[] {
  const conditions = split(text, 'labelSelector').map(part => labelCondition(part));
  refuseTooMany(conditions, 'labelSelector');
  return conditions;
}

/** `status.phase=Ready,name in (a,b),url~example`; `\,` `\=` `\\` escape in values. Throws InvalidQuery, Invalid. */
function parseFieldSelector(type: TypeDefinition, text: string): FieldCondition[] {
  const conditions = split(text, 'fieldSelector').map(part => fieldCondition(type, part));
  refuseTooMany(conditions, 'fieldSelector');
  return conditions;
}

/** Whether an object matches a selector: the same rules as the SQL in db/selectors.ts, for events in memory. */
export function matches(selector: Selector, object: JsonObject): boolean {
  const labels = isObject(object['labels']) ? object['labels'] : {};
  const value = (key: string) => (Object.hasOwn(labels, key) ? labels[key] : undefined);
  return (
    selector.labels.every(condition => {
      const label = value(condition.key);
      switch (condition.op) {
        case 'in':
          return typeof label === 'string' && condition.values.includes(label);
        case 'notin':
          return !(typeof label === 'string' && condition.values.includes(label));
        case 'exists':
          return label !== undefined;
        case 'absent':
          return label === undefined;
      }
    }) &&
    selector.fields.every(({ path, op, values }) => {
      const text = textAt(object, path);
      if (op === 'in') return text !== undefined && values.includes(text);
      if (op === 'notin') return !(text !== undefined && values.includes(text));
      return text?.includes(values[0] ?? '') === true;
    })
  );
}

function labelCondition(part: string): LabelCondition {
  const refuse = (problem: string) => new ApiError('InvalidQuery', `labelSelector: "${part}": ${problem}`);
  const checkedKey = (key: string) => {
    const [problem] = checkKey(key, key);
    if (problem) throw refuse(`the key "${key}" ${problem.message}`);
    return key;
  };
  const checkedValues = (values: string[]) => {
    for (const value of values) {
      const [problem] = checkLabelValue(value, value);
      if (problem) throw refuse(`the value "${value}" ${problem.message}`);
    }
    return values;
  };
  const set = /^(\S+)\s+(in|notin)\s*\(([^()]*)\)$/.exec(part);
  if (set?.[1] && set[2]) {
    const values = checkedValues((set[3] ?? '').split(',').map(value => value.trim()));
    return { key: checkedKey(set[1]), op: set[2] === 'in' ? 'in' : 'notin', values };
  }
  const equality = /^([^\s=!<>~]+)\s*(==|=|!=)\s*([^\s=!<>~()]*)$/.exec(part);
  if (equality?.[1] && equality[2]) {
    return {
      key: checkedKey(equality[1]),
      op: equality[2] === '!=' ? 'notin' : 'in',
      values: checkedValues([equality[3] ?? '']),
    };
  }
  const presence = /^(!?)\s*([^\s=!<>~()]+)$/.exec(part);
  if (presence?.[2]) return { key: checkedKey(presence[2]), op: presence[1] === '!' ? 'absent' : 'exists' };
  throw refuse(
    'not a condition; allowed are key=value, key==value, key!=value, key in (a,b), key notin (a,b), key, !key',
  );
}

function fieldCondition(type: TypeDefinition, part: string): FieldCondition {
  const refuse = (problem: string) => new ApiError('InvalidQuery', `fieldSelector: "${part}": ${problem}`);
  const set = /^([A-Za-z0-9_.-]+)\s+(in|notin)\s*\((.*)\)$/s.exec(part);
  const simple = /^([A-Za-z0-9_.-]+)\s*(==|!=|=|~)\s*(.*)$/s.exec(part);
  const found = set ?? simple;
  const [, name, operator, rest = ''] = found ?? [];
  if (name === undefined || operator === undefined) {
    throw refuse('not a condition; allowed are path=value, path!=value, path in (a,b), path notin (a,b), path~part');
  }
  const path = name.split('.');
  if (path.includes('')) throw refuse(`the path "${name}" has an empty part`);
  if (path.length > limits.parts) throw refuse(`the path has ${path.length} parts, the limit is ${limits.parts}`);
  const head = path[0] ?? '';
  const own =
    ['name', 'namespace', 'uid'].includes(name) || type.fields.includes(head) || (head === 'status' && path.length > 1);
  if (!own) {
    const open = type.fields.filter(field => !type.secrets.some(secret => secret.field === field));
    throw refuse(
      `"${name}" cannot be selected; allowed are name, namespace, uid, status.… and fields of ${type.type}: ${open.join(', ')}`,
    );
  }
  // Without the condition, which holds a guess at the value.
  if (type.secrets.some(secret => secret.field === head)) {
    const message = 'is secret and cannot be selected by';
    throw new ApiError('Invalid', `fieldSelector: "${head}" ${message}.`, {
      details: [{ path: 'fieldSelector', message }],
    });
  }
  const index = path.length === 1 ? type.indexes.find(one => one.field === head) : undefined;
  const values = set ? splitUnescaped(rest, ',').map(value => unescape(value.trim())) : [unescape(rest)];
  if (operator === '~') {
    if (values[0] === '') throw refuse('~ needs the text to look for');
    return { path, op: 'contains', values };
  }
  if (operator === 'notin' || operator === '!=') return { path, op: 'notin', values };
  return { path, op: 'in', values, ...(index ? { index } : {}) };
}

function textAt(object: JsonObject, path: string[]): string | undefined {
  let node: unknown = object;
  for (const key of path) {
    if (Array.isArray(node)) {
      const list: unknown[] = node;
      node = /^\d+$/.test(key) ? list[Number(key)] : undefined;
    } else node = isObject(node) && Object.hasOwn(node, key) ? node[key] : undefined;
  }
  if (node === undefined || node === null) return path.length === 1 && path[0] === 'namespace' ? '' : undefined;
  if (typeof node === 'string') return node;
  return jsonbText(node);
}

// Postgres writes a JSON document with a blank after each colon and comma and sorts keys by length, then bytes.
function jsonbText(node: unknown): string {
  if (Array.isArray(node)) return `[${node.map(jsonbText).join(', ')}]`;
  if (!isObject(node)) return stringifyJson(node);
  const keys = Object.keys(node).sort(
    (a, b) => Buffer.byteLength(a) - Buffer.byteLength(b) || Buffer.compare(Buffer.from(a), Buffer.from(b)),
  );
  return `{${keys.map(key => `${JSON.stringify(key)}: ${jsonbText(node[key])}`).join(', ')}}`;
}

/** Splits at commas outside of parentheses; drops blanks around the parts. */
function split(text: string, parameter: string): string[] {
  if (text.trim() === '') return [];
  const parts: string[] = [];
  let depth = 0;
  let part = '';
  for (let i = 0; i < text.length; i++) {
    const character = text.charAt(i);
    if (character === '\\' && i + 1 < text.length) {
      part += character + text.charAt(++i);
      continue;
    }
    if (character === '(') depth++;
    if (character === ')') depth--;
    if (character === ',' && depth === 0) {
      parts.push(part.trim());
      part = '';
    } else part += character;
  }
  parts.push(part.trim());
  if (depth !== 0) throw new ApiError('InvalidQuery', `${parameter}: "${text}": parentheses do not match`);
  const empty = parts.indexOf('');
  if (empty >= 0)
    throw new ApiError('InvalidQuery', `${parameter}: "${text}": condition ${empty + 1} is empty; remove the comma`);
  return parts;
}

function splitUnescaped(text: string, separator: string): string[] {
  const parts: string[] = [];
  let part = '';
  for (let i = 0; i < text.length; i++) {
    const character = text.charAt(i);
    if (character === separator) {
      parts.push(part);
      part = '';
    } else part += character === '\\' && i + 1 < text.length ? character + text.charAt(++i) : character;
  }
  return [...parts, part];
}

function unescape(value: string): string {
  return value.replace(/\\(.)/gs, '$1');
}

// What one request may cost the database. 64 conditions with 512 values are planned in 10 ms.
function refuseTooMany(conditions: (LabelCondition | FieldCondition)[], parameter: string): void {
  const values = conditions.reduce((sum, one) => sum + ('values' in one ? one.values.length : 0), 0);
  for (const [count, limit, what] of [
    [conditions.length, limits.conditions, 'conditions'],
    [values, limits.values, 'values'],
  ] as const) {
    if (count > limit) throw new ApiError('InvalidQuery', `${parameter}: ${count} ${what}, the limit is ${limit}.`);
  }
}
