import ts from 'typescript';

/** One own field of a type. */
export interface FieldModel {
  name: string;
  optional: boolean;
  /** Its type as written. */
  text: string;
  /** Its doc comment as written; empty without one. */
  doc: string;
  /** Set for `@secret`: whether each value of a map is secret, or the field itself. */
  secret?: { map: boolean };
  immutable: boolean;
  /** Set for `@index`: how its values are ordered. */
  index?: 'text' | 'number';
  /** Set for `@unique`. */
  unique?: { everywhere: boolean };
  /** Set for `@ref`: the type, and what its removal does. */
  ref?: { target: string; onDelete: 'refuse' | 'cascade' | 'null' };
  /** The value of `@default`. */
  default?: { value: unknown };
  /** Types that it names, and the files that declare them. */
  references: { name: string; file: string }[];
  /** All types that it is made of, at any depth. */
  declarations: (ts.InterfaceDeclaration | ts.TypeAliasDeclaration)[];
}

const ownTags = ['secret', 'immutable', 'index', 'default', 'unique', 'ref'];
const validationTags =
  'isInt,isLong,isFloat,isDouble,isString,isBoolean,minimum,maximum,minLength,maxLength,minItems,maxItems,uniqueItems,pattern,format,example,deprecated'.split(
    ',',
  );

/** Reads one own field and checks it together with everything that its type is made of. */
export function readField(program: ts.Program, member: ts.PropertySignature): FieldModel {
  const checker = program.getTypeChecker();
  const source = member.getSourceFile();
  const name = member.name.getText();
  if (!ts.isIdentifier(member.name)) fail(source, member, `the field name ${name} is quoted`, 'use letters and digits');
  const node = member.type;
  if (!node) fail(source, member, `the field "${name}" has no type`, 'give it one');
  const tags = checkTags(member, [...ownTags, ...validationTags]);
  const references = new Map<string, string>();
  const seen = new Set<ts.Node>();
  follow(checker, node, references, seen);
  const map = isMapOfStrings(checker, node);
  if (tags.has('secret') && !map && !isString(checker, node)) {
    fail(source, member, `@secret on "${name}", which is no text`, 'a secret is a string or { [key: string]: string }');
  }
  for (const tag of ['index', 'default', 'unique', 'ref']) {
    if (tags.has('secret') && tags.has(tag)) {
      fail(
        source,
        member,
        `@${tag} on "${name}", which is a secret`,
        `take @${tag} away: secrets are neither compared nor given a default`,
      );
    }
  }
  const fallback = tags.get('default');
  const unique = tags.get('unique');
  const ref = tags.get('ref');
  return {
    name,
    optional: member.questionToken !== undefined,
    text: node.getText(),
    doc: docOf(member),
    ...(tags.has('secret') ? { secret: { map } } : {}),
    immutable: tags.has('immutable'),
    ...(tags.has('index') ? { index: indexKind(checker, member, name, node) } : {}),
    ...(unique === undefined ? {} : { unique: { everywhere: readSpace(member, unique) } }),
    ...(ref === undefined ? {} : { ref: readReference(checker, member, node, ref) }),
    ...(fallback === undefined ? {} : { default: { value: literal(member, name, fallback) } }),
    references: [...references].map(([name, file]) => ({ name, file })),
    declarations: [...seen].filter(one => ts.isInterfaceDeclaration(one) || ts.isTypeAliasDeclaration(one)),
  };
}

/** Refuses the file with a message of the form `file:line: what; remedy`. */
export function fail(source: ts.SourceFile, place: ts.Node | number | undefined, what: string, remedy: string): never {
  const position = typeof place === 'number' ? place : (place?.getStart(source) ?? 0);
  const file = source.fileName.slice(source.fileName.lastIndexOf('/api/') + 1);
  throw new Error(`${file}:${source.getLineAndCharacterOfPosition(position).line + 1}: ${what}; ${remedy}`);
}

/** The tags of a doc comment with their texts. */
export function tagsOf(node: ts.Node): Map<string, string> {
  return new Map(
    ts.getJSDocTags(node).map(tag => [tag.tagName.text, ts.getTextOfJSDocComment(tag.comment)?.trim() ?? '']),
  );
}

