import { expect } from 'chai';
import type { TypeDefinition } from '../../api/index.js';
import type { Answer, TestApi } from '../platform.js';
import { until } from '../until.js';
import type { Example } from './examples.js';

/** An object as the API answers it. */
export type Body = Record<string, unknown> & {
  name: string;
  namespace?: string;
  uid: string;
  resourceVersion: string;
  generation: number;
};

export const jsonPatch = { 'Content-Type': 'application/json-patch+json' };
export const mergePatch = { 'Content-Type': 'application/merge-patch+json' };
const space = 'conformance';
let serial = 0;

/** A type under test: makes its objects and asks for them, whether they lie in namespaces or not. */
export class Subject {
  constructor(
    readonly definition: TypeDefinition,
    readonly example: Example,
    readonly server: () => TestApi,
  ) {}

  get type(): string {
    return this.definition.type;
  }

  get collection(): string {
    return `/v1/${this.type}`;
  }

  get namespace(): { namespace?: string } {
    return this.definition.namespaced ? { namespace: space } : {};
  }

  /** A patch of the own field of the example, to its other value. */
  get change(): Record<string, unknown> {
    return { [this.example.change.field]: this.example.change.to };
  }

  fresh(prefix = 'x'): string {
    return `${prefix}${++serial}`;
  }

  call(method: string, path: string, body?: unknown, headers?: Record<string, string>): Promise<Answer> {
    return this.server().call(method, path, body, headers);
  }

  /** What to POST for an object of a new name. */
  input(fields: object = {}): Record<string, unknown> & { name: string } {
    return { name: this.fresh(), ...this.namespace, ...this.example.object, ...fields };
  }

  post(fields: object = {}, { query = '', headers = {} }: { query?: string; headers?: Record<string, string> } = {}) {
    return this.call('POST', `${this.collection}${query}`, this.input(fields), headers);
  }

  async create(fields: object = {}): Promise<Body> {
    const answer = await this.post(fields);
    expect(answer.status, JSON.stringify(answer.body)).to.equal(201);
    return answer.body as Body;
  }

  path({ name }: { name: string }, suffix = ''): string {
    return `${this.collection}/${this.definition.namespaced ? `${space}/` : ''}${name}${suffix}`;
  }

  get(object: { name: string }, suffix = '', headers?: Record<string, string>): Promise<Answer> {
    return this.call('GET', this.path(object, suffix), undefined, headers);
  }

  async stored(object: { name: string }): Promise<Body> {
    const { status, body } = await this.get(object);
    expect(status, JSON.stringify(body)).to.equal(200);
    return body as Body;
  }

  put(object: { name: string }, body: unknown, suffix = '', headers?: Record<string, string>): Promise<Answer> {
    return this.call('PUT', this.path(object, suffix), body, headers);
  }

  patch(object: { name: string }, body: unknown, suffix = '', headers?: Record<string, string>): Promise<Answer> {
    return this.call('PATCH', this.path(object, suffix), body, headers);
  }

  delete(object: { name: string }, query = ''): Promise<Answer> {
    return this.call('DELETE', this.path(object, query));
  }

  /** Every way of writing to an object that has its labels changed; each gets a label of its own. */
  labelWrites(): [string, (object: Body, more: object, headers?: Record<string, string>) => Promise<Answer>][] {
    const labels = () => ({ [this.fresh('label')]: '' });
    return [
      [
        'PUT',
        (object, more, headers) => this.put(object, { ...this.example.object, labels: labels(), ...more }, '', headers),
      ],
      ['PATCH', (object, more, headers) => this.patch(object, { labels: labels(), ...more }, '', headers)],
      [
        'PUT of metadata',
        (object, more, headers) => this.put(object, { labels: labels(), ...more }, '/metadata', headers),
      ],
      [
        'PATCH of metadata',
        (object, more, headers) => this.patch(object, { labels: labels(), ...more }, '/metadata', headers),
      ],
    ];
  }

  /** An operation of a batch. */
  operation(op: string, object: { name: string }, more: object = {}): Record<string, unknown> {
    return { op, type: this.type, ...this.namespace, name: object.name, ...more };
  }

