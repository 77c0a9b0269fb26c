import { schemaOf, type Schema } from './document.js';
import type { TypeModel } from './read-types.js';

/** Adds the models that tsoa cannot know and says of the others what it does not. Throws Error when tsoa made none for a type. */
export function completeModels(models: Record<string, Schema>, types: TypeModel[]): void {
  models['PartialList'] = partialList(Object.values(models));
  models['BatchLine'] = batchLine(models['BatchResult']);
  Object.assign(models, shared);
  for (const model of Object.values(models)) correct(model);
  for (const type of types) completeType(models, type);
}

/** Bodies that are the same for all types. */
const shared: Record<string, Schema> = {
  JsonPatch: {
    type: 'array',
    description: 'A JSON patch (RFC 6902): operations that are carried out in this order, all or none.',
    maxItems: 10_000,
    items: {
      type: 'object',
      required: ['op', 'path'],
      properties: {
        op: { type: 'string', enum: ['add', 'remove', 'replace', 'move', 'copy', 'test'] },
        path: { type: 'string', description: 'A JSON pointer (RFC 6901), such as `/labels/env`.' },
        from: { type: 'string', description: 'Where `move` and `copy` take the value.' },
        value: { description: 'For `add`, `replace` and `test`.' },
      },
    },
  },
  MetadataInput: {
    type: 'object',
    description:
      'What clients set around the own fields of an object; the rest of the object may be there and is ignored.',
    properties: {
      labels: { type: 'object', additionalProperties: { type: 'string' } },
      annotations: { type: 'object', additionalProperties: { type: 'string' } },
      finalizers: { type: 'array', items: { type: 'string' } },
      owners: { type: 'array', items: schemaOf('Owner') },
      resourceVersion: {
        type: 'string',
        pattern: '^[0-9]+$',
        description: 'The version that the object must still have, else 409.',
      },
      uid: { type: 'string', description: 'The uid that the object must have, else 409.' },
    },
    additionalProperties: true,
  },
};

/** tsoa calls whole numbers int32, though versions outgrow that, and says null of what has no type, which means nothing. */
function correct(schema: Schema): void {
  if (schema['format'] === 'int32') schema['format'] = 'int64';
  if (schema['nullable'] === true && schema.type === undefined) {
    const { description } = schema;
    for (const field of Object.keys(schema)) Reflect.deleteProperty(schema, field);
    Object.assign(schema, { type: 'object', additionalProperties: true, nullable: true, description });
  }
  const parts = [schema['items'], schema['additionalProperties'], ...Object.values(schema.properties ?? {})];
  for (const part of parts) if (typeof part === 'object' && part !== null) correct(part as Schema);
}

function batchLine(result: Schema | undefined): Schema {
  if (!result) throw new Error('tsoa made no model BatchResult');
  const index = { type: 'integer', minimum: 0, description: 'Which line of the body, from 0, empty ones not counted.' };
  const properties: Record<string, Schema> = { index, ...result.properties };
  // A line has its object always.
  delete properties['truncated'];
  return {
    ...result,
    description: 'What became of the operation in a line.',
    required: ['index', ...(result.required ?? [])],
    properties,
  };
}

/** The model that is received says its type exactly; the one that is sent has the same server-set fields, as read-only. */
function completeType(models: Record<string, Schema>, { type, kind, namespaced, status }: TypeModel): void {
  const received = models[kind];
  const sent = models[`${kind}Input`];
  if (!received?.properties || !sent?.properties) throw new Error(`tsoa made no models for ${kind}`);
  Object.assign(received.properties['type'] ?? {}, { enum: [type] });
  if (namespaced) received.required = [...(received.required ?? []), 'namespace'].sort();
  else delete received.properties['namespace'];
  models[`${kind}Event`] = event(kind, type);
  const { properties } = received;
  const ignored = ['generation', 'createdAt', 'updatedAt', 'deletedAt', 'status'];
  const fields = Object.entries(sent.properties).filter(([field]) => !ignored.includes(field));
  for (const field of ignored) if (properties[field]) fields.push([field, { ...properties[field], readOnly: true }]);
  sent.properties = Object.fromEntries(fields);
  if (status !== undefined) {
    models[`${kind}StatusInput`] = {
      type: 'object',
      description: `The status of an object of the type ${type}; the rest of the object may be there and is ignored. Left out, the status is removed.`,
      properties: {
        status: schemaOf(status),
        resourceVersion: sent.properties['resourceVersion'] ?? {},
        uid: sent.properties['uid'] ?? {},
      },
      additionalProperties: true,
    };
  }
}

/** A line of a watch. */
function event(kind: string, type: string): Schema {
  const version = { type: 'string', pattern: '^[0-9]+$' };
  return {
    type: 'object',
    description: `A line of a watch of ${type}: a change with its \`object\`, a BOOKMARK, or an ERROR as the last line.`,
    required: ['type'],
    properties: {
      type: { type: 'string', enum: ['ADDED', 'MODIFIED', 'DELETED', 'BOOKMARK', 'ERROR'] },
      resourceVersion: { ...version, description: 'The version of the event; a watch from here goes on behind it.' },
      previousResourceVersion: {
        ...version,
        description: 'The version of the event before it, of any object of the type. Objects of now have none.',
      },
      initialEventsEnd: { type: 'boolean', description: 'Of the BOOKMARK behind the objects of now.' },
      object: schemaOf(kind),
      error: { type: 'object', additionalProperties: true, description: 'As `error` of an ErrorBody.' },
    },
    additionalProperties: false,
  };
}

/** What a list answers with `fields`. What surrounds the objects is as in any other list. */
function partialList(models: Schema[]): Schema {
  const page = models.find(model => model.properties?.['items'] && model.properties['remainingItemCount']);
  if (!page) throw new Error('tsoa made no model of a list');
  return {
    ...page,
    description: 'With `fields`: one page of the parts that were asked for.',
    properties: {
      ...page.properties,
      items: {
        type: 'array',
        items: {
          type: 'object',
          required: ['name', 'resourceVersion'],
          properties: {
            name: { type: 'string' },
            namespace: { type: 'string' },
            resourceVersion: { type: 'string', pattern: '^[0-9]+$' },
          },
          additionalProperties: true,
        },
      },
    },
  };
}
