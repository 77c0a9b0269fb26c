import { expect } from 'chai';
import { cpSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { readTypes } from './read-types.js';

const api = join(import.meta.dirname, '..');
const importing = `import type { Resource } from '../resource.js';\n`;

describe('reading type files', () => {
  let root: string;

  beforeEach(() => {
    root = mkdtempSync(join(tmpdir(), 'types-'));
    mkdirSync(join(root, 'api/types'), { recursive: true });
    for (const file of ['resource.ts', 'queries.ts', 'notice.ts']) cpSync(join(api, file), join(root, 'api', file));
  });
  afterEach(() => rmSync(root, { recursive: true }));

  const read = (text: string, file = 'widgets.ts') => {
    writeFileSync(join(root, 'api/types', file), `${importing}${text}`);
    return readTypes(root);
  };
  const widget = (fields: string, tags = '@scope namespaced') =>
    `/**\n * A thing.\n * ${tags}\n */\nexport interface Widget extends Resource {\n${fields}\n}\n`;

  it('finds everything that a type says', () => {
    writeFileSync(
      join(root, 'api/shape.ts'),
      `export interface Shape { /** @minimum 1 */ sides?: number }\nexport interface Sized { size: number }\n`,
    );
    const [type] = read(
      `import type { Shape, Sized } from '../shape.js';\n/** A thing\n * of two lines.\n * @scope cluster\n * @writer maker\n * @keepEvents 1 hour\n */
      export interface Widget extends Resource, Sized {
        /** @secret */
        key?: string;
        /** @secret */
        keys?: { [key: string]: string };
        /** @immutable */
        shape: Shape;
        /** @default "red"\n * @index */
        colour?: 'red' | 'blue';
        status?: WidgetStatus;
      }
      export interface WidgetStatus { ready: boolean }\n`,
    );
    const { declaration, fields, ...rest } = type ?? expect.fail();
    expect(declaration.name.text).to.equal('Widget');
    expect(rest).to.deep.equal({
      type: 'widgets',
      kind: 'Widget',
      namespaced: false,
      description: 'A thing of two lines.',
      writer: 'maker',
      keepEvents: '1 hour',
      status: 'WidgetStatus',
      uniques: [],
      rules: false,
    });
    expect(fields.map(field => field.name)).to.have.members(['key', 'keys', 'shape', 'colour', 'size']);
    const byName = Object.fromEntries(fields.map(field => [field.name, field]));
    expect(byName['key']?.secret).to.deep.equal({ map: false });
    expect(byName['keys']?.secret).to.deep.equal({ map: true });
    expect(byName['shape']).to.include({ immutable: true, optional: false, text: 'Shape' });
    expect(byName['shape']?.references).to.deep.equal([{ name: 'Shape', file: join(root, 'api/shape.ts') }]);
    expect(byName['colour']).to.deep.include({ index: 'text', default: { value: 'red' } });
  });

  it('finds the file of rules beside a type', () => {
    const file = join(root, 'api/types/widgets.rules.ts');
    writeFileSync(file, 'export const rules = [];\n');
    expect(read(widget('')).map(type => type.rules)).to.deep.equal([true]);
    writeFileSync(file, 'const rules = [];\n');
    expect(() => read(widget(''))).to.throw(/^api\/types\/widgets\.rules\.ts:1: it exports no rules; write/);
    renameSync(file, join(root, 'api/types/gadgets.rules.ts'));
    expect(() => read(widget(''))).to.throw(/gadgets\.rules\.ts:1: there is no type file gadgets\.ts; name it/);
  });

  it('reads what binds objects to each other', () => {
    writeFileSync(
      join(root, 'api/types/boxes.ts'),
      `${importing}/** A box.\n * @scope namespaced */ export interface Box extends Resource { kind?: string }`,
    );
    const types = read(
      `/**\n * A thing.\n * @scope namespaced\n * @unique namespace: shelf, place\n * @unique shelf colour\n */
      export interface Widget extends Resource {
        /** @unique */
        serial?: string;
        /** @unique namespace */
        shelf: string;
        place: number;
        colour?: string;
        /** @ref boxes */
        box: string;
        /** @ref boxes null */
        lid?: { name: string; namespace?: string };
        /** @ref boxes cascade */
        more?: string[];
      }\n`,
    );
    const widgets = types.find(({ type }) => type === 'widgets');
    expect(widgets?.uniques).to.deep.equal([
      { fields: ['serial'], everywhere: true },
      { fields: ['shelf'], everywhere: false },
      { fields: ['shelf', 'place'], everywhere: false },
      { fields: ['shelf', 'colour'], everywhere: true },
    ]);
    expect(widgets?.fields.flatMap(({ name, ref }) => (ref ? [[name, ref.onDelete]] : []))).to.deep.equal([
      ['box', 'refuse'],
      ['lid', 'null'],
      ['more', 'cascade'],
    ]);
  });

  const refused: [title: string, text: string, message: RegExp, file?: string][] = [
    [
      'a field of the envelope',
      widget('  labels?: string;'),
      /^api\/types\/widgets\.ts:7: the field "labels" belongs to every resource already; choose/,
    ],
    [
      'a word of the routes as a name',
      widget(''),
      /^api\/types\/controllers\.ts:1: "controllers" is a word of the API's routes; choose/,
      'controllers.ts',
    ],
    [
      'a file name in capitals',
      widget(''),
      /^api\/types\/Widgets\.ts:1: the file name Widgets\.ts is no plural in lower-case letters; rename/,
      'Widgets.ts',
    ],
    ['a file name in the singular', widget(''), /the file name widget\.ts is no plural/, 'widget.ts'],
    [
      'a file name of another type',
      widget(''),
      /gadgets\.ts:6: the file gadgets\.ts holds an interface Widget; name the file/,
      'gadgets.ts',
    ],
    [
      'no resource',
      'export interface Widget { a: string }',
      /widgets\.ts:1: no interface extends Resource; declare one/,
    ],
    [
      'two resources',
      `${widget('')}\nexport interface Gadget extends Resource {}`,
      /widgets\.ts:10: a second interface \(Gadget\) extends Resource; keep/,
    ],
    ['an interface that is not exported', widget('').replace('export ', ''), /Widget is not exported; export it/],
    [
      'a missing scope',
      widget('', ''),
      /widgets\.ts:6: Widget has no scope; add "@scope namespaced" or "@scope cluster"/,
    ],
    ['an unknown scope', widget('', '@scope global'), /Widget has no scope/],
    [
      'an unknown tag on a type',
      widget('', '@scope cluster\n * @scoope x'),
      /the tag @scoope means nothing on a type; use @scope/,
    ],
    [
      'an interval that is none',
      widget('', '@scope cluster\n * @keepEvents soon'),
      /@keepEvents soon is no interval; write/,
    ],
    [
      'a secret number',
      widget('  /** @secret */\n  pin?: number;'),
      /widgets\.ts:8: @secret on "pin", which is no text; a secret is/,
    ],
    [
      'a secret with an index',
      widget('  /** @secret\n   * @index */\n  pin?: string;'),
      /@index on "pin", which is a secret; take/,
    ],
    [
      'an index on a list',
      widget('  /** @index */\n  sizes?: number[];'),
      /widgets\.ts:8: @index on "sizes", which is no single value; index a field/,
    ],
    [
      'a unique secret',
      widget('  /** @secret\n   * @unique */\n  pin?: string;'),
      /@unique on "pin", which is a secret; take/,
    ],
    [
      'a unique rule over a field that is not there',
      widget('  size?: number;', '@scope cluster\n * @unique size, colour'),
      /@unique names "colour", which is no field; name fields/,
    ],
    [
      'a unique rule over no space',
      widget('  /** @unique here */\n  a?: string;'),
      /@unique here says no space; write/,
    ],
    [
      'a reference to no type',
      widget('  /** @ref boxes */\n  a?: string;'),
      /@ref boxes on "a" leads to no type; there/,
    ],
    [
      'a reference that is no name',
      widget('  /** @ref widgets */\n  a?: number;'),
      /which names nothing; a reference is/,
    ],
    [
      'a required reference that would be removed',
      widget('  /** @ref widgets null */\n  a: string;'),
      /@ref widgets null on "a", which is required; make it optional/,
    ],
    [
      'an unknown tag on a field',
      widget('  /** @minimun 3 */\n  size?: number;'),
      /widgets\.ts:8: the tag @minimun means nothing here; use one of @secret/,
    ],
    [
      'a secret inside of a field',
      widget('  /** x */\n  a?: {\n    /** @secret */\n    b?: string;\n  };'),
      /@secret works on the fields of a type only, not inside of them; put/,
    ],
    [
      'a default inside of a field',
      widget('  /** x */\n  a?: {\n    /** @default 1 */\n    b?: number;\n  };'),
      /@default works on the fields of a type only, not inside of them; say in words/,
    ],
    [
      'a pattern with a space',
      widget('  /** @pattern ^[a-z ]+$ */\n  a?: string;'),
      /@pattern \^\[a-z is no regular expression; it ends at the first space; write a space as \\x20/,
    ],
    [
      'a pattern cut to a weaker one',
      widget('  /** @pattern ^a b$ */\n  a?: string;'),
      /@pattern \^a does not begin with \^ and end with \$; it ends at the first space/,
    ],
    [
      'a limit that is no number',
      widget('  /** @minLength one */\n  a?: string;'),
      /@minLength one is no number; write/,
    ],
    [
      'a default that is no JSON',
      widget('  /** @default red */\n  a?: string;'),
      /the @default of "a" is no JSON: red; write texts in double quotes/,
    ],
    [
      'a computed type',
      widget('  a?: Partial<Widget>;'),
      /the type Partial is unknown; import it, or write its fields out/,
    ],
    ['a mapped type', widget(`  a?: { [K in 'x' | 'y']: string };`), /is computed; write its fields out/],
    [
      'a type that is not exported',
      `${widget('  a?: Inner;')}\ninterface Inner { b: string }`,
      /widgets\.ts:7: the type Inner is not exported; export it/,
    ],
    [
      'a status inline',
      widget('  status?: { ready: boolean };'),
      /the status must be optional and an interface of its own; write "status\?: WidgetStatus;"/,
    ],
    [
      'a name that another file has',
      `${widget('  a?: Pause;')}\nexport interface Pause { b: string }`,
      /widgets\.ts:10: the name Pause is taken by api\/resource\.ts; choose/,
    ],
    [
      'a name that generation makes',
      `${widget('  a?: WidgetInput;')}\nexport interface WidgetInput { b: string }`,
      /WidgetInput is what the generator makes of api\/types\/widgets\.ts; choose/,
    ],
    [
      'a name that generated code uses',
      `/** @scope cluster */\nexport interface Route extends Resource {}`,
      /generated code uses the name Route itself; choose/,
      'routes.ts',
    ],
    [
      'code in a type file',
      `${widget('')}\nexport const rules = [];`,
      /widgets\.ts:10: a type file holds interfaces and types only; put code into widgets\.rules\.ts/,
    ],
    ['broken syntax', widget('  a?: {'), /^api\/types\/widgets\.ts:\d+: .*; correct the syntax/],
  ];
  for (const [title, text, message, file] of refused) {
    it(`refuses ${title}`, () => expect(() => read(text, file)).to.throw(message));
  }
});
