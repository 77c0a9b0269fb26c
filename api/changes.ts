import { isDeepStrictEqual } from 'node:util';
import type { ChangedPart } from '../db/index.js';
import { metadataFields, serverFields } from './fields.js';
import { stringifyJson, type JsonObject } from './json.js';
import type { TypeDefinition } from './type-definition.js';

/** The top-level fields in which two states of an object differ. */
export function differences(previous: JsonObject, next: JsonObject): Set<string> {
  const fields = new Set([...Object.keys(previous), ...Object.keys(next)]);
  return new Set([...fields].filter(field => !isDeepStrictEqual(previous[field], next[field])));
}

/** The parts of an object that fields belong to. */
export function changedParts(type: TypeDefinition, differing: Set<string>): ChangedPart[] {
  const parts: ChangedPart[] = [];
  const own = [...differing].some(
    field => type.fields.includes(field) || !(metadataFields.includes(field) || serverFields.includes(field)),
  );
  if (own) parts.push('spec');
  if (metadataFields.some(field => differing.has(field))) parts.push('metadata');
  if (differing.has('status')) parts.push('status');
  if (differing.has('owners')) parts.push('owners');
  return parts;
}

/**
 * The values that a write replaces, as JSON text for the event log: with them an older state is made from a newer one. Null
 * stands for a field that was not there.
 */
export function formerValues(previous: JsonObject, fields: Iterable<string>): string {
  const former: JsonObject = { resourceVersion: previous['resourceVersion'] };
  for (const field of fields) former[field] = previous[field] ?? null;
  return stringifyJson(former);
}
