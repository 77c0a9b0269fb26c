import { Ajv, type ValidateFunction } from 'ajv';
import formats from 'ajv-formats';

/** A schema of the document, with what is looked at here. */
export interface Schema {
  $ref?: string;
  type?: string;
  enum?: unknown[];
  example?: unknown;
  format?: string;
  pattern?: string;
  minLength?: number;
  maxLength?: number;
  minimum?: number;
  maximum?: number;
  minItems?: number;
  maxItems?: number;
  uniqueItems?: boolean;
  nullable?: boolean;
  readOnly?: boolean;
  items?: Schema;
  properties?: Record<string, Schema>;
  required?: string[];
  additionalProperties?: boolean | Schema;
  allOf?: Schema[];
  anyOf?: Schema[];
  oneOf?: Schema[];
}

export interface Parameter {
  name: string;
  in: 'header' | 'path' | 'query';
  required?: boolean;
  schema: Schema;
  example?: unknown;
}

export interface MediaType {
  schema?: Schema;
  example?: unknown;
  examples?: Record<string, { value: unknown }>;
  /** The model of each line, where the body is a stream of lines. */
  'x-line'?: Schema;
}

export interface Header {
  required?: boolean;
  schema: Schema;
}

export interface Response {
  headers: Record<string, Header>;
  content: Record<string, MediaType>;
}

/** One method of one path, without references at its surface. */
export interface Operation {
  id: string;
  method: string;
  path: string;
  parameters: Parameter[];
  /** Whether the body must be there, and what it may be, by media type; undefined: it takes none. */
  body: { required: boolean; content: Record<string, MediaType> } | undefined;
  /** By status code. */
  responses: Record<string, Response>;
}

type Node = Record<string, unknown>;

/** An OpenAPI document, as the server shows it, and all that can be checked by it alone. */
export class ApiDocument {
  readonly operations: Operation[];
  readonly #root: Node;
  readonly #answers = new Ajv({ strict: false, allErrors: true });
  readonly #requests = new Ajv({ strict: false, allErrors: false });
  readonly #validators = new Map<string, ValidateFunction>();

  constructor(json: unknown) {
    this.#root = asNode(json);
    for (const ajv of [this.#answers, this.#requests]) formats.default(ajv);
    const components = JSON.stringify({ $id: 'document', components: this.#root['components'] });
    this.#answers.addSchema(JSON.parse(components) as object, undefined, false, false);
    this.#requests.addSchema(JSON.parse(components, withoutReadOnly) as object, undefined, false, false);
    this.operations = Object.entries(asNode(this.#root['paths'])).flatMap(([path, item]) =>
      Object.entries(asNode(item)).map(([method, operation]) => this.#operation(path, method, asNode(operation))),
    );
  }

  /** What is wrong with a value that the server sent. */
  answerErrors(schema: Schema, value: unknown): string[] {
    const validate = this.#validator('answer', schema);
    if (validate(value)) return [];
    return (validate.errors ?? []).map(error => `${error.instancePath} ${error.message ?? ''}`);
  }

  /** Whether a value may be sent. Fields that are read-only have no part in it: they may be sent back and are ignored. */
  mayBeSent(schema: Schema, value: unknown): boolean {
    return this.#validator('request', schema)(value);
  }

  /** A schema with its references and parts (`allOf`) put together, as far as its surface goes. */
  flat(schema: Schema): Schema {
    if (schema.$ref !== undefined) return this.flat(this.#resolve(schema));
    if (!schema.allOf) return schema;
    const { allOf, ...rest } = schema;
    return allOf.map(part => this.flat(part)).reduce(merged, rest);
  }

  #validator(side: 'answer' | 'request', schema: Schema): ValidateFunction {
    const key = side + JSON.stringify(schema);
    const known = this.#validators.get(key);
    if (known) return known;
    const absolute = JSON.parse(
      JSON.stringify(schema).replaceAll('"#/components/', '"document#/components/'),
    ) as object;
    const validate =
      side === 'answer'
        ? this.#answers.compile(absolute)
        : this.#requests.compile(JSON.parse(JSON.stringify(absolute), withoutReadOnly) as object);
    this.#validators.set(key, validate);
    return validate;
  }

  #operation(path: string, method: string, operation: Node): Operation {
    const body = operation['requestBody'] === undefined ? undefined : this.#resolve(operation['requestBody']);
    const responses = Object.entries(asNode(operation['responses'])).map(([code, given]): [string, Response] => {
      const { headers = {}, content = {} } = this.#resolve(given);
      const all = Object.entries(asNode(headers)).map(([name, header]) => [name, this.#resolve(header)]);
      return [
        code,
        { headers: Object.fromEntries(all) as Response['headers'], content: content as Response['content'] },
      ];
    });
    const parameters = (operation['parameters'] ?? []) as unknown[];
    return {
      id: String(operation['operationId']),
      method: method.toUpperCase(),
      path,
      parameters: parameters.map(one => parameterOf(this.#resolve(one))),
      body: body && { required: body['required'] === true, content: body['content'] as Record<string, MediaType> },
      responses: Object.fromEntries(responses),
    };
  }

  #resolve(given: unknown): Node {
    const node = asNode(given);
    const reference = node['$ref'];
    if (typeof reference !== 'string') return node;
    return this.#resolve(
      reference
        .slice(2)
        .split('/')
        .reduce<unknown>((at, part) => asNode(at)[part], this.#root),
    );
  }
}

function parameterOf({ name, in: place, required, schema, example }: Node): Parameter {
  if (typeof name !== 'string') throw new TypeError('a parameter has no name');
  if (place !== 'header' && place !== 'path' && place !== 'query') {
    throw new TypeError(`the parameter ${name} is in no place that requests have: ${JSON.stringify(place)}`);
  }
  if (required !== undefined && typeof required !== 'boolean') {
    throw new TypeError(`whether the parameter ${name} is required: ${JSON.stringify(required)}`);
  }
  return {
    name,
    in: place,
    schema: asNode(schema),
    ...(required === undefined ? {} : { required }),
    ...(example === undefined ? {} : { example }),
  };
}

function merged(one: Schema, other: Schema): Schema {
  return {
    ...one,
    ...other,
    properties: { ...one.properties, ...other.properties },
    required: [...(one.required ?? []), ...(other.required ?? [])],
  };
}

function withoutReadOnly(_name: string, value: unknown): unknown {
  return typeof value === 'object' && value !== null && 'readOnly' in value && value.readOnly === true ? {} : value;
}

function asNode(value: unknown): Node {
  if (typeof value !== 'object' || value === null) throw new TypeError(`${String(value)} is no object of the document`);
  return value as Node;
}
