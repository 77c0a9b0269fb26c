import { batch, load, type BatchOptions, type BatchOutcome, type BatchOutcomes, type BatchWrite } from './batch.js';
import { Broker, type Log } from './broker.js';
import { Garbage } from './garbage.js';
import type { CallOptions, ServiceOptions } from './calls.js';
import type { Collection } from './collection.js';
import { GeneratedClient } from './generated/index.js';
import type { Resource } from './resource.js';
import { ServiceTransport, UntypedService, type Service } from './service.js';
import { FullCollection, type SecretCalls, type StatusCalls } from './subresources.js';
import { Transport } from './transport.js';
import { Controllers } from './work.js';

/**
 * How a client reaches the platform, and what it tells about that.
 *
 * @example
 * connect({ url: 'https://syncsets.example.com', token, caFile: 'ca.crt', amqpUrl: 'amqps://user:password@rabbit.example.com' });
 */
export interface ConnectOptions {
  /** Where the API is. Default `http://127.0.0.1:7070`. */
  url?: string;
  /** Bearer token, where the API asks for one. */
  token?: string;
  /** PEM file of the authorities to trust instead of the system's. */
  caFile?: string;
  /**
   * RabbitMQ, for `events` and work queues; all else goes over HTTP. `amqp://user:password@host`, or `amqps` with the authorities
   * to trust as `?cacertfile=`; several nodes of a cluster joined by commas.
   */
  amqpUrl?: string;
  /** Longest time for one attempt of a call, in seconds. Default 30; `Infinity` waits for ever. */
  timeoutSeconds?: number;
  /** How many seconds calls are repeated while the server is unavailable. Default 10; 0 never repeats. */
  retrySeconds?: number;
  /** Closes the client. */
  signal?: AbortSignal;
  /**
   * Told what the server warns of though it did what was asked (its `Warning` headers), and on which call. Results of batches
   * have their warnings with them.
   *
   * @example
   * connect({ onWarning: (text, { method, path }) => console.warn(`${method} ${path}: ${text}`) });
   */
  onWarning?: (text: string, call: { method: string; path: string }) => void;
  /** Told of each attempt of a call, for those who count: its status, or `<error>` when no answer came. It must not throw. */
  onAnswer?: (attempt: { method: string; host: string; code: string }) => void;
  /** Where troubles in the background are reported. Default: warnings of the process. */
  log?: Log;
}

interface ObjectService {
  create(call: never): Promise<unknown>;
  recordNotice(call: never): Promise<unknown>;
}

type CollectionOf<S> = S extends {
  create(call: { body: infer Input extends object }): Promise<infer T extends Resource>;
}
  ? Collection<T, Input> &
      (S extends { replaceStatus(call: { body: infer StatusInput }): unknown }
        ? StatusCalls<T, StatusInput>
        : unknown) &
      (S extends { reveal(call: never): unknown } ? SecretCalls : unknown)
  : never;

/** The types of the API by name, and what their objects are: `Kinds['clusters']` is `Cluster`. */
export type Kinds = {
  [
    Type in keyof GeneratedClient as GeneratedClient[Type] extends ObjectService ? Type : never
  ]: GeneratedClient[Type] extends {
    create(call: never): Promise<infer T extends Resource>;
  }
    ? T
    : never;
};

/** A collection for each type. */
export type Collections = { readonly [Type in keyof Kinds]: CollectionOf<GeneratedClient[Type]> };

/** What `connect` gives: `client.clusters`, `client.syncsets` and so on, and what follows. */
export interface Client extends Collections {
  /** Work of controllers, call by call; the runtime (`syncsets/controllers`) does all this by itself. */
  readonly controllers: Controllers;
  /** What owners leave behind. */
  readonly garbage: Garbage;
  /** RabbitMQ; undefined when the client was connected without `amqpUrl`. */
  readonly broker: Broker | undefined;
  /**
   * The collection of a type that is known at run time only.
   *
   * @example
   * const object = await client.collection('clusters').read({ namespace: 'foo', name: 'cluster1' });
   */
  collection(type: string): FullCollection<Resource, object>;
  /**
   * The same client, with options for all calls of its collections.
   *
   * @example
   * await client.with({ claim: token }).clusters.patch({ name: 'cluster1' }, { labels: { seen: 'true' } });
   */
  with(options: Omit<CallOptions, 'idempotencyKey'>): Client;
  /**
   * Carries out up to 1,000 writes of any types in one request. Each has an outcome of its own; with `atomic: true` all are
   * done or none is, and the call throws the first failure, whose `details` begin with which write it was. When the answer is
   * lost the call is repeated with the same `Idempotency-Key`, so nothing is done twice.
   *
   * @example
   * const [cluster, old] = await client.batch([
   *   { op: 'upsert', type: 'clusters', object: { name: 'cluster1', labels: { env: 'prod' } } },
   *   { op: 'delete', type: 'syncsets', name: 'old' },
   * ]);
   * if (old.error && old.status !== 404) throw old.error;
   */
  batch<const Writes extends readonly BatchWrite[]>(
    operations: Writes,
    options?: BatchOptions,
  ): Promise<BatchOutcomes<Writes>>;
  /**
   * Carries out any number of writes over one stream, in memory only those under way, and yields the outcome of each in their
   * order. Outcomes must be read for the stream to go on. It is not repeated: after a broken connection (`ConnectionError`),
   * send the same operations with the same `idempotencyKey` once more, and only those not done yet are.
   *
   * @example
   * for await (const { index, error } of client.load(operations, { idempotencyKey: 'import-2027-01-31' })) {
   *   if (error) console.error(`line ${index}: ${error.message}`);
   * }
   */
  load(
    operations: Iterable<BatchWrite> | AsyncIterable<BatchWrite>,
    options?: Omit<BatchOptions, 'atomic'>,
  ): AsyncGenerator<BatchOutcome & { index: number }, void, undefined>;
  /**
   * Ends all calls and watches, which then throw, and closes all connections. May be called more than once.
   *
   * @example
   * process.once('SIGTERM', () => void client.close());
   */
  close(): Promise<void>;
}

