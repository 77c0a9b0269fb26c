import { ExpressTemplateService, type TsoaRoute } from '@tsoa/runtime';
import { models } from '../build/models.js';
import { types } from '../build/types.js';
import { checkInput } from './input.js';
import { isObject } from './json.js';
import { check, InvalidArguments, type FieldError } from './validation.js';

const inputs = new Map(types.map(type => [type.input, type]));

type Arguments = Parameters<ExpressTemplateService['getValidatedArgs']>[0];

/** What the generated routes check the arguments of a method with, in place of tsoa's own service: see validation.ts. */
export class RouteChecks extends ExpressTemplateService {
  constructor() {
    super(models, { noImplicitAdditionalProperties: 'throw-on-extras', bodyCoercion: false });
  }

  override getValidatedArgs({ args, request }: Arguments): unknown[] {
    const errors: FieldError[] = [];
    const values = Object.values(args).map((arg): unknown => {
      if (arg.in === 'request') return request;
      if (arg.in === 'path') {
        refuseNul(arg.name, request.params[arg.name], errors);
        return request.params[arg.name];
      }
      if (arg.in === 'queries') return readQuery(arg, request.query, errors);
      if (arg.in !== 'body') throw new Error(`parameters in ${arg.in} have no check`);
      const body: unknown = request.body;
      const type = inputs.get(arg.ref ?? '');
      if (type && isObject(body)) errors.push(...checkInput(type, body));
      else check(arg, body, '', errors);
      return body;
    });
    if (errors.length > 0) throw new InvalidArguments(errors);
    return values;
  }
}

/** Query parameters are texts: numbers and truth values are read from them, then all are checked. */
function readQuery(arg: TsoaRoute.ParameterSchema, query: Record<string, unknown>, errors: FieldError[]): unknown {
  const model = models[arg.ref ?? ''];
  const fields = model?.dataType === 'refObject' ? model.properties : {};
  const values = Object.fromEntries(
    Object.entries(query).map(([name, value]) => [
      name,
      typeof value === 'string' ? fromText(fields[name]?.dataType, value) : value,
    ]),
  );
  for (const [name, value] of Object.entries(query)) refuseNul(name, value, errors);
  const found: FieldError[] = [];
  check(arg, values, '', found);
  for (const { path, message, unknown } of found) {
    const parameter = path.replace(/\[.*/, '');
    const twice = Array.isArray(values[parameter]);
    errors.push({
      path: parameter,
      message: twice && !unknown ? 'must be given only once' : message,
      ...(unknown ? { unknown } : {}),
      query: true,
    });
  }
  return values;
}

// Postgres refuses NUL in a text, and with it all reads that share the statement.
function refuseNul(name: string, value: unknown, errors: FieldError[]): void {
  if (typeof value === 'string' && value.includes('\0'))
    errors.push({ path: name, message: 'holds a NUL character (%00); remove it', query: true });
}

function fromText(dataType: string | undefined, text: string): unknown {
  if (dataType === 'integer' && /^-?\d+$/.test(text)) return Number(text);
  if (dataType === 'boolean') return { true: true, '1': true, false: false, '0': false }[text] ?? text;
  return text;
}