/** The text of a doc comment in front of its tags, on one line. */
export function textOf(node: ts.Node): string {
  const comment = ts.getJSDocCommentsAndTags(node).find(ts.isJSDoc)?.comment;
  return (ts.getTextOfJSDocComment(comment) ?? '').replace(/\s+/g, ' ').trim();
}

/** Reads `everywhere` (also when nothing is said) or `namespace`. */
export function readSpace(member: ts.Node, text: string): boolean {
  if (text === '' || text === 'everywhere') return true;
  if (text === 'namespace') return false;
  return fail(
    member.getSourceFile(),
    member,
    `@unique ${text} says no space`,
    'write "@unique everywhere" or "@unique namespace"',
  );
}

/** Reads `@ref clusters`, `@ref clusters cascade` or `@ref clusters null` and checks that the field can hold such a reference. */
function readReference(
  checker: ts.TypeChecker,
  member: ts.PropertySignature,
  node: ts.TypeNode,
  text: string,
): FieldModel['ref'] {
  const source = member.getSourceFile();
  const name = member.name.getText();
  const [, target, onDelete = 'refuse'] = /^([a-z]+)(?: +(refuse|cascade|null))?$/.exec(text) ?? [];
  if (target === undefined) {
    fail(
      source,
      member,
      `@ref ${text} says no type`,
      'write for example "@ref clusters", "@ref clusters cascade" or "@ref clusters null"',
    );
  }
  const type = checker.getTypeFromTypeNode(node);
  const list = ts.isArrayTypeNode(node);
  const element = list ? checker.getTypeFromTypeNode(node.elementType) : type;
  const inner = element.getProperty('name');
  const named = inner !== undefined && (checker.getTypeOfSymbol(inner).flags & ts.TypeFlags.StringLike) !== 0;
  if (!named && (element.flags & ts.TypeFlags.StringLike) === 0) {
    fail(
      source,
      member,
      `@ref on "${name}", which names nothing`,
      'a reference is a string, { name: string; namespace?: string }, or a list of these',
    );
  }
  if (onDelete === 'null' && !list && !member.questionToken) {
    fail(
      source,
      member,
      `@ref ${text} on "${name}", which is required`,
      'make it optional, or choose refuse or cascade',
    );
  }
  return { target, onDelete: onDelete === 'cascade' || onDelete === 'null' ? onDelete : 'refuse' };
}

function docOf(node: ts.Node): string {
  return ts.getJSDocCommentsAndTags(node).find(ts.isJSDoc)?.getText() ?? '';
}

function checkTags(member: ts.Node, allowed: string[]): Map<string, string> {
  const source = member.getSourceFile();
  const tags = tagsOf(member);
  for (const [tag, text] of tags) {
    if (ownTags.includes(tag) && !allowed.includes(tag)) {
      const remedy =
        tag === 'default'
          ? 'say in words what it means when it is left out'
          : `put @${tag} on the field of the type itself`;
      fail(source, member, `@${tag} works on the fields of a type only, not inside of them`, remedy);
    }
    if (!allowed.includes(tag)) {
      fail(
        source,
        member,
        `the tag @${tag} means nothing here`,
        `use one of ${allowed.map(one => `@${one}`).join(' ')}`,
      );
    }
    if (tag === 'pattern') checkPattern(member, text);
    if (/^(min|max)(imum|Length|Items)$/.test(tag) && !/^-?\d+(\.\d+)?( |$)/.test(text)) {
      fail(source, member, `@${tag} ${text} is no number`, `write for example "@${tag} 1"`);
    }
  }
  return tags;
}

// tsoa takes a pattern up to its first space, and what follows as the message for people: with a space in the pattern the
// rest is an invalid or a weaker expression. Anchors at both ends show that it is whole.
function checkPattern(member: ts.Node, text: string): void {
  const pattern = text.split(' ')[0] ?? '';
  const source = member.getSourceFile();
  try {
    new RegExp(pattern);
  } catch {
    fail(
      source,
      member,
      `@pattern ${pattern} is no regular expression`,
      'it ends at the first space; write a space as \\x20',
    );
  }
  if (!pattern.startsWith('^') || !pattern.endsWith('$')) {
    fail(
      source,
      member,
      `@pattern ${pattern} does not begin with ^ and end with $`,
      'it ends at the first space; write a space as \\x20',
    );
  }
}

