/** The parts of an OpenAPI 3.0 document that generation touches. */
export interface Document {
  openapi: string;
  info: Record<string, unknown>;
  servers: unknown[];
  tags?: unknown[];
  security?: unknown[];
  paths: Record<string, Record<string, Operation>>;
  components: { schemas: Record<string, Schema> } & Record<string, unknown>;
}

export interface Operation {
  operationId: string;
  tags?: string[];
  summary?: string;
  description?: string;
  parameters?: Parameter[];
  requestBody?: { required?: boolean; content: Content; [field: string]: unknown };
  responses: Partial<Record<string, Answer>>;
  security?: unknown[];
}

export interface Schema {
  $ref?: string;
  type?: string;
  properties?: Record<string, Schema>;
  required?: string[];
  [field: string]: unknown;
}

export interface Parameter {
  $ref?: string;
  name?: string;
  in?: string;
  example?: unknown;
}

export interface Answer {
  $ref?: string;
  description?: string;
  content?: Content;
  headers?: Record<string, unknown>;
}

export type Content = Record<string, { schema?: Schema; example?: unknown; 'x-line'?: Schema }>;

/** Where a component of a kind is, for example a parameter. */
export const reference = (kind: string, name: string) => ({ $ref: `#/components/${kind}/${name}` });
/** Where a model is. */
export const schemaOf = (name: string): Schema => reference('schemas', name);
