import { expect } from 'chai';
import { join } from 'node:path';
import ts from 'typescript';

const root = join(import.meta.dirname, '..');
/** What package.json exports, as sources. */
const doors = ['client/index.ts', 'client/testing/index.ts', 'controllers/index.ts'];

/** What the doors of the package export, by name, without what is generated. */
function exported(): Map<string, ts.Declaration> {
  const { config } = ts.readConfigFile(join(root, 'tsconfig.json'), path => ts.sys.readFile(path));
  const { options } = ts.convertCompilerOptionsFromJson(config.compilerOptions, root);
  const program = ts.createProgram(
    doors.map(door => join(root, door)),
    { ...options, types: ['node'] },
  );
  const checker = program.getTypeChecker();
  const found = new Map<string, ts.Declaration>();
  for (const door of doors) {
    const source = program.getSourceFile(join(root, door));
    const module = source && checker.getSymbolAtLocation(source);
    for (const symbol of module ? checker.getExportsOfModule(module) : []) {
      const origin = symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol;
      const [declaration] = origin.declarations ?? [];
      if (declaration && !declaration.getSourceFile().fileName.includes('/generated/'))
        found.set(`${door}: ${symbol.name}`, declaration);
    }
  }
  return found;
}

const isDocumented = (node: ts.Node) => ts.getJSDocCommentsAndTags(node).length > 0;
const hasTag = (node: ts.Node, name: string) => ts.getJSDocTags(node).some(tag => tag.tagName.text === name);

/** Public methods of a class or interface, each once, by the declaration that has the comment. */
function methods(declaration: ts.Declaration): (ts.MethodDeclaration | ts.MethodSignature)[] {
  if (!ts.isClassDeclaration(declaration) && !ts.isInterfaceDeclaration(declaration)) return [];
  const all = [...declaration.members].filter(one => ts.isMethodDeclaration(one) || ts.isMethodSignature(one));
  const hidden = (method: ts.MethodDeclaration | ts.MethodSignature) =>
    ts.isPrivateIdentifier(method.name) ||
    hasTag(method, 'internal') ||
    (ts.getCombinedModifierFlags(method) & (ts.ModifierFlags.Private | ts.ModifierFlags.Protected)) !== 0;
  const names = new Set<string>();
  return all.filter(method => !hidden(method) && !names.has(method.name.getText()) && names.add(method.name.getText()));
}

describe('what the package exports', function () {
  this.timeout(120_000);
  let all: Map<string, ts.Declaration>;

  before(() => {
    all = exported();
    expect(all.size).to.be.greaterThan(50);
  });

  it('says of everything what it is', () => {
    const bare = [...all].flatMap(([name, declaration]) => [
      ...(isDocumented(declaration) ? [] : [name]),
      ...methods(declaration).flatMap(method =>
        isDocumented(method) || hasTag(declaration, 'example') ? [] : [`${name}.${method.name.getText()}`],
      ),
    ]);
    expect(bare).to.deep.equal([]);
  });

  it('shows every function and method in use: itself, or where its class does', () => {
    const unseen = [...all].flatMap(([name, declaration]) => {
      if (hasTag(declaration, 'example')) return [];
      if (ts.isFunctionDeclaration(declaration)) return [name];
      const lacking = methods(declaration).filter(method => !hasTag(method, 'example'));
      return lacking.map(method => `${name}.${method.name.getText()}`);
    });
    expect(unseen).to.deep.equal([]);
  });
});
