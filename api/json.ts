import { LosslessNumber, parse, stringify } from 'lossless-json';
import { ApiError, type ErrorDetail } from './errors.js';

/** A JSON object whose fields nobody has checked yet. */
export type JsonObject = Record<string, unknown>;

const maxDepth = 64;
// Digits that a double may not hold, or an exponent: such a text is parsed with numbers kept as they are written. Looked for
// where a value may begin: "7e3" somewhere in the base64 of a certificate must not cost the slow parser.
const longNumber = /(?:^|[[:,])\s*-?(?:[\d.]{16}|[\d.]*[eE][+-]?\d)/;

/**
 * Parses JSON and keeps integers beyond 2^53 and long decimals exactly: they become LosslessNumber objects, which
 * `stringifyJson` writes back as they were. Throws SyntaxError.
 *
 * @param hasLong whether the text may hold such a number, where the caller knows
 */
export function parseJson(text: string, hasLong = longNumber.test(text)): unknown {
  if (!hasLong) return JSON.parse(text) as unknown;
  // The native parser goes first for its error message, which has the position.
  JSON.parse(text);
  return parse(text, null, {
    parseNumber: number => (exact(number) ? Number(number) : new LosslessNumber(number)),
    onDuplicateKey: lastOne,
  });
}

/** Of a field that is there twice the last one counts, as for the native parser. */
function lastOne({ newValue }: { newValue: unknown }): unknown {
  return newValue;
}

/** Writes JSON, with exact numbers where `parseJson` kept them. */
export function stringifyJson(value: unknown): string {
  const text = JSON.stringify(value);
  // The lossless writer is ten times slower and wanted only where there is such a number.
  return text.includes('"isLosslessNumber":true') ? (stringify(value) ?? text) : text;
}

/** A copy that shares nothing but numbers kept exactly, which nobody changes. */
export function copyJson<T>(value: T): T;
export function copyJson(value: unknown): unknown {
  if (Array.isArray(value)) return value.map((one: unknown) => copyJson(one));
  if (!isObject(value)) return value;
  // Every field is there before one is set, so that a field "__proto__" is set as a field.
  const copy = { ...value };
  for (const [field, one] of Object.entries(value)) if (typeof one === 'object') copy[field] = copyJson(one);
  return copy;
}

/** Whether a value is a JSON object: no list, and no number that is kept as it was written. */
export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof LosslessNumber);
}

/** Parses the body of a request into an object. Throws InvalidJson with the position, or Invalid for what cannot be stored. */
export function parseBody(text: string): JsonObject {
  const value = parseAny(text);
  if (!isObject(value)) throw new ApiError('InvalidJson', 'The body must be a JSON object: it begins with "{".');
  return value;
}

/** The same for a body that is a list. */
export function parseListBody(text: string): unknown[] {
  const value = parseAny(text);
  if (!Array.isArray(value)) throw new ApiError('InvalidJson', 'The body must be a JSON list: it begins with "[".');
  return value;
}

function parseAny(text: string): unknown {
  if (text.trim() === '') throw new ApiError('InvalidJson', 'The body is empty; send JSON.');
  const hasLong = longNumber.test(text);
  let value: unknown;
  try {
    value = parseJson(text, hasLong);
  } catch (error) {
    // The lossless parser goes down a level of its stack for each level of the text.
    if (error instanceof RangeError && isDeep(text))
      throw new ApiError('Invalid', `The body is nested deeper than the limit of ${maxDepth} levels.`);
    throw new ApiError('InvalidJson', `The body is not JSON: ${describe(error, text)}`);
  }
  const violations = unstorable(value, text, hasLong);
  if (violations.length > 0)
    throw new ApiError('Invalid', 'The body holds what cannot be stored.', { details: violations });
  return value;
}

function exact(number: string): boolean {
  if (!Number.isFinite(Number(number))) return false;
  if (/^-?\d+$/.test(number)) return Number.isSafeInteger(Number(number));
  return String(Number(number)) === number || number.replace(/[-.]/g, '').length <= 15;
}

function describe(error: unknown, text: string): string {
  const isCut = error instanceof Error && error.message.startsWith('Unexpected end');
  const at = isCut ? text.length : (positionOf(error) ?? positionOf(losslessError(text)) ?? text.length);
  const before = text.slice(0, at).split('\n');
  // The parser quotes what it met, which may be part of a secret: only the place is told.
  const what = at >= text.length ? 'it ends too early' : 'unexpected character';
  return `${what} at line ${before.length}, column ${(before.at(-1)?.length ?? 0) + 1} (position ${at}).`;
}

function positionOf(error: unknown): number | undefined {
  const position = error instanceof Error ? /position (\d+)/.exec(error.message)?.[1] : undefined;
  return position === undefined ? undefined : Number(position);
}

/** The native parser has no position for what is no token at all, such as `NaN`: it quotes the text around it in its place. */
function losslessError(text: string): unknown {
  try {
    parse(text, null, { onDuplicateKey: lastOne });
    return undefined;
  } catch (error) {
    return error;
  }
}

/** What jsonb cannot hold: NUL, halves of surrogate pairs, huge exponents; and nesting beyond the limit. */
function unstorable(value: unknown, text: string, hasLong: boolean): ErrorDetail[] {
  const suspicious = hasLong || /\\u0000|\\u[dD][89a-fA-F]/.test(text) || /[\ud800-\udfff]/.test(text);
  if (!suspicious && !isDeeper(value, maxDepth)) return [];
  const found: ErrorDetail[] = [];
  const string = (text: string, path: string) => {
    if (text.includes('\u0000'))
      found.push({ path, message: 'holds a NUL character, which cannot be stored; remove it' });
    else if (!text.isWellFormed())
      found.push({ path, message: 'holds half of a surrogate pair; send well-formed Unicode' });
  };
  const walk = (node: unknown, path: string, depth: number) => {
    if (depth > maxDepth) {
      found.push({ path, message: `is nested deeper than the limit of ${maxDepth} levels` });
    } else if (typeof node === 'string') string(node, path);
    else if (node instanceof LosslessNumber) {
      if (Math.abs(Number(/[eE]([+-]?\d+)/.exec(node.value)?.[1] ?? 0)) > 1_000) {
        found.push({ path, message: 'has an exponent beyond 1000' });
      }
    } else if (Array.isArray(node)) node.forEach((one, i) => walk(one, `${path}[${i}]`, depth + 1));
    else if (isObject(node)) {
      for (const [key, one] of Object.entries(node)) {
        string(key, below(path, key));
        walk(one, below(path, key), depth + 1);
      }
    }
  };
  walk(value, '', 0);
  return found;
}

/** Where a field stands in a body; an empty path is the body itself. */
export function below(path: string, name: string): string {
  return path === '' ? name : `${path}.${name}`;
}

/** Whether a value has more levels than these. Its lists and objects are far fewer than the characters of its text. */
function isDeeper(value: unknown, levels: number): boolean {
  if (typeof value !== 'object' || value === null) return false;
  if (levels === 0) return true;
  for (const one of Array.isArray(value) ? value : Object.values(value)) {
    if (typeof one === 'object' && isDeeper(one, levels - 1)) return true;
  }
  return false;
}

// Counts brackets outside of strings; the text is known to be JSON. Those inside would hide the depth around them.
function isDeep(text: string): boolean {
  let depth = 0;
  let quoted = false;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code === 34) quoted = !quoted;
    else if (quoted) {
      if (code === 92) i++;
    } else if (code === 123 || code === 91) {
      if (++depth > maxDepth) return true;
    } else if (code === 125 || code === 93) depth--;
  }
  return false;
}
