import { randomUUID } from 'node:crypto';
import type {
  FieldsOption,
  JsonPatchOperation,
  ListOptions,
  Page,
  Preconditions,
  RemoveAllOptions,
  RemoveOptions,
  ServiceOptions,
} from './calls.js';
import type { ApiRequestOptions, Notice, Revealed, Transport as GeneratedTransport } from './generated/index.js';
import type { Resource } from './resource.js';
import type { Call, Transport } from './transport.js';

/** What the generated services and the untyped one have in common. */
export interface Service<T, Input> {
  create(call: { body: Input }): Promise<T>;
  list(call: ListOptions & Partial<FieldsOption>): Promise<Page<T>>;
  read(call: ServiceKey): Promise<T>;
  replace(call: ServiceKey & { body: Input }): Promise<T>;
  patch(call: PatchCall): Promise<T>;
  delete(call: ServiceKey & RemoveOptions): Promise<T>;
  deleteAll(call: RemoveAllOptions): Promise<{ count: number }>;
  replaceMetadata(call: ServiceKey & { body: object }): Promise<T>;
  patchMetadata(call: PatchCall): Promise<T>;
  listNotices(call: ServiceKey): Promise<{ items: Notice[] }>;
  recordNotice(call: ServiceKey & { body: { reason: string; message: string } }): Promise<Notice>;
  readStatus?(call: ServiceKey): Promise<T>;
  replaceStatus?(call: ServiceKey & { body: object }): Promise<T>;
  patchStatus?(call: PatchCall): Promise<T>;
  reveal?(call: ServiceKey): Promise<Revealed>;
}

/** Where an object is; `namespace` is ignored for cluster-wide types. */
export interface ServiceKey {
  namespace: string;
  name: string;
}

/** A merge patch, or a JSON patch: only that is a list. */
type PatchCall = ServiceKey & { body: Record<string, unknown> | JsonPatchOperation[] };

/** Carries the generated services' requests, with what their methods cannot say: claim and signal. */
export class ServiceTransport implements GeneratedTransport {
  constructor(
    private readonly transport: Transport,
    private readonly options: ServiceOptions,
  ) {}

  async request<T>({ method, url, path = {}, query, body, mediaType }: ApiRequestOptions): Promise<T> {
    if (method === 'HEAD' || method === 'OPTIONS') throw new TypeError(`${method} is not a method of the API`);
    const { dryRun = false, idempotencyKey, headers, ...options } = this.options;
    const rehearsed = dryRun && method !== 'GET';
    const isJsonPatch = method === 'PATCH' && Array.isArray(body);
    // Done twice these are not what was asked for; under one key the second time gets the answer of the first.
    const key = idempotencyKey ?? (method === 'POST' || isJsonPatch ? randomUUID() : undefined);
    const keyed = key !== undefined && !rehearsed && method !== 'GET' && method !== 'DELETE';
    const answer = await this.transport.send({
      method,
      path: url.replace(/\{(\w+)\}/g, (_, name: string) => encodeURIComponent(String(path[name]))),
      query: rehearsed ? { ...query, dryRun: 'All' } : query,
      body: body as unknown,
      contentType: isJsonPatch ? 'application/json-patch+json' : mediaType,
      repeat: rehearsed || keyed || mayRepeat(method, query),
      headers: { ...headers, ...(keyed && { 'idempotency-key': key }) },
      ...options,
    });
    // The server validates what it sends; its type is that of the document which this client was generated from.
    return answer as T;
  }
}

/**
 * Whether a request without `Idempotency-Key` may be sent again when its answer was lost. A second DELETE could meet another object of that name, unless it says which one. PUT and merge PATCH end in the same state; one with a
 * `resourceVersion` may report a conflict with itself, which is the answer that makes its sender look.
 */
function mayRepeat(method: Call['method'], query: ApiRequestOptions['query']): boolean {
  return method === 'DELETE' ? query?.uid !== undefined : method !== 'POST';
}

/** The service of a type that is known by name only; cluster-wide where keys have no namespace. */
export class UntypedService implements Service<Resource, object> {
  constructor(
    private readonly type: string,
    private readonly transport: GeneratedTransport,
  ) {}

  create({ body }: { body: object }): Promise<Resource> {
    return this.#send('POST', {}, '', { body, mediaType: 'application/json' });
  }

  list(query: object): ReturnType<Service<Resource, object>['list']> {
    return this.#send('GET', {}, '', { query });
  }

  read(key: ServiceKey): Promise<Resource> {
    return this.#send('GET', key, '');
  }

  replace({ body, ...key }: ServiceKey & { body: object }): Promise<Resource> {
    return this.#send('PUT', key, '', { body, mediaType: 'application/json' });
  }

  patch({ body, ...key }: PatchCall): Promise<Resource> {
    return this.#send('PATCH', key, '', { body, mediaType: 'application/merge-patch+json' });
  }

  delete({ namespace, name, ...query }: ServiceKey & Preconditions): Promise<Resource> {
    return this.#send('DELETE', { namespace, name }, '', { query });
  }

  deleteAll(query: RemoveAllOptions): Promise<{ count: number }> {
    return this.#send('DELETE', {}, '', { query: { ...query } });
  }

  listNotices(key: ServiceKey): ReturnType<Service<Resource, object>['listNotices']> {
    return this.#send('GET', key, '/notices');
  }

  recordNotice({ body, ...key }: ServiceKey & { body: object }): ReturnType<Service<Resource, object>['recordNotice']> {
    return this.#send('POST', key, '/notices', { body, mediaType: 'application/json' });
  }

  replaceMetadata({ body, ...key }: ServiceKey & { body: object }): Promise<Resource> {
    return this.#send('PUT', key, '/metadata', { body, mediaType: 'application/json' });
  }

  patchMetadata({ body, ...key }: PatchCall): Promise<Resource> {
    return this.#send('PATCH', key, '/metadata', { body, mediaType: 'application/merge-patch+json' });
  }

  readStatus(key: ServiceKey): Promise<Resource> {
    return this.#send('GET', key, '/status');
  }

  replaceStatus({ body, ...key }: ServiceKey & { body: object }): Promise<Resource> {
    return this.#send('PUT', key, '/status', { body, mediaType: 'application/json' });
  }

  patchStatus({ body, ...key }: PatchCall): Promise<Resource> {
    return this.#send('PATCH', key, '/status', { body, mediaType: 'application/merge-patch+json' });
  }

  reveal(key: ServiceKey): ReturnType<NonNullable<Service<Resource, object>['reveal']>> {
    return this.#send('GET', key, '/reveal');
  }

  #send<T>(
    method: Call['method'],
    { namespace = '', name }: Partial<ServiceKey>,
    suffix: string,
    more: Partial<ApiRequestOptions> = {},
  ): Promise<T> {
    const place = name === undefined ? '' : namespace === '' ? '/{name}' : '/{namespace}/{name}';
    return this.transport.request<T>({
      method,
      url: `/v1/{type}${place}${suffix}`,
      path: { type: this.type, namespace, name },
      ...more,
    });
  }
}
