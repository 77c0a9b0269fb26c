import type { JsonObject } from './json.js';
import { checkEnvelope } from './labels.js';
import type { TypeDefinition } from './type-definition.js';
import { validate, type FieldError } from './validation.js';

/** Everything that is wrong with a new object as a client sends it: its model, and what all objects carry. */
export function checkInput(type: TypeDefinition, input: JsonObject): FieldError[] {
  const errors = validate(type, input);
  if (input['name'] === undefined && input['generateName'] === undefined)
    errors.push({ path: 'name', message: 'is required, or generateName with its beginning' });
  const namespace = type.namespaced ? (input['namespace'] ?? 'default') : '';
  const { labels, annotations, finalizers, owners } = input;
  const more = checkEnvelope({ labels, annotations, finalizers, owners, namespace });
  if (more.length === 0) return errors;
  // The model has told of wrong types already.
  const named = new Set(errors.map(error => error.path));
  return [...errors, ...more.filter(error => !named.has(error.path))];
}
