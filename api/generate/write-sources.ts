import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import type { FieldModel } from './read-fields.js';
import type { TypeModel } from './read-types.js';
import { routes, type Route } from './routes.js';

const banner = '// Written by `make generate` from the files in api/types. Not to be edited.\n';

/** Writes what tsoa reads (controllers and inputs) and what the core reads (type definitions) into `build`. */
export function writeSources(root: string, types: TypeModel[]): void {
  for (const folder of ['build/controllers', 'build/inputs']) mkdirSync(join(root, folder), { recursive: true });
  for (const type of types) {
    write(root, `build/inputs/${type.type}.ts`, input(root, type));
    write(root, `build/controllers/${type.type}.ts`, controller(type));
  }
  const files = types.map(({ type }) => `${type}.ts`);
  for (const folder of ['build/controllers', 'build/inputs']) {
    // Of types that are no more.
    const stale = readdirSync(join(root, folder)).filter(file => !files.includes(file));
    for (const file of stale) rmSync(join(root, folder, file));
  }
  write(root, 'build/types.ts', definitions(types));
}

function write(root: string, file: string, text: string): void {
  writeFileSync(join(root, file), `${banner}${text}`);
}

/** `ClusterInput`: the type as clients send it. Fields with a default may be left out. */
function input(root: string, type: TypeModel): string {
  const files = new Map<string, Set<string>>();
  for (const { name, file } of type.fields.flatMap(field => field.references)) {
    const names = files.get(file) ?? new Set();
    files.set(file, names.add(name));
  }
  const resource = join(root, 'api/resource.ts');
  const envelope = files.get(resource) ?? new Set();
  files.set(resource, envelope.add('ResourceInput').add('Page'));
  if (type.namespaced) envelope.add('NamespaceName');
  const imports = [...files]
    .map(([file, names]) => {
      const path = relative(join(root, 'build/inputs'), file).replace(/\.ts$/, '.js');
      return `import type { ${[...names].sort().join(', ')} } from '${path}';\n`;
    })
    .sort()
    .join('');
  const namespace = `
  /** The namespace that the object lies in. Left out: \`default\`. Never changes. */
  namespace?: NamespaceName;`;
  return `import type { ${type.kind} } from '../../api/types/${type.type}.js';
${imports}
/** ${type.description} As clients send it. */
export interface ${type.kind}Input extends ResourceInput {
  /** The type, as in the URL. */
  type?: '${type.type}';${type.namespaced ? namespace : ''}
${type.fields.map(field => inputField(field)).join('\n')}
}

/** One page of ${type.type}. */
export interface ${type.kind}List extends Page<${type.kind}> {}
`;
}

function inputField({ name, optional, text, doc, default: fallback }: FieldModel): string {
  const comment = doc === '' ? '' : `  ${doc}\n`;
  return `${comment}  ${name}${optional || fallback ? '?' : ''}: ${text};`;
}

/** A thin controller: tsoa cannot inherit routes, so each type has methods of its own, of one line each. */
function controller(type: TypeModel): string {
  const { kind, namespaced } = type;
  const all = routes(type);
  const decorators = [...new Set(all.map(route => route.method))];
  const queries = [...new Set(all.map(route => route.query))].sort();
  return `import { Body, ${decorators.join(', ')}, Path, Queries, Request, Response, Route, Tags } from '@tsoa/runtime';
import type express from 'express';
import type { ErrorBody } from '../../api/errors.js';
import type { Notice, NoticeInput, NoticeList } from '../../api/notice.js';
import type { Platform } from '../../api/platform.js';
import type { DeletionCount, ${queries.join(', ')} } from '../../api/queries.js';
import type { Revealed } from '../../api/resource.js';
import { ResourceController } from '../../api/resource-controller.js';
import type { ${kind} } from '../../api/types/${type.type}.js';
import type { ${kind}Input, ${kind}List } from '../inputs/${type.type}.js';
import { ${type.type} } from '../types.js';

@Route('v1/${type.type}')
@Tags('${type.type}')
@Response<ErrorBody>('default', 'An error')
export class ${kind}Controller extends ResourceController {
  constructor(platform: Platform) {
    super(platform, ${type.type});
  }
${all.map(route => method(route, namespaced)).join('')}}
`;
}

function method(route: Route, namespaced: boolean): string {
  const parameters = ['@Request() request: express.Request'];
  const args = ['request'];
  if (route.key) {
    if (namespaced) parameters.push('@Path() namespace: string');
    parameters.push('@Path() name: string');
    args.push(namespaced ? '{ namespace, name }' : `{ namespace: '', name }`);
  }
  if (route.body !== undefined) {
    parameters.push(`@Body() body: ${route.body}`);
    args.push('body');
  }
  parameters.push(`@Queries() query: ${route.query}`);
  if (route.query !== 'NoQuery') args.push('query');
  const responses = route.success.map(
    code => `  @Response<${route.returns}>(${code}, '${code === 201 ? 'Created' : 'OK'}')\n`,
  );
  return `
  /** @summary ${route.summary} */
  @${route.method}('${route.path}')
${responses.join('')}  public async ${route.operation}(${parameters.join(', ')}): Promise<void> {
    await this.${route.call}(${args.join(', ')});
  }
`;
}

function definitions(types: TypeModel[]): string {
  const imports = types
    .filter(type => type.rules)
    .map(({ type }) => `import { rules as ${type}Rules } from '../api/types/${type}.rules.js';\n`)
    .join('');
  const consts = types.map(type => {
    const { fields } = type;
    const definition = {
      type: type.type,
      kind: type.kind,
      namespaced: type.namespaced,
      description: type.description,
      fields: fields.map(field => field.name),
      secrets: fields.flatMap(field => (field.secret ? [{ field: field.name, map: field.secret.map }] : [])),
      immutable: fields.filter(field => field.immutable).map(field => field.name),
      indexes: fields.flatMap(field => (field.index ? [{ field: field.name, kind: field.index }] : [])),
      uniques: type.uniques,
      references: fields.flatMap(field => (field.ref ? [{ field: field.name, ...field.ref }] : [])),
      defaults: Object.fromEntries(fields.flatMap(field => (field.default ? [[field.name, field.default.value]] : []))),
      writer: type.writer,
      keepEvents: type.keepEvents,
      input: `${type.kind}Input`,
      status: type.status,
    };
    const text = JSON.stringify(definition, undefined, 2);
    const rules = type.rules ? `{ ...${text}, rules: ${type.type}Rules }` : text;
    return `export const ${type.type}: TypeDefinition = ${rules};\n`;
  });
  return `import type { TypeDefinition } from '../api/type-definition.js';
${imports}
${consts.join('\n')}
/** All types, by name. */
export const types: TypeDefinition[] = [${types.map(({ type }) => type).join(', ')}];
`;
}
