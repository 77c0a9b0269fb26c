import { ValidateError, type FieldErrors, type TsoaRoute } from '@tsoa/runtime';
import { models } from '../build/models.js';
import type { ErrorDetail } from './errors.js';
import { below, isObject, type JsonObject } from './json.js';
import type { TypeDefinition } from './type-definition.js';

// The models are tsoa's, the checks are ours. tsoa 6.6's own ones lose the way to elements of lists (two elements' errors then
// overwrite each other), take ["Sync"] for "Sync", fill defaults in and rewrite the body, and answer a wrong union with JSON in
// a string.

/** One thing that is wrong with what a client sent. */
export interface FieldError extends ErrorDetail {
  /** There is no such field or query parameter. */
  unknown?: boolean;
  /** `path` names a query parameter. */
  query?: boolean;
}

/** The arguments of a route are wrong; `errors` has everything that is. */
export class InvalidArguments extends ValidateError {
  constructor(readonly errors: FieldError[]) {
    const fields: FieldErrors = {};
    for (const { path, message, query } of errors) fields[query ? path : `body.${path}`] = { message };
    super(fields, 'invalid arguments');
    // tsoa's constructor makes any subclass a plain ValidateError.
    Object.setPrototypeOf(this, InvalidArguments.prototype);
  }
}

/**
 * What is wrong with the arguments of a route, from an error that the generated routes throw. Paths are those of the body's
 * fields, or names of query parameters (then `query` is set).
 */
export function fieldErrors(error: ValidateError): FieldError[] {
  if (error instanceof InvalidArguments) return error.errors;
  return Object.entries(error.fields).map(([path, { message }]) => ({ path: path.replace(/^body\./, ''), message }));
}

type Schema = TsoaRoute.PropertySchema;
type Fields = Record<string, Schema>;
type Others = boolean | Schema | undefined;
/** tsoa's validators, with the types that its generator gives their values. */
type Validators = Partial<
  Record<
    'minLength' | 'maxLength' | 'minimum' | 'maximum' | 'minItems' | 'maxItems',
    { value: number; errorMsg?: string }
  > &
    Record<'pattern', { value: string; errorMsg?: string }> &
    Record<'isInt' | 'isLong' | 'uniqueItems', { errorMsg?: string }>
>;

/** More are not reported: the answer to a body full of mistakes must not be larger than the body. */
const mostErrors = 1_000;

/**
 * Everything that is wrong with an object as clients send it: unknown fields, wrong types, broken limits. With `only`, nothing
 * but these top-level fields is looked at; removed fields belong in it as well. The object is not changed. The syntax of labels
 * and the like is `checkEnvelope`'s matter; the type's own rules are asked later, about objects that fit their model.
 */
export function validate(type: TypeDefinition, object: JsonObject, only?: Set<string>): FieldError[] {
  const errors: FieldError[] = [];
  const model = models[type.input];
  if (model?.dataType !== 'refObject') throw new Error(`there is no model ${type.input}; run make generate`);
  checkFields(model.properties, model.additionalProperties, object, '', errors, only);
  return errors.slice(0, mostErrors);
}

/** Everything that is wrong with a status; paths begin with `status`. A type without status takes none. */
export function validateStatus(type: TypeDefinition, status: unknown): FieldError[] {
  if (type.status === undefined) return [{ path: 'status', message: `${type.type} have no status`, unknown: true }];
  const errors: FieldError[] = [];
  check({ ref: type.status, required: true }, status, 'status', errors);
  return errors.slice(0, mostErrors);
}

/** Checks a value against a schema of tsoa's and adds what is wrong to `errors`. */
export function check(schema: Schema, value: unknown, path: string, errors: FieldError[]): void {
  if (errors.length >= mostErrors) return;
  if (value === undefined) {
    if (schema.required) errors.push({ path, message: 'is required' });
  } else if (schema.dataType === 'array') {
    report(listProblems(schema, value), path, errors);
    const one = { ...schema.array, required: true };
    const elements = Array.isArray(value) ? value : [];
    elements.forEach((element, i) => check(one, element, `${path}[${i}]`, errors));
  } else if (schema.dataType === 'nestedObjectLiteral') {
    checkObject(schema.nestedProperties ?? {}, schema.additionalProperties, value, path, errors);
  } else if (schema.dataType === 'union') {
    checkUnion(schema, value, path, errors);
  } else if (schema.ref !== undefined) {
    checkModel(schema, schema.ref, value, path, errors);
  } else {
    report(problems(schema, value), path, errors);
  }
}

function report(messages: string[], path: string, errors: FieldError[]): void {
  for (const message of messages) errors.push({ path, message });
}

function checkModel(schema: Schema, name: string, value: unknown, path: string, errors: FieldError[]): void {
  const model = models[name];
  if (model?.dataType === 'refEnum') {
    report(choiceProblems(model.enums, value), path, errors);
  } else if (model?.dataType === 'refAlias') {
    const validators = { ...model.type.validators, ...schema.validators };
    check(schema.validators ? { ...model.type, validators } : model.type, value, path, errors);
  } else if (model?.dataType === 'refObject') {
    checkObject(model.properties, model.additionalProperties, value, path, errors);
  } else {
    throw new Error(`there is no model ${name}; run make generate`);
  }
}

function checkObject(fields: Fields, others: Others, value: unknown, path: string, errors: FieldError[]): void {
  if (isObject(value)) checkFields(fields, others, value, path, errors);
  else errors.push({ path, message: `must be an object, not ${nameOf(value)}` });
}