/**
 * Makes a client. Nothing is sent yet: a server that is away is noticed, and waited for, by the calls.
 *
 * @throws TypeError a URL, the token or a time is none; Error: the CA file cannot be read
 * @example
 * import { connect } from 'syncsets/client';
 *
 * const client = connect({ url: 'https://syncsets.example.com', token });
 * await client.clusters.create({ name: 'cluster1', namespace: 'foo' });
 * await client.close();
 */
export function connect(options: ConnectOptions = {}): Client {
  const { url = 'http://127.0.0.1:7070', amqpUrl, log = warnings } = options;
  const broker = amqpUrl === undefined ? undefined : new Broker(amqpUrl, log);
  const transport = new Transport({ ...options, url, onAbort: () => void broker?.close() });
  return withCollections(new PlatformClient(transport, broker, {}));
}

class PlatformClient {
  readonly controllers: Controllers;
  readonly #transport: Transport;
  readonly #options: CallOptions;
  readonly #collections = new Map<string, unknown>();

  constructor(
    transport: Transport,
    readonly broker: Broker | undefined,
    options: CallOptions,
  ) {
    this.#transport = transport;
    this.#options = options;
    this.controllers = new Controllers(transport);
  }

  get garbage(): Garbage {
    return new Garbage(this.#transport, this.#options);
  }

  collection(type: string): FullCollection<Resource, object> {
    return this.#make(type, '', options => new UntypedService(type, new ServiceTransport(this.#transport, options)));
  }

  typed(type: keyof Kinds): unknown {
    const known = this.#collections.get(type);
    if (known) return known;
    const make = (options: ServiceOptions) => {
      const service: unknown = new GeneratedClient(new ServiceTransport(this.#transport, options))[type];
      return service as Service<Resource, object>;
    };
    const collection = this.#make(type, 'default', make);
    this.#collections.set(type, collection);
    return collection;
  }

  with(options: Omit<CallOptions, 'idempotencyKey'>): Client {
    return withCollections(new PlatformClient(this.#transport, this.broker, { ...this.#options, ...options }));
  }

  batch<const Writes extends readonly BatchWrite[]>(
    operations: Writes,
    options: BatchOptions = {},
  ): Promise<BatchOutcomes<Writes>> {
    return batch(this.#transport, operations, { ...this.#options, ...options });
  }

  load(
    operations: Iterable<BatchWrite> | AsyncIterable<BatchWrite>,
    options: Omit<BatchOptions, 'atomic'> = {},
  ): AsyncGenerator<BatchOutcome & { index: number }, void, undefined> {
    return load(this.#transport, operations, { ...this.#options, ...options });
  }

  async close(): Promise<void> {
    this.#transport.close();
    await this.broker?.close();
  }

  #make(type: string, defaultNamespace: string, service: (options: ServiceOptions) => Service<Resource, object>) {
    const { broker } = this;
    return new FullCollection({
      type,
      transport: this.#transport,
      broker,
      defaultNamespace,
      service,
      ...this.#options,
    });
  }
}

/** The types, as the generated client has them: its services that create objects and take notices of them. */
const kinds = Object.entries(
  new GeneratedClient({ request: () => Promise.reject(new Error('not connected')) }),
).flatMap(([type, service]: [string, unknown]) => (isObjectService(service) ? [type as keyof Kinds] : []));

// On the prototype, so that a client for one claim costs next to nothing.
for (const type of kinds) {
  Object.defineProperty(PlatformClient.prototype, type, {
    enumerable: true,
    get(this: PlatformClient) {
      return this.typed(type);
    },
  });
}

/** The getters above are the collections that `Client` promises; both are made from the same generated class. */
function withCollections(client: PlatformClient): Client {
  return client as PlatformClient & Collections;
}

function isObjectService(service: unknown): service is ObjectService {
  return typeof service === 'object' && service !== null && 'create' in service && 'recordNotice' in service;
}

const warnings: Log = {
  info: () => undefined,
  warn: (fields, message) => process.emitWarning(`${message}: ${JSON.stringify(fields)}`, 'SyncSetsWarning'),
};
