import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { basename, join, relative } from 'node:path';
import ts from 'typescript';
import { fail, readField, readSpace, tagsOf, textOf, type FieldModel } from './read-fields.js';

/** A type file as the generator understands it. */
export interface TypeModel {
  type: string;
  kind: string;
  namespaced: boolean;
  description: string;
  writer?: string;
  keepEvents?: string;
  /** Own fields, those of further interfaces that it extends included, in the order of their declaration. */
  fields: FieldModel[];
  /** From `@unique`, of the type and of its fields. */
  uniques: { fields: string[]; everywhere: boolean }[];
  /** The name of the status interface. */
  status?: string;
  /** Whether there is a file of rules beside the type file: `api/types/widgets.rules.ts`. */
  rules: boolean;
  declaration: ts.InterfaceDeclaration;
}

const sharedFiles = ['api/resource.ts', 'api/queries.ts', 'api/notice.ts'];

// Routes and tables of the platform itself. A type of such a name would shadow them, or be shadowed.
const routeWords =
  'batch,checkpoints,claims,controllers,docs,events,garbage,healthz,import,kube,metadata,metrics,namespaces,notices,objects,openapi,readyz,reveal,status,types,watch,work'.split(
    ',',
  );

// Names that generated code uses itself.
const usedNames =
  'Body,Delete,Get,NoticeInput,Notice,NoticeList,OperationId,Patch,Path,Platform,Post,Put,Queries,Request,ResourceController,Response,Revealed,Route,Tags'.split(
    ',',
  );

/**
 * Reads the type files in `api/types` below the root. Throws an error that names file, line, what is wrong and the remedy for
 * whatever would give a broken or surprising API.
 */
export function readTypes(root: string): TypeModel[] {
  const folder = join(root, 'api/types');
  const names = readdirSync(folder)
    .filter(file => file.endsWith('.ts') && !file.endsWith('.test.ts'))
    .sort();
  const files = names.filter(file => !file.endsWith('.rules.ts')).map(file => join(folder, file));
  for (const file of names.filter(file => file.endsWith('.rules.ts'))) checkRules(join(folder, file));
  const options: ts.CompilerOptions = {
    noLib: true,
    strict: true,
    target: ts.ScriptTarget.ES2022,
    module: ts.ModuleKind.NodeNext,
    types: [],
  };
  // Neither the standard library nor packages are read, it would take ten times as long: models are made of our own files.
  const host = ts.createCompilerHost(options);
  host.resolveModuleNameLiterals = (literals, file) =>
    literals.map(({ text }) =>
      text.startsWith('.') ? ts.resolveModuleName(text, file, options, host) : { resolvedModule: undefined },
    );
  const program = ts.createProgram([...files, ...sharedFiles.map(file => join(root, file))], options, host);
  const types = files.map(file => readType(program, root, file));
  checkNames(program, root, types);
  checkTargets(types);
  return types;
}

