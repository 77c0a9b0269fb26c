import { createServer as createHttpServer, type Server } from 'node:http';
import { createServer as createHttpsServer, type Server as HttpsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import type { Bus } from '../bus/index.js';
import { FieldIndexes, ObjectStore, type Database, type Log, type TypeTable } from '../db/index.js';
import { types } from '../build/types.js';
import { createApp } from './app.js';
import { Certificate, type CertificateFiles } from './certificate.js';
import { Claims } from './claims.js';
import { Garbage } from './garbage.js';
import { Idempotency } from './idempotency.js';
import { refuseMalformed } from './malformed.js';
import { messageClasses } from './messages.js';
import { Metrics } from './metrics.js';
import { QueueMetrics } from './queue-metrics.js';
import { Objects } from './objects.js';
import type { Platform } from './platform.js';
import { Secrets } from './secrets.js';
import type { TypeDefinition } from './type-definition.js';
import { Watches } from './watch.js';

/** What a server is given: where it listens, who may ask, and where the objects are. */
export interface ApiOptions {
  database: Database;
  bus: Bus;
  /** 32 bytes each; the first one writes. */
  encryptionKeys: Buffer[];
  host: string;
  /** 0: any free port. */
  port: number;
  token: string | undefined;
  tls: CertificateFiles | undefined;
  isLocalHost: (host: string) => boolean;
  /** Patience with clients; default `patience`. */
  timeouts?: Timeouts;
  log: Log;
  /** Types without routes of their own: their objects are reached by batches. */
  types?: TypeDefinition[];
}

/** How slow a client may be, in milliseconds. Whoever is slower loses the connection, and with it what was kept for it. */
export interface Timeouts {
  /** For all headers of a request to arrive. */
  headers: number;
  /** For the body of a request to arrive; a stream of operations has no such limit. */
  body: number;
  /** Without reading anything of an answer that waits to be read. */
  stalled: number;
}

const patience: Timeouts = { headers: 20_000, body: 60_000, stalled: 60_000 };

/** One API process: the HTTP server over a database and a bus that are started before it and stopped after it. */
export class ApiServer {
  readonly #options: ApiOptions;
  #server: Server | HttpsServer | undefined;
  #watches: Watches | undefined;
  #claims: Claims | undefined;
  #indexes: FieldIndexes | undefined;
  #certificates: { close(): void } | undefined;
  #accepting = true;

  constructor(options: ApiOptions) {
    this.#options = options;
  }

  /** Starts to answer; returns the port. Throws the system's error when it cannot listen. */
  async start(): Promise<number> {
    const { database, bus, log, tls, host, port, token, isLocalHost } = this.#options;
    const secrets = await Secrets.load(database, this.#options.encryptionKeys);
    const all = [...types, ...(this.#options.types ?? [])];
    const ruled = ruledTypes(all);
    const store = new ObjectStore(database, { ruled, committed: (type, events) => bus.wrote(type, events) });
    const watches = new Watches({ database, tail: type => bus.tail(type) });
    const byName = new Map(all.map(type => [type.type, type]));
    const objects = new Objects({ database, store, secrets });
    const queue = new QueueMetrics();
    const platform: Platform = {
      types: byName,
      ruled,
      database,
      store,
      objects,
      garbage: new Garbage({ database, objects, types: byName }),
      secrets,
      idempotency: new Idempotency({ database, secrets }),
      watches,
      claims: new Claims({ database, bus, metrics: queue, log }),
      bus,
      log,
    };
    const metrics = new Metrics({
      database,
      bus,
      types: types.map(type => type.type),
      watchers: () => watches.connections,
      others: queue.all,
      log,
    });
    const { headers, body, stalled } = this.#options.timeouts ?? patience;
    const accepting = () => this.#accepting;
    const app = createApp({ platform, metrics, token, isLocalHost, accepting, body, stalled, log });
    const settings = {
      ...messageClasses(app),
      // Longer than load balancers keep idle connections, so that none is closed under a request.
      keepAliveTimeout: 75_000,
      headersTimeout: headers,
      // A bulk load may take hours: other bodies have a limit of their own, see requests.ts.
      requestTimeout: 0,
      // Node looks once in this time, 30 s if nobody says so: a slow sender would have that much longer.
      connectionsCheckingInterval: Math.min(5_000, headers / 4),
    };
    const certificate = tls && new Certificate(tls);
    const server = certificate
      ? createHttpsServer({ ...settings, ...certificate.pair }, app)
      : createHttpServer(settings, app);
    server.on('clientError', refuseMalformed);
    // Node would answer 417 by itself; what somebody expects beyond `100-continue` is nothing to refuse a request for.
    server.on('checkExpectation', app);
    this.#server = server;
    this.#watches = watches;
    this.#claims = platform.claims;
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject).listen(port, host, resolve);
    });
    server.on('error', error => log('error', 'server error', { error }));
    if (certificate && 'setSecureContext' in server)
      this.#certificates = certificate.watch(pair => server.setSecureContext(pair), log);
    watches.start();
    this.#indexes = new FieldIndexes({ database, types: all, log });
    this.#indexes.start();
    return (server.address() as AddressInfo).port;
  }

  /** Ends streams, answers what is under way, closes. */
  async stop(): Promise<void> {
    this.#accepting = false;
    const server = this.#server;
    this.#server = undefined;
    this.#certificates?.close();
    await this.#watches?.stop();
    this.#claims?.stop();
    await this.#indexes?.stop();
    if (!server) return;
    const closed = new Promise(resolve => server.close(resolve));
    server.closeIdleConnections();
    // Long polls wait up to 30 s: they are cut, their clients come again elsewhere.
    const cut = setTimeout(() => server.closeAllConnections(), 2_000);
    await closed;
    clearTimeout(cut);
  }
}

/** What the database must know of all types; `more` are types without routes of their own. */
export function typeTables(more: TypeDefinition[] = []): TypeTable[] {
  return [...types, ...more].map(({ type, namespaced, keepEvents, uniques, references }) => ({
    type,
    namespaced,
    ...(keepEvents ? { keepEvents } : {}),
    rules: [
      ...uniques.map(({ fields, everywhere }) => ({
        kind: 'unique' as const,
        name: `unique ${everywhere ? 'everywhere' : 'namespace'}: ${fields.join(', ')}`,
        fields,
        everywhere,
      })),
      ...references.map(one => ({ kind: 'ref' as const, name: `ref ${one.field}: ${one.target}`, ...one })),
    ],
  }));
}

/** The types whose objects are bound to others by rules: those that have one, and those that references lead to. */
function ruledTypes(types: TypeDefinition[]): Set<string> {
  return new Set(
    types.flatMap(({ type, uniques, references }) => [
      ...(uniques.length + references.length > 0 ? [type] : []),
      ...references.map(({ target }) => target),
    ]),
  );
}
