import type { Broker } from './broker.js';
import type {
  CallOptions,
  FieldsOption,
  JsonPatchOperation,
  ListOptions,
  MergePatch,
  Metadata,
  Page,
  Part,
  Preconditions,
  RemoveAllOptions,
  RemoveOptions,
  ServiceOptions,
} from './calls.js';
import type { Notice } from './generated/index.js';
import type { Key, Resource } from './resource.js';
import type { Service, ServiceKey } from './service.js';
import type { Transport } from './transport.js';

/**
 * Writes of a collection whose answers come without the object; otherwise as those of `Collection`.
 *
 * @example
 * const { create } = client.clusters.minimal();
 * await create({ name: 'cluster1', namespace: 'foo' });
 */
export interface MinimalCalls<T extends Resource, Input extends object> {
  create(...call: Parameters<Collection<T, Input>['create']>): Promise<void>;
  replace(...call: Parameters<Collection<T, Input>['replace']>): Promise<void>;
  patch(...call: Parameters<Collection<T, Input>['patch']>): Promise<void>;
  remove(...call: Parameters<Collection<T, Input>['remove']>): Promise<void>;
}

/** What a collection is made of. */
export interface CollectionSource<T, Input> {
  type: string;
  transport: Transport;
  broker: Broker | undefined;
  /** The namespace of keys that name none. */
  defaultNamespace: string;
  /** Makes the service of the type for a call with these options. */
  service: (options: ServiceOptions) => Service<T, Input>;
  /** For all calls. */
  headers?: Record<string, string>;
  claim?: string;
  signal?: AbortSignal;
  dryRun?: boolean;
  traceparent?: string;
}

/**
 * The objects of one type. All methods throw `PlatformError` when the server refuses and `ConnectionError` when it does not
 * answer. Where a key is asked for, an object will do; its namespace is `default` when left out.
 */
export class Collection<T extends Resource, Input extends object> {
  readonly type: string;
  /** `/v1/clusters`. */
  readonly path: string;
  /** @internal */
  readonly transport: Transport;
  /** @internal */
  readonly broker: Broker | undefined;
  /** @internal */
  readonly signal: AbortSignal | undefined;
  readonly #source: CollectionSource<T, Input>;

  /** @internal */
  constructor(source: CollectionSource<T, Input>) {
    this.type = source.type;
    this.path = `/v1/${source.type}`;
    this.transport = source.transport;
    this.broker = source.broker;
    this.signal = source.signal;
    this.#source = source;
  }

  /**
   * Creates an object; throws `AlreadyExists` if there is one of that name. With `generateName` in place of `name` the server
   * makes a name that is not taken.
   *
   * @example
   * const cluster = await client.clusters.create({ name: 'cluster1', namespace: 'foo', labels: { env: 'prod' } });
   */
  async create(object: Input, options?: CallOptions): Promise<T> {
    return this.service(options).create({ body: object });
  }

  /**
   * Reads an object; throws `NotFound`.
   *
   * @example
   * const cluster = await client.clusters.read({ namespace: 'foo', name: 'cluster1' });
   */
  async read(key: Key, options?: CallOptions): Promise<T> {
    return this.service(options).read(this.keyOf(key));
  }

  /**
   * Reads an object unless it still has the version that is known; then undefined, and the object did not travel.
   *
   * @example
   * const newer = await client.clusters.readIfChanged(cluster);
   */
  async readIfChanged(
    { resourceVersion, ...key }: Key & { resourceVersion: string },
    options?: CallOptions,
  ): Promise<T | undefined> {
    const only = this.same({ headers: { 'if-none-match': `"${resourceVersion}"` } });
    // 304 has no body; else it is the object.
    const answer: T | undefined = await only.read(key, options);
    return answer;
  }

  /**
   * One page of objects; `all` goes through the pages. With `fields`, only these parts of each.
   *
   * @example
   * const { items, resourceVersion } = await client.clusters.list({ labelSelector: 'env=prod', limit: 100 });
   */
  list(query: ListOptions & FieldsOption, options?: CallOptions): Promise<Page<Part<T>>>;
  list(query?: ListOptions, options?: CallOptions): Promise<Page<T>>;
  async list(query: ListOptions & Partial<FieldsOption> = {}, options?: CallOptions): Promise<Page<T> | Page<Part<T>>> {
    return this.service(options).list(query);
  }

