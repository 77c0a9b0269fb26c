import { types } from '../build/types.js';
import type { ErrorDetail } from './errors.js';
import { isObject, type JsonObject } from './json.js';
import { check, type FieldError } from './validation.js';

// The rules are those of Kubernetes ("Labels and Selectors", "Annotations", "Owners and Dependents" of its documentation), so
// that objects can go from one to the other.

// Kubernetes has no limit to the number of labels, finalizers and owners. Here each costs time in every write of the object: 100,000
// finalizers held the process up for a second.
const limits = {
  labels: 64,
  finalizers: 64,
  owners: 1_000,
  name: 63,
  prefix: 253,
  value: 63,
  annotationBytes: 256 * 1024,
};
const texts = {
  dataType: 'nestedObjectLiteral',
  nestedProperties: {},
  additionalProperties: { dataType: 'string' },
} as const;
const finalizerList = { dataType: 'array', array: { dataType: 'string' } } as const;
const ownerList = { dataType: 'array', array: { ref: 'Owner' } } as const;
const name = /^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$/;
const prefix = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/;

/** What is wrong with labels, which must be a map of texts already; `path` leads to them. */
export function checkLabels(labels: Record<string, unknown>, path: string): FieldError[] {
  const errors: FieldError[] = [];
  const entries = Object.entries(labels);
  if (entries.length > limits.labels) return tooMany(path, 'labels', entries.length);
  for (const [key, value] of entries) {
    for (const message of keyProblems(key)) errors.push({ path: `${path}.${key}`, message });
    for (const message of valueProblems(value)) errors.push({ path: `${path}.${key}`, message });
  }
  return errors;
}

/** What is wrong with the value of a label. */
export function checkLabelValue(value: unknown, path: string): FieldError[] {
  return valueProblems(value).map(message => ({ path, message }));
}

function valueProblems(value: unknown): string[] {
  if (typeof value !== 'string' || value === '') return [];
  if (value.length > limits.value) return [`must have at most ${limits.value} characters, not ${value.length}`];
  if (name.test(value)) return [];
  return ['must be letters, digits, "-", "_" and ".", beginning and ending with a letter or digit'];
}

/** What is wrong with the key of a label or an annotation, or with a finalizer: `name` or `prefix/name`. */
export function checkKey(key: string, path: string): FieldError[] {
  return keyProblems(key).map(message => ({ path, message }));
}

function keyProblems(key: string): string[] {
  const slash = key.indexOf('/');
  const before = slash < 0 ? undefined : key.slice(0, slash);
  const after = key.slice(slash + 1);
  const messages: string[] = [];
  if (before !== undefined && (before.length > limits.prefix || !prefix.test(before))) {
    messages.push(`must have a DNS name of at most ${limits.prefix} characters in front of the "/"`);
  }
  if (after.length > limits.name || !name.test(after)) {
    const part = before === undefined ? 'its name' : 'what follows the "/"';
    messages.push(
      `${part} must be 1 to ${limits.name} letters, digits, "-", "_" and ".", beginning and ending with a letter or digit`,
    );
  }
  return messages;
}

/**
 * Everything that is wrong with what every object may carry: labels, annotations, finalizers and owners, in type and syntax.
 * `object.namespace` is that of the object; cluster-wide objects have none, or an empty one. With `only`, nothing but these fields
 * is looked at.
 */
export function checkEnvelope(whole: JsonObject, only?: Set<string>): FieldError[] {
  const object = only
    ? Object.fromEntries(Object.entries(whole).filter(([field]) => only.has(field) || field === 'namespace'))
    : whole;
  const errors: FieldError[] = [];
  check(texts, object['labels'], 'labels', errors);
  check(texts, object['annotations'], 'annotations', errors);
  check(finalizerList, object['finalizers'], 'finalizers', errors);
  check(ownerList, object['owners'], 'owners', errors);
  if (errors.length > 0) return errors;
  const { labels, annotations, finalizers, owners } = object;
  if (isObject(labels)) errors.push(...checkLabels(labels, 'labels'));
  if (isObject(annotations)) errors.push(...checkAnnotations(annotations));
  if (Array.isArray(finalizers)) errors.push(...checkFinalizers(finalizers));
  if (Array.isArray(owners)) errors.push(...checkOwners(owners.filter(isObject), object['namespace']));
  return errors;
}

function checkAnnotations(annotations: JsonObject): ErrorDetail[] {
  const entries = Object.entries(annotations);
  const bytes = entries.reduce(
    (sum, [key, value]) => sum + Buffer.byteLength(key) + Buffer.byteLength(String(value)),
    0,
  );
  if (bytes > limits.annotationBytes) {
    const message = `must have at most ${limits.annotationBytes} bytes together, not ${bytes}`;
    return [{ path: 'annotations', message }];
  }
  const errors: ErrorDetail[] = [];
  for (const [key] of entries) {
    for (const message of keyProblems(key)) errors.push({ path: `annotations.${key}`, message });
  }
  return errors;
}

// What is beyond a limit is not looked at one by one.
function tooMany(path: string, what: 'finalizers' | 'labels' | 'owners', count: number): ErrorDetail[] {
  return [{ path, message: `must have at most ${limits[what]} ${what}, not ${count}` }];
}

function checkFinalizers(finalizers: unknown[]): ErrorDetail[] {
  if (finalizers.length > limits.finalizers) return tooMany('finalizers', 'finalizers', finalizers.length);
  const seen = new Set<unknown>();
  return finalizers.flatMap((finalizer, i) => {
    const path = `finalizers[${i}]`;
    if (seen.size === seen.add(finalizer).size) return [{ path, message: 'is there twice' }];
    return checkKey(String(finalizer), path);
  });
}

function checkOwners(owners: JsonObject[], namespace: unknown): ErrorDetail[] {
  if (owners.length > limits.owners) return tooMany('owners', 'owners', owners.length);
  const errors: ErrorDetail[] = [];
  const controllers = owners.filter(owner => owner['controller'] === true);
  if (controllers.length > 1) {
    errors.push({
      path: 'owners',
      message: `must have at most one owner with controller: true, not ${controllers.length}`,
    });
  }
  const seen = new Set<unknown>();
  owners.forEach((owner, i) => {
    const path = `owners[${i}]`;
    if (seen.size === seen.add(owner['uid']).size) errors.push({ path: `${path}.uid`, message: 'is there twice' });
    if (owner['uid'] === '') errors.push({ path: `${path}.uid`, message: 'must not be empty' });
    const type = types.find(one => one.type === owner['type']);
    if (type === undefined) {
      errors.push({ path: `${path}.type`, message: `is no type; there are ${types.map(one => one.type).join(', ')}` });
    } else if (!type.namespaced && owner['namespace'] !== undefined) {
      errors.push({ path: `${path}.namespace`, message: `must be left out: ${type.type} are cluster-wide` });
    } else if (type.namespaced && (namespace ?? '') === '') {
      errors.push({
        path: `${path}.type`,
        message: `must be a cluster-wide type, as the object is: ${type.type} have a namespace`,
      });
    } else if (owner['namespace'] !== undefined && owner['namespace'] !== namespace)
      errors.push({
        path: `${path}.namespace`,
        message: 'must be the namespace of the object; owners in other namespaces are not possible',
      });
  });
  return errors;
}
