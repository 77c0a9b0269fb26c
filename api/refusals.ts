import type { Key, RuleMatch, StoredAnswer, WriteResult } from '../db/index.js';
import { ApiError, notFound, type ErrorDetail } from './errors.js';
import type { TypeDefinition } from './type-definition.js';
import type { FieldError } from './validation.js';

/** `clusters foo/cluster1`, for messages. */
export function describe(type: TypeDefinition, key: Key): string {
  return `${type.type} ${key.namespace === '' ? '' : `${key.namespace}/`}${key.name}`;
}

/**
 * The namespace that an object of a type is in when a client says this, or nothing: `default`, and '' for cluster-wide types.
 * Throws Invalid for the namespace of something that has none.
 */
export function namespaceFor(type: TypeDefinition, given: string | undefined): string {
  if (type.namespaced) return given ?? 'default';
  if (given === undefined || given === '') return '';
  throw invalid([{ path: 'namespace', message: `must be left out: ${type.type} are cluster-wide` }]);
}

/** More are not told: the answer to a body full of mistakes must not be larger than the body. */
const mostDetails = 1_000;

/** The error for fields that are wrong, all of them up to a thousand. */
export function invalid(details: ErrorDetail[]): ApiError {
  const first = details[0];
  return new ApiError(
    'Invalid',
    details.length === 1 && first ? `${first.path}: ${first.message}` : `${details.length} fields are not valid.`,
    { details: details.slice(0, mostDetails) },
  );
}

/** The error for fields that the type does not have, with the place of each. */
export function unknownFieldError(fields: FieldError[]): ApiError {
  const details = fields.map(({ path, message }) => ({ path, message }));
  return new ApiError(
    'UnknownField',
    `Unknown field${details.length > 1 ? 's' : ''}: ${details.map(one => one.path).join(', ')}.`,
    { details },
  );
}

/** Throws what is wrong with an object, if anything is: UnknownField, else Invalid. */
export function refuse(errors: FieldError[]): void {
  const unknown = errors.filter(error => error.unknown === true);
  if (unknown.length > 0) throw unknownFieldError(unknown);
  if (errors.length > 0) throw invalid(errors.map(({ path, message }) => ({ path, message })));
}

/** Throws Invalid for a body that says another type than the URL. */
export function refuseForeignType(type: TypeDefinition, body: { type?: unknown }): void {
  if (body.type !== undefined && body.type !== type.type)
    throw invalid([{ path: 'type', message: `must be "${type.type}", as in the URL, or be left out` }]);
}

/** Throws Invalid for a body that names another object than the URL. */
export function refuseForeignKey(key: Key, body: { name?: unknown; namespace?: unknown }): void {
  const wrong = (['name', 'namespace'] as const).filter(
    field => body[field] !== undefined && body[field] !== key[field],
  );
  if (wrong.length === 0) return;
  throw invalid(
    wrong.map(path => ({ path, message: `is immutable and must be "${key[path]}", as in the URL, or be left out` })),
  );
}

/** The error of a write whose claim is no longer held. */
export function lostClaim(): ApiError {
  return new ApiError(
    'Fenced',
    'The claim of this write is lost: another worker may have the key. Drop the work; it is done elsewhere.',
  );
}

/** The write was done before, under the same Idempotency-Key: whoever asked gets the answer of then. */
export class Repeated extends ApiError {
  constructor(readonly answer: StoredAnswer) {
    super('Conflict', 'A request with this Idempotency-Key was answered meanwhile; send it again for that answer.');
  }
}

function place(type: string, match: RuleMatch): string {
  return `${match.type ?? type} ${match.namespace === '' ? '' : `${match.namespace}/`}${match.name}`;
}

/** The error for a write that the database did not take. */
export function refused(type: TypeDefinition, key: Key, result: WriteResult): ApiError {
  switch (result.outcome) {
    case 'fenced':
      return lostClaim();
    case 'missing':
      return notFound(describe(type, key));
    case 'exists':
      return new ApiError(
        'AlreadyExists',
        `${describe(type, key)} exists already; PUT or PATCH it, or choose another name.`,
      );
    case 'unique':
      return new ApiError(
        'NotUnique',
        `${place(type.type, result.match)} has the same ${result.match.fields.join(', ')}; choose another value (rule "${result.match.rule}").`,
        {
          details: result.match.fields.map(path => ({
            path,
            message: `${place(type.type, result.match)} has this value`,
          })),
        },
      );
    case 'target':
      return invalid(
        result.match.fields.map(path => ({
          path,
          message: `refers to ${place('', result.match)}, which does not exist or is being deleted (rule "${result.match.rule}")`,
        })),
      );
    case 'referenced':
      return new ApiError(
        'Referenced',
        `${describe(type, key)} is referred to by ${result.count === 1 ? 'an object' : `${result.count} objects`}; change or delete ${result.count === 1 ? 'it' : 'them'} first.`,
        {
          details: result.by.flatMap(match =>
            match.fields.map(path => ({
              path,
              message: `${place('', match)} refers to it here (rule "${match.rule}")`,
            })),
          ),
        },
      );
    case 'repeated':
      return new Repeated(result.answer);
    case 'refused':
      return new ApiError(
        'Invalid',
        `${describe(type, key)} holds a value that cannot be stored, such as a number out of range.`,
      );
    default:
      return new ApiError(
        'Conflict',
        `${describe(type, key)} was changed by someone else; read it, apply your change to it and write again.`,
      );
  }
}