  batch(operations: object[], more: object = {}, headers: Record<string, string> = {}): Promise<Answer> {
    return this.call('POST', '/v1/batch', { operations, ...more }, headers);
  }

  /** A namespace's worth of objects of their own for a list: all have the label `in`. */
  async crowd(
    count: number,
    fields: (i: number) => object = () => ({}),
  ): Promise<{ selector: string; objects: Body[] }> {
    const crowd = this.fresh('crowd');
    const objects: Body[] = [];
    for (let i = 0; i < count; i++) {
      const { labels, ...more } = fields(i) as { labels?: object };
      objects.push(await this.create({ name: `${crowd}-${i}`, labels: { in: crowd, ...labels }, ...more }));
    }
    return { selector: `labelSelector=in%3D${crowd}`, objects };
  }

  async list(
    query: string,
  ): Promise<{ items: Body[]; resourceVersion: string; continue?: string; remainingItemCount?: number }> {
    const { status, body } = await this.call('GET', `${this.collection}?${query}`);
    expect(status, JSON.stringify(body)).to.equal(200);
    return body;
  }

  /** The newest version of the type. */
  async version(): Promise<string> {
    return (await this.list('limit=1')).resourceVersion;
  }

  /** What is asked while the log of the type begins with the version of now, as if all before it had been dropped for its age. */
  async aged<T>(ask: () => Promise<T>): Promise<T> {
    const begin = (version: string) =>
      this.server().database.query<{ begun: number }>({
        text: `update syncsets.types t set log_start = ${version} from syncsets.types before
          where t.type = $1 and before.type = t.type returning before.log_start as begun`,
        values: [this.type],
      });
    const [former] = await begin('t.version');
    try {
      return await ask();
    } finally {
      await begin(String(former?.begun ?? 0));
    }
  }

  /** The events after a version, up to one for the object with this name. */
  async eventsUntil(version: string, name: string, query = ''): Promise<WatchLine[]> {
    const watch = await this.watch(`resourceVersion=${version}${query}`);
    try {
      await until(() => watch.lines.some(line => line.object?.name === name), { what: `an event of ${name}` });
      return watch.lines.filter(line => line.type !== 'BOOKMARK');
    } finally {
      watch.close();
    }
  }

  /** A watch of the type; `close` ends it. */
  async watch(query: string): Promise<{ status: number; lines: WatchLine[]; close: () => void }> {
    const abort = new AbortController();
    const response = await fetch(`${this.server().url}${this.collection}?watch=true&${query}`, {
      signal: abort.signal,
    });
    const lines: WatchLine[] = [];
    const reading = async () => {
      const decoder = new TextDecoder();
      let rest = '';
      for await (const chunk of response.body ?? []) {
        const parts = (rest + decoder.decode(chunk as Uint8Array, { stream: true })).split('\n');
        rest = parts.pop() ?? '';
        for (const line of parts) if (line !== '') lines.push(JSON.parse(line) as WatchLine);
      }
    };
    // It ends by being aborted.
    reading().catch(() => undefined);
    return { status: response.status, lines, close: () => abort.abort() };
  }
}

/** A line of a watch. */
export interface WatchLine {
  type: string;
  resourceVersion: string;
  previousResourceVersion?: string;
  initialEventsEnd?: boolean;
  object?: Body & { labels?: Record<string, string> };
}

/** Expects an error of the catalogue, in the one form that all have; with `paths`, exactly these in its details. */
export function expectError(answer: Answer, status: number, code: string, paths?: string[]): void {
  const { error } = answer.body as {
    error?: { details?: { path: string; message: string }[] } & Record<string, unknown>;
  };
  expect([answer.status, error?.['code']], JSON.stringify(answer.body)).to.deep.equal([status, code]);
  expect(Object.keys(answer.body as object)).to.deep.equal(['error']);
  expect(error).to.have.all.keys('code', 'status', 'message', 'requestId', ...(error?.details ? ['details'] : []));
  expect(error).to.include({ status, requestId: answer.headers.get('x-request-id') });
  expect(error?.['message']).to.match(/\w.*[.!]$|: \w/);
  if (paths) expect(error?.details?.map(({ path }) => path)).to.have.members(paths);
}