  /**
   * All objects, page by page, as they were at the moment of the first page. Throws `Expired` if reading takes so long that
   * the server has forgotten that moment; begin again then.
   *
   * @example
   * for await (const cluster of client.clusters.all({ namespace: 'foo' })) console.log(cluster.name);
   */
  all(
    query: Omit<ListOptions, 'continue'> & FieldsOption,
    options?: CallOptions,
  ): AsyncGenerator<Part<T>, void, undefined>;
  all(query?: Omit<ListOptions, 'continue'>, options?: CallOptions): AsyncGenerator<T, void, undefined>;
  async *all(
    query: Omit<ListOptions, 'continue'> & Partial<FieldsOption> = {},
    options?: CallOptions,
  ): AsyncGenerator<T | Part<T>, void, undefined> {
    let page: Page<T> | undefined;
    do {
      const next = page?.continue === undefined ? {} : { continue: page.continue, resourceVersion: undefined };
      page = await this.service(options).list({ limit: 500, ...query, ...next });
      yield* page.items;
    } while (page.continue !== undefined);
  }

  /**
   * Replaces an object by the one given; with its `resourceVersion` in it, throws `Conflict` if the stored one has changed.
   *
   * @example
   * const cluster = await client.clusters.read({ name: 'cluster1' });
   * await client.clusters.replace({ ...cluster, labels: { ...cluster.labels, env: 'prod' } });
   */
  async replace(object: Input & Key, options?: CallOptions): Promise<T> {
    return this.service(options).replace({ ...this.keyOf(object), body: object });
  }

  /**
   * Changes parts of an object.
   *
   * @example
   * await client.clusters.patch({ name: 'cluster1' }, { labels: { env: 'prod', old: null } });
   */
  async patch(key: Key, patch: MergePatch<T>, options?: CallOptions): Promise<T> {
    return this.service(options).patch({ ...this.keyOf(key), body: patch });
  }

  /**
   * Changes parts of an object by operations that are carried out in their order, all or none. Throws `Conflict` when a `test`
   * fails and `Invalid` when a path leads nowhere; `details` names the operation. Secret fields cannot be tested. When its answer
   * is lost it is repeated with the same `Idempotency-Key`, so it is done once.
   *
   * @param only which part may change, default: all that clients set; and which state it is meant for
   * @example
   * await client.clusters.jsonPatch(cluster, [
   *   { op: 'test', path: '/labels/env', value: 'stage' },
   *   { op: 'replace', path: '/labels/env', value: 'prod' },
   * ]);
   */
  async jsonPatch(
    key: Key,
    operations: JsonPatchOperation[],
    { subresource, ...preconditions }: Preconditions & { subresource?: 'metadata' | 'status' } = {},
    options?: CallOptions,
  ): Promise<T> {
    const service = this.service(options);
    const tests = (['uid', 'resourceVersion'] as const).flatMap(field =>
      preconditions[field] === undefined
        ? []
        : [{ op: 'test' as const, path: `/${field}`, value: preconditions[field] }],
    );
    // Behind: the indexes that errors name are then the caller's.
    const call = { ...this.keyOf(key), body: [...operations, ...tests] };
    if (subresource === 'metadata') return service.patchMetadata(call);
    if (subresource === undefined) return service.patch(call);
    if (!service.patchStatus) throw new TypeError(`${this.type} has no status`);
    return service.patchStatus(call);
  }

  /**
   * Replaces an object's labels, annotations, finalizers and owners, and nothing else: what is left out is removed.
   *
   * @example
   * await client.clusters.replaceMetadata(cluster, { labels: { env: 'prod' } });
   */
  async replaceMetadata(
    key: Key,
    { labels, annotations, finalizers, owners }: Metadata,
    preconditions: Preconditions = {},
    options?: CallOptions,
  ): Promise<T> {
    const body = { ...preconditions, labels, annotations, finalizers, owners };
    return this.service(options).replaceMetadata({ ...this.keyOf(key), body });
  }