function literal(member: ts.Node, name: string, text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return fail(
      member.getSourceFile(),
      member,
      `the @default of "${name}" is no JSON: ${text}`,
      'write texts in double quotes, for example @default "Upsert"',
    );
  }
}

/** Walks through a type and all that it names: direct names are collected, tags inside checked, what tsoa cannot follow refused. */
function follow(
  checker: ts.TypeChecker,
  node: ts.Node,
  references: Map<string, string> | undefined,
  seen: Set<ts.Node>,
): void {
  if (seen.has(node)) return;
  seen.add(node);
  const source = node.getSourceFile();
  if (
    ts.isMappedTypeNode(node) ||
    ts.isConditionalTypeNode(node) ||
    ts.isIndexedAccessTypeNode(node) ||
    ts.isTypeOperatorNode(node)
  ) {
    fail(
      source,
      node,
      `the type ${node.getText()} is computed`,
      'write its fields out: computed types lose their fields in the API',
    );
  }
  if (ts.isPropertySignature(node)) checkTags(node, validationTags);
  if (ts.isTypeAliasDeclaration(node)) checkTags(node, validationTags);
  if (ts.isTypeReferenceNode(node)) {
    const name = node.typeName.getText();
    if (name !== 'Array' && name !== 'Record') {
      const declaration = declarationOf(checker, node.typeName);
      if (!declaration) {
        fail(
          source,
          node,
          `the type ${name} is unknown`,
          'import it, or write its fields out (types like Partial and Omit lose theirs in the API)',
        );
      }
      if (!(ts.getCombinedModifierFlags(declaration) & ts.ModifierFlags.Export)) {
        fail(source, node, `the type ${name} is not exported`, 'export it: generated code imports it');
      }
      references?.set(name, declaration.getSourceFile().fileName);
      follow(checker, declaration, undefined, seen);
    }
  }
  if (ts.isExpressionWithTypeArguments(node)) {
    const declaration = declarationOf(checker, node.expression);
    if (declaration) follow(checker, declaration, undefined, seen);
  }
  ts.forEachChild(node, child => follow(checker, child, references, seen));
}

function declarationOf(
  checker: ts.TypeChecker,
  name: ts.Node,
): ts.InterfaceDeclaration | ts.TypeAliasDeclaration | undefined {
  const symbol = checker.getSymbolAtLocation(name);
  const target = symbol && symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol;
  return target?.declarations?.find(one => ts.isInterfaceDeclaration(one) || ts.isTypeAliasDeclaration(one));
}

/** Only single values can be found and ordered by an index. */
function indexKind(checker: ts.TypeChecker, member: ts.Node, name: string, node: ts.TypeNode): 'text' | 'number' {
  const type = checker.getTypeFromTypeNode(node);
  const parts = type.isUnion() ? type.types : [type];
  const are = (flags: ts.TypeFlags) => parts.every(part => (part.flags & flags) !== 0);
  if (are(ts.TypeFlags.NumberLike)) return 'number';
  if (are(ts.TypeFlags.StringLike) || are(ts.TypeFlags.BooleanLike)) return 'text';
  return fail(
    member.getSourceFile(),
    member,
    `@index on "${name}", which is no single value`,
    'index a field that is a text, a number or a boolean',
  );
}

function isString(checker: ts.TypeChecker, node: ts.TypeNode): boolean {
  return (checker.getTypeFromTypeNode(node).flags & ts.TypeFlags.String) !== 0;
}

function isMapOfStrings(checker: ts.TypeChecker, node: ts.TypeNode): boolean {
  const type = checker.getTypeFromTypeNode(node);
  const values = checker.getIndexInfosOfType(type)[0]?.type;
  return values !== undefined && (values.flags & ts.TypeFlags.String) !== 0 && type.getProperties().length === 0;
}