function readType(program: ts.Program, root: string, file: string): TypeModel {
  const source = program.getSourceFile(file);
  if (!source) throw new Error(`${file} cannot be read`);
  const syntax = program.getSyntacticDiagnostics(source)[0];
  if (syntax) {
    fail(source, syntax.start, ts.flattenDiagnosticMessageText(syntax.messageText, ' '), 'correct the syntax');
  }
  const checker = program.getTypeChecker();
  const type = basename(file, '.ts');
  if (!/^[a-z]{2,40}$/.test(type) || !type.endsWith('s')) {
    fail(
      source,
      0,
      `the file name ${basename(file)} is no plural in lower-case letters`,
      'rename it, for example to widgets.ts; route and table are named after it',
    );
  }
  if (routeWords.includes(type)) {
    fail(source, 0, `"${type}" is a word of the API's routes`, 'choose another name for the type');
  }
  const code = source.statements.find(one => ts.isVariableStatement(one) || ts.isFunctionDeclaration(one));
  if (code) {
    fail(
      source,
      code,
      'a type file holds interfaces and types only',
      `put code into ${basename(rulesOf(file))} beside it`,
    );
  }
  const interfaces = source.statements.filter(ts.isInterfaceDeclaration);
  const resources = interfaces.filter(one => parents(one).some(parent => parent.getText() === 'Resource'));
  const [declaration, second] = resources;
  if (!declaration) {
    fail(source, 0, 'no interface extends Resource', 'declare one: export interface Widget extends Resource { … }');
  }
  if (second) {
    fail(source, second.name, `a second interface (${second.name.text}) extends Resource`, 'keep one type per file');
  }
  const kind = declaration.name.text;
  if (!isExported(declaration)) fail(source, declaration.name, `${kind} is not exported`, 'export it');
  const singular = kind.toLowerCase();
  if (![`${singular}s`, `${singular}es`, singular.replace(/y$/, 'ies')].includes(type)) {
    fail(
      source,
      declaration.name,
      `the file ${type}.ts holds an interface ${kind}`,
      `name the file after the plural of the interface, in lower case`,
    );
  }
  if (usedNames.includes(kind)) {
    fail(source, declaration.name, `generated code uses the name ${kind} itself`, 'choose another name');
  }
  const tags = tagsOf(declaration);
  const unknown = [...tags.keys()].find(
    tag => !['scope', 'writer', 'keepEvents', 'unique', 'example', 'deprecated'].includes(tag),
  );
  if (unknown !== undefined) {
    fail(
      source,
      declaration.name,
      `the tag @${unknown} means nothing on a type`,
      'use @scope, @writer, @keepEvents or @unique',
    );
  }
  const scope = tags.get('scope');
  if (scope !== 'namespaced' && scope !== 'cluster') {
    fail(
      source,
      declaration.name,
      `${kind} has no scope`,
      'add "@scope namespaced" or "@scope cluster" to its doc comment',
    );
  }
  const keepEvents = tags.get('keepEvents');
  if (keepEvents !== undefined && !/^\d+ (minutes?|hours?|days?)$/.test(keepEvents)) {
    fail(
      source,
      declaration.name,
      `@keepEvents ${keepEvents} is no interval`,
      'write for example "@keepEvents 1 hour"',
    );
  }
  const writer = tags.get('writer');
  if (writer !== undefined && !/^[a-z][a-z0-9-]*$/.test(writer)) {
    fail(
      source,
      declaration.name,
      `@writer ${writer} is no name of a controller`,
      'write for example "@writer clustersync"',
    );
  }
  const envelope = envelopeNames(program, root);
  const members = checker
    .getTypeAtLocation(declaration)
    .getProperties()
    .flatMap(property => property.declarations ?? [])
    .filter(ts.isPropertySignature)
    .filter(member => !isEnvelope(member, root));
  const own = members.filter(member => member.name.getText() !== 'status');
  const clash = own.find(member => envelope.has(member.name.getText()));
  if (clash) {
    fail(
      clash.getSourceFile(),
      clash,
      `the field "${clash.name.getText()}" belongs to every resource already`,
      'choose another name',
    );
  }
  const status = members.find(member => member.name.getText() === 'status');
  if (status && !(status.questionToken && status.type && ts.isTypeReferenceNode(status.type))) {
    fail(source, status, 'the status must be optional and an interface of its own', `write "status?: ${kind}Status;"`);
  }
  const fields = own.map(member => readField(program, member));
  return {
    type,
    kind,
    namespaced: scope === 'namespaced',
    description: textOf(declaration),
    ...(writer === undefined ? {} : { writer }),
    ...(keepEvents === undefined ? {} : { keepEvents }),
    declaration,
    fields,
    uniques: readUniques(declaration, fields),
    ...(status?.type ? { status: status.type.getText() } : {}),
    rules: existsSync(rulesOf(file)),
  };
}

function rulesOf(file: string): string {
  return file.replace(/\.ts$/, '.rules.ts');
}

/** A file of rules belongs to a type and exports them under the name that generated code looks for. */
function checkRules(file: string): void {
  // Parsed only: what it imports, such as the server's own code, is no matter of the models.
  const source = ts.createSourceFile(file, readFileSync(file, 'utf8'), ts.ScriptTarget.ES2022, true);
  const type = file.replace(/\.rules\.ts$/, '.ts');
  if (!existsSync(type))
    fail(source, 0, `there is no type file ${basename(type)}`, 'name it after its type, or remove it');
  const found = source.statements.some(
    one =>
      ts.isVariableStatement(one) &&
      isExported(one) &&
      one.declarationList.declarations.some(variable => variable.name.getText() === 'rules'),
  );
  if (!found)
    fail(
      source,
      0,
      'it exports no rules',
      'write "export const rules: Rule<…>[] = [ … ];", with Rule of api/admission.ts',
    );
}

