import { generate } from 'openapi-typescript-codegen';
import { readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Document, Schema } from './document.js';
import type { TypeModel } from './read-types.js';
import { routes } from './routes.js';

const banner = '// Written by `make generate` from the OpenAPI document. Not to be edited.\n';

/**
 * Writes `client/generated` anew: models, one service per tag, and a client that has them all. The codegen's own transport,
 * errors and promises are left out; the client takes a transport of ours (`core/Transport.ts`).
 */
export async function writeClient(root: string, document: Document, types: TypeModel[]): Promise<void> {
  const final = join(root, 'client/generated');
  // Made beside and then exchanged: whoever uses the client meanwhile finds one.
  const output = join(root, 'build/client');
  rmSync(output, { recursive: true, force: true });
  await generate({
    input: forCodegen(document, types),
    output,
    httpClient: 'fetch',
    clientName: 'GeneratedClient',
    useOptions: true,
    useUnionTypes: true,
  });
  for (const file of names(output, 'core')) {
    if (file !== 'ApiRequestOptions') rmSync(join(output, `core/${file}.ts`));
  }
  const services = names(output, 'services');
  for (const service of services) rewrite(join(output, `services/${service}.ts`), ownTransport);
  for (const model of names(output, 'models')) rewrite(join(output, `models/${model}.ts`), withSuffixes);
  writeFileSync(join(output, 'core/Transport.ts'), `${banner}${transport}`);
  writeFileSync(join(output, 'GeneratedClient.ts'), `${banner}${client(services)}`);
  writeFileSync(join(output, 'index.ts'), `${banner}${index(names(output, 'models'), services)}`);
  rmSync(final, { recursive: true, force: true });
  renameSync(output, final);
}

/** The document as the codegen needs it for a client that reads well. */
function forCodegen(original: Document, types: TypeModel[]): Document {
  const document = structuredClone(original);
  const names = new Map(types.flatMap(type => routes(type).map(({ operation, name }) => [operation, name])));
  // A read by the client is meant for the object.
  for (const path of Object.values(document.paths)) delete path['head'];
  for (const operation of Object.values(document.paths).flatMap(path => Object.values(path))) {
    // Every service has the same method names, so that code can be generic over types.
    operation.operationId = names.get(operation.operationId) ?? operation.operationId;
    // Headers belong to a connection, watching to a method of its own.
    operation.parameters =
      operation.parameters?.filter(one => one.in !== 'header' && one.$ref === undefined && one.name !== 'watch') ?? [];
    // Errors have one shape, which the transport knows.
    const [code = '', answer = {}] = Object.entries(operation.responses).find(([code]) => code.startsWith('2')) ?? [];
    const json = answer.content?.['application/json'];
    // The parts that a list answers with `fields` have no type of their own here, see client/collection.ts.
    const [whole] = (json?.schema?.['anyOf'] as Schema[] | undefined) ?? [];
    if (json && whole) json.schema = whole;
    operation.responses = { [code]: json ? { ...answer, content: { 'application/json': json } } : answer };
    const patch = operation.requestBody?.content['application/merge-patch+json'];
    if (patch && operation.requestBody) operation.requestBody.content = { 'application/merge-patch+json': patch };
  }
  const { schemas } = document.components;
  for (const [name, schema] of Object.entries(schemas)) schemas[name] = withFields(schema);
  return document;
}

// The codegen drops the fields of a schema that also takes others; as two schemas it keeps both.
function withFields({ additionalProperties, ...schema }: Schema): Schema {
  if (!additionalProperties || Object.keys(schema.properties ?? {}).length === 0) {
    return additionalProperties === undefined ? schema : { ...schema, additionalProperties };
  }
  const { description, ...rest } = schema;
  return { description, allOf: [rest, { type: 'object', additionalProperties }] };
}

function names(output: string, folder: string): string[] {
  return readdirSync(join(output, folder))
    .map(file => file.replace(/\.ts$/, ''))
    .sort();
}

function rewrite(file: string, change: (text: string) => string): void {
  writeFileSync(file, change(readFileSync(file, 'utf8')));
}

// The codegen writes for bundlers; Node wants the suffix.
function withSuffixes(text: string): string {
  return text.replace(/ from '(\.[^']+)';/g, ` from '$1.js';`);
}

function ownTransport(text: string): string {
  return (
    withSuffixes(text)
      .replace(/import type \{ CancelablePromise \}.*\n/, '')
      .replace(/CancelablePromise</g, 'Promise<')
      .replace(/BaseHttpRequest/g, 'Transport')
      .replace(/httpRequest/g, 'transport')
      .replace(/^ +\* @throws ApiError\n/gm, '')
      .replace(/\brequestBody\b/g, 'body')
      // A reserved word may not be a variable, but it may be the name of an option.
      .replace(/^( +)_continue,$/gm, '$1continue: _continue,')
      .replace(/^( +)_continue\?: /gm, '$1continue?: ')
      // Where every option may be left out, so may the options.
      .replace(/(public \w+\(\{[^}]*\}: \{(?:(?!\n {4}\}\)).)*\n {4}\})(?=\): )/gs, (parameters: string) =>
        /^ {8}(?! |\/?\*)\w+: /m.test(parameters.slice(parameters.indexOf('}: {'))) ? parameters : `${parameters} = {}`,
      )
  );
}

const transport = `import type { ApiRequestOptions } from './ApiRequestOptions.js';

/** How a request reaches the server. */
export interface Transport {
  /** Sends a request; resolves to the parsed body of a success answer, rejects otherwise. */
  request<T>(options: ApiRequestOptions): Promise<T>;
}
`;

function client(services: string[]): string {
  const property = (service: string) => service.replace(/Service$/, '').replace(/^./, first => first.toLowerCase());
  return `import type { Transport } from './core/Transport.js';
${services.map(one => `import { ${one} } from './services/${one}.js';\n`).join('')}
/** All services over one transport. */
export class GeneratedClient {
${services.map(one => `  readonly ${property(one)}: ${one};\n`).join('')}
  constructor(readonly transport: Transport) {
${services.map(one => `    this.${property(one)} = new ${one}(transport);\n`).join('')}  }
}
`;
}

function index(models: string[], services: string[]): string {
  return `export { GeneratedClient } from './GeneratedClient.js';
export type { ApiRequestOptions } from './core/ApiRequestOptions.js';
export type { Transport } from './core/Transport.js';
${models.map(one => `export type { ${one} } from './models/${one}.js';\n`).join('')}${services.map(one => `export { ${one} } from './services/${one}.js';\n`).join('')}`;
}