  /**
   * Changes some of an object's labels, annotations, finalizers and owners, and nothing else.
   *
   * @example
   * await client.clusters.patchMetadata(cluster, { annotations: { seen: 'yes', old: null } }, { uid: cluster.uid });
   */
  async patchMetadata(
    key: Key,
    patch: MergePatch<Metadata>,
    preconditions: Preconditions = {},
    options?: CallOptions,
  ): Promise<T> {
    return this.service(options).patchMetadata({ ...this.keyOf(key), body: { ...preconditions, ...patch } });
  }

  /**
   * Deletes an object and returns its last state; with finalizers it stays, marked `deletedAt`, until the last is removed.
   *
   * @example
   * await client.clusters.remove(cluster, { uid: cluster.uid, propagationPolicy: 'Foreground' });
   */
  async remove(key: Key, query: RemoveOptions = {}, options?: CallOptions): Promise<T> {
    const { uid, resourceVersion, propagationPolicy } = query;
    return this.service(options).delete({ ...this.keyOf(key), uid, resourceVersion, propagationPolicy });
  }

  /**
   * Deletes all objects that match and returns how many; those with finalizers stay, marked `deletedAt`. Needs a selector,
   * `ownerUid`, or `all: true`. A call that fails may have deleted some; call it again.
   *
   * @example
   * const count = await client.clusters.removeAll({ labelSelector: 'env=test' });
   */
  async removeAll(query: RemoveAllOptions, options?: CallOptions): Promise<number> {
    return (await this.service(options).deleteAll(query)).count;
  }

  /**
   * What controllers wanted people to know about an object, the latest first.
   *
   * @example
   * for (const notice of await client.clusters.notices({ name: 'cluster1' })) console.log(notice.message);
   */
  async notices(key: Key, options?: CallOptions): Promise<Notice[]> {
    return (await this.service(options).listNotices(this.keyOf(key))).items;
  }

  /**
   * Records a notice about an object.
   *
   * @param reason one word in CamelCase, for programs
   * @example
   * await client.clusters.recordNotice({ name: 'cluster1' }, 'CertificateExpires', 'The certificate ends in 6 days');
   */
  async recordNotice(key: Key, reason: string, message: string, options?: CallOptions): Promise<Notice> {
    return this.service(options).recordNotice({ ...this.keyOf(key), body: { reason, message } });
  }

  /**
   * The same collection, all its writes fenced by a claim.
   *
   * @example
   * await client.clusters.withClaim(token).patchStatus({ name: 'cluster1' }, { serverVersion: 'v1.34.4' });
   */
  withClaim(claim: string): this {
    return this.same({ claim });
  }

  /**
   * The same writes, but their answers come without the object: for those who write much and look at nothing.
   *
   * @example
   * await client.clusters.minimal().patch({ name: 'cluster1' }, { labels: { seen: 'true' } });
   */
  minimal(): MinimalCalls<T, Input> {
    const quiet = this.same({ headers: { prefer: 'return=minimal' } });
    return {
      create: (...call) => quiet.create(...call).then(nothing),
      replace: (...call) => quiet.replace(...call).then(nothing),
      patch: (...call) => quiet.patch(...call).then(nothing),
      remove: (...call) => quiet.remove(...call).then(nothing),
    };
  }

  /** @internal Checks that something which came over the wire is an object; the server has validated the rest. */
  readonly parse = (object: unknown): T => {
    if (!isResource(object)) throw new TypeError(`The server sent something that is no object of ${this.type}`);
    return object as T;
  };

  protected service(options?: CallOptions): Service<T, Input> {
    const { service, claim, signal, dryRun, traceparent, headers } = this.#source;
    return service({ claim, signal, dryRun, traceparent, headers, ...options });
  }

  private same(more: Partial<CollectionSource<T, Input>>): this {
    // TypeScript does not know that `this.constructor` makes what `this` is.
    const Same = this.constructor as new (source: CollectionSource<T, Input>) => this;
    return new Same({ ...this.#source, ...more });
  }

  protected keyOf({ namespace = this.#source.defaultNamespace, name }: Key): ServiceKey {
    return { namespace, name };
  }
}

const nothing = (): void => undefined;

function isResource(object: unknown): object is Resource {
  if (typeof object !== 'object' || object === null) return false;
  return ['name', 'uid', 'resourceVersion'].every(field => typeof Reflect.get(object, field) === 'string');
}