/** `@unique` of fields, and those of the type: `@unique namespace: size, colour`. A type may have several. */
function readUniques(declaration: ts.InterfaceDeclaration, fields: FieldModel[]): TypeModel['uniques'] {
  const single = fields.flatMap(({ name, unique }) => (unique ? [{ fields: [name], ...unique }] : []));
  const source = declaration.getSourceFile();
  const several = ts
    .getJSDocTags(declaration)
    .filter(tag => tag.tagName.text === 'unique')
    .map(tag => {
      const text = ts.getTextOfJSDocComment(tag.comment)?.trim() ?? '';
      const [, space = '', list = ''] = /^(?:(\w+)\s*:)?\s*(.*)$/s.exec(text) ?? [];
      const names = list.split(/[\s,]+/).filter(Boolean);
      if (names.length === 0) {
        fail(source, tag, '@unique of a type names no fields', 'write for example "@unique namespace: size, colour"');
      }
      for (const name of names) {
        const field = fields.find(one => one.name === name);
        if (!field) fail(source, tag, `@unique names "${name}", which is no field`, 'name fields of the type itself');
        if (field.secret) fail(source, tag, `@unique names "${name}", which is a secret`, 'secrets are not compared');
      }
      return { fields: names, everywhere: readSpace(tag, space) };
    });
  return [...single, ...several];
}

/** References lead to types that there are, and say the same of a cluster-wide one. */
function checkTargets(types: TypeModel[]): void {
  const known = new Set(types.map(({ type }) => type));
  for (const { declaration, fields } of types) {
    for (const { name, ref } of fields) {
      if (ref && !known.has(ref.target)) {
        const source = declaration.getSourceFile();
        fail(
          source,
          declaration,
          `@ref ${ref.target} on "${name}" leads to no type`,
          `there are ${[...known].join(', ')}`,
        );
      }
    }
  }
}

/** tsoa knows models by their names alone: two of one name would be mixed up, or refused without a place. */
function checkNames(program: ts.Program, root: string, types: TypeModel[]): void {
  const shared = sharedFiles.flatMap(file => program.getSourceFile(join(root, file))?.statements ?? []);
  const declarations = [
    ...shared.filter(isModel),
    ...types.flatMap(type => [type.declaration, ...type.fields.flatMap(field => field.declarations)]),
  ];
  const seen = new Map<string, ts.Node>();
  for (const declaration of declarations) {
    const name = declaration.name.text;
    const other = seen.get(name);
    seen.set(name, declaration);
    if (other === undefined || other === declaration) continue;
    const file = relative(root, other.getSourceFile().fileName);
    fail(declaration.getSourceFile(), declaration.name, `the name ${name} is taken by ${file}`, 'choose another name');
  }
  for (const { type, kind } of types) {
    for (const name of [`${kind}Input`, `${kind}List`, `${kind}StatusInput`, `${kind}Event`]) {
      const other = seen.get(name);
      if (other)
        fail(
          other.getSourceFile(),
          other,
          `${name} is what the generator makes of api/types/${type}.ts`,
          'choose another name',
        );
    }
  }
}

function isModel(node: ts.Node): node is ts.InterfaceDeclaration | ts.TypeAliasDeclaration {
  return ts.isInterfaceDeclaration(node) || ts.isTypeAliasDeclaration(node);
}

function parents(declaration: ts.InterfaceDeclaration): ts.ExpressionWithTypeArguments[] {
  return (declaration.heritageClauses ?? []).flatMap(clause => [...clause.types]);
}

function isExported(node: ts.Node): boolean {
  return (
    ts.canHaveModifiers(node) && (ts.getModifiers(node) ?? []).some(one => one.kind === ts.SyntaxKind.ExportKeyword)
  );
}

function isEnvelope(member: ts.PropertySignature, root: string): boolean {
  return member.getSourceFile().fileName === join(root, 'api/resource.ts');
}

function envelopeNames(program: ts.Program, root: string): Set<string> {
  const source = program.getSourceFile(join(root, 'api/resource.ts'));
  const declarations = source?.statements.filter(ts.isInterfaceDeclaration) ?? [];
  const checker = program.getTypeChecker();
  return new Set(
    declarations
      .filter(one => ['Resource', 'ResourceInput'].includes(one.name.text))
      .flatMap(one =>
        checker
          .getTypeAtLocation(one)
          .getProperties()
          .map(property => property.name),
      )
      .filter(name => name !== 'status'),
  );
}