function checkFields(
  fields: Fields,
  others: Others,
  object: JsonObject,
  path: string,
  errors: FieldError[],
  only?: Set<string>,
): void {
  for (const name of namesOf(fields)) {
    const schema = fields[name];
    if (!schema || (only && !only.has(name))) continue;
    const value = Object.hasOwn(object, name) ? object[name] : undefined;
    if (value !== undefined || schema.required) check(schema, value, below(path, name), errors);
  }
  if (others === true || (typeof others === 'object' && others.dataType === 'any')) return;
  for (const name of Object.keys(object)) {
    if (Object.hasOwn(fields, name) || (only && !only.has(name))) continue;
    if (errors.length >= mostErrors) return;
    if (typeof others === 'object') {
      check(others, object[name], below(path, name), errors);
    } else {
      const known = Object.keys(fields).sort().join(', ') || 'none';
      errors.push({ path: below(path, name), message: `is unknown; there are ${known}`, unknown: true });
    }
  }
}

// The models are as they are for the life of the process: their fields are listed once, not anew for each object.
const names = new WeakMap<Fields, string[]>();

function namesOf(fields: Fields): string[] {
  let known = names.get(fields);
  if (!known) names.set(fields, (known = Object.keys(fields)));
  return known;
}

function checkUnion(schema: Schema, value: unknown, path: string, errors: FieldError[]): void {
  const branches = schema.subSchemas ?? [];
  if (branches.every(branch => branch.dataType === 'enum')) {
    if (branches.some(({ enums }) => enums?.some(choice => choice === value))) return;
    const choices = branches.flatMap(branch => branch.enums ?? []);
    report(choiceProblems(choices, value), path, errors);
    return;
  }
  let best: FieldError[] | undefined;
  for (const branch of branches) {
    const found: FieldError[] = [];
    check({ ...branch, validators: { ...schema.validators, ...branch.validators } }, value, path, found);
    if (found.length === 0) return;
    // A branch that the value belongs to as a whole tells best what is wrong inside of it.
    const inside = !found.some(error => error.path === path);
    if (inside && (!best || found.length < best.length)) best = found;
  }
  errors.push(...(best ?? [{ path, message: `must not be ${nameOf(value)}` }]));
}

/** What is wrong with a value that has no parts. */
function problems(schema: Schema, value: unknown): string[] {
  const validators = validatorsOf(schema);
  switch (schema.dataType) {
    case 'any':
      return [];
    case 'string':
      return typeof value === 'string' ? textProblems(validators, value) : [`must be a text, not ${nameOf(value)}`];
    case 'boolean':
      return typeof value === 'boolean' ? [] : [`must be true or false, not ${nameOf(value)}`];
    case 'integer':
    case 'long':
      if (typeof value === 'number' && Number.isSafeInteger(value)) return numberProblems(validators, value);
      return [(validators.isInt ?? validators.isLong)?.errorMsg ?? `must be a whole number, not ${nameOf(value)}`];
    case 'float':
    case 'double':
      return typeof value === 'number' ? numberProblems(validators, value) : [`must be a number, not ${nameOf(value)}`];
    case 'enum':
      return choiceProblems(schema.enums ?? [], value);
    default:
      throw new Error(`the models say ${schema.dataType ?? 'nothing'}, which has no check`);
  }
}

function textProblems({ minLength, maxLength, pattern }: Validators, text: string): string[] {
  if (minLength && text.length < minLength.value) {
    return [minLength.errorMsg ?? `must have at least ${minLength.value} characters`];
  }
  if (maxLength && text.length > maxLength.value) {
    return [maxLength.errorMsg ?? `must have at most ${maxLength.value} characters`];
  }
  return !pattern || expression(pattern.value).test(text) ? [] : [pattern.errorMsg ?? `must match ${pattern.value}`];
}

function numberProblems({ minimum, maximum }: Validators, number: number): string[] {
  if (minimum && number < minimum.value) return [minimum.errorMsg ?? `must be at least ${minimum.value}`];
  if (maximum && number > maximum.value) return [maximum.errorMsg ?? `must be at most ${maximum.value}`];
  return [];
}

function listProblems(schema: Schema, list: unknown): string[] {
  if (!Array.isArray(list)) return [`must be a list, not ${nameOf(list)}`];
  const { minItems, maxItems, uniqueItems } = validatorsOf(schema);
  const found: string[] = [];
  if (minItems && list.length < minItems.value) {
    found.push(minItems.errorMsg ?? `must have at least ${minItems.value} elements`);
  }
  if (maxItems && list.length > maxItems.value) {
    found.push(maxItems.errorMsg ?? `must have at most ${maxItems.value} elements`);
  }
  if (uniqueItems && new Set(list).size < list.length) {
    found.push(uniqueItems.errorMsg ?? 'must not hold an element twice');
  }
  return found;
}

function choiceProblems(choices: unknown[], value: unknown): string[] {
  if (choices.includes(value)) return [];
  const allowed = choices.map(choice => JSON.stringify(choice));
  return [allowed.length === 1 ? `must be ${allowed.join()}` : `must be one of ${allowed.join(', ')}`];
}

// The values have the type unknown in tsoa's declaration; its generator writes numbers and texts.
function validatorsOf(schema: Schema): Validators {
  return (schema.validators ?? {}) as Validators;
}

const expressions = new Map<string, RegExp>();

function expression(pattern: string): RegExp {
  const known = expressions.get(pattern) ?? new RegExp(pattern);
  expressions.set(pattern, known);
  return known;
}

// The kind of a value, never the value: it may be a secret in the wrong place.
function nameOf(value: unknown): string {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'a list';
  if (typeof value === 'string') return 'a text';
  if (typeof value === 'number') return Number.isInteger(value) ? 'a number' : 'a fraction';
  return typeof value === 'boolean' ? String(value) : isObject(value) ? 'an object' : 'a number that long';
}
