import type { Document } from './document.js';

/**
 * The document as it is published. Names of texts with a pattern (`ResourceName`) are replaced by what they mean. What stands
 * beside a `$ref` is kept: in OpenAPI 3.0 it is ignored there, so the description of such a field would be lost.
 */
export function publish(document: Document): Document {
  const texts = new Map(
    Object.entries(document.components.schemas)
      .filter(([, schema]) => schema.type === 'string' && schema['enum'] === undefined)
      .map(([name, schema]) => [`#/components/schemas/${name}`, schema]),
  );
  const walk = (node: unknown): unknown => {
    if (Array.isArray(node)) return node.map(walk);
    if (typeof node !== 'object' || node === null) return node;
    const entries = Object.entries(node).filter(([key, value]) => !(key === 'nullable' && value === false));
    const { $ref, ...rest } = Object.fromEntries(entries.map(([key, value]) => [key, walk(value)]));
    // Lines of a comment are no lines for readers.
    if (typeof rest['description'] === 'string')
      rest['description'] = rest['description'].replace(/(?<!\n)\n(?!\n)/g, ' ');
    if (typeof $ref !== 'string') return rest;
    const text = texts.get($ref);
    if (text) return { ...text, ...rest };
    return Object.keys(rest).length > 0 ? { allOf: [{ $ref }], ...rest } : { $ref };
  };
  const published = walk(document) as Document;
  const { schemas } = published.components;
  const shown = Object.entries(schemas).filter(([name]) => !texts.has(`#/components/schemas/${name}`));
  published.components.schemas = Object.fromEntries(shown);
  return published;
}
