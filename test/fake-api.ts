import type http from 'node:http';
import { Registry } from 'prom-client';
import { connect, type Client } from '../client/index.js';
import { FakeServer, json, type Seen } from '../client/testing/fake-server.js';
import type { Controller } from '../controllers/runtime/controller.js';
import type { Log } from '../controllers/runtime/log.js';
import { Metrics } from '../controllers/runtime/metrics.js';
import { Worker } from '../controllers/runtime/worker.js';

/** What a worker said of one of its claims. */
export interface Result {
  token: string;
  result: string;
  message?: string;
}

/** Answers one request in place of what the API does otherwise. */
type Answer = (seen: Seen, response: http.ServerResponse) => void;

/**
 * What a worker needs of the API: it registers anybody, hands out the claims it was given, renews, takes results. What the real one
 * will not do on demand, such as losing an answer, a test puts in its place.
 */
export class FakeApi {
  /** Claims that the next questions get, one list each. */
  claims: object[][] = [];
  /** Tokens that renewals call held. */
  held: string[] = [];
  /** How many were answered, without those on streams. */
  renewals = 0;
  /** What was reported, in order. */
  results: Result[] = [];
  /** The streams of renewals, the closed ones too. */
  readonly streams: http.ServerResponse[] = [];
  /** Sent on all streams together. */
  lines = 0;
  /** In place of what the API does otherwise, by the end of the path. */
  readonly instead = new Map<string, Answer>();
  /** What the worker logged as warnings and errors. */
  readonly warnings: string[] = [];
  readonly log: Log = {
    debug: () => undefined,
    info: () => undefined,
    warn: (_, message) => void this.warnings.push(message),
    error: (_, message) => void this.warnings.push(message),
    child: () => this.log,
  };
  worker: Worker<never> | undefined;
  #server: FakeServer;
  readonly client: Client;

  private constructor(server: FakeServer) {
    this.#server = server;
    this.client = connect({ url: server.url });
  }

  static async start(): Promise<FakeApi> {
    const server = await FakeServer.start(() => undefined);
    const api = new FakeApi(server);
    server.answer(api.#answer);
    return api;
  }

  /** Stops the worker first. */
  async stop(): Promise<void> {
    await this.worker?.stop();
    await this.client.close();
    await this.#server.stop();
  }

  /** Cuts all connections, the hanging ones too. */
  async restart(): Promise<void> {
    const { port } = this.#server;
    await this.#server.stop();
    this.#server = await FakeServer.start(this.#answer, port);
  }

  /** Requests since the last restart. */
  get seen(): Seen[] {
    return this.#server.seen;
  }

  /** Starts a worker of the controller `c`, whose claims hold for 2 s. */
  async work(controller: Partial<Controller>, slots = 4, drainTime = 30_000): Promise<void> {
    const reconcile = () => Promise.resolve();
    this.worker = new Worker<never>({
      controller: { name: 'c', type: 'clusters', claimSeconds: 2, reconcile, ...controller },
      client: this.client,
      slots,
      drainTime,
      log: this.log,
      metrics: new Metrics(new Registry()),
    });
    await this.worker.start();
  }

  /** Goes on renewing on this response, every 100 ms. */
  stream(response: http.ServerResponse): void {
    response.flushHeaders();
    this.streams.push(response);
    const send = () => {
      this.lines++;
      response.write('{"expiresInSeconds":2,"lost":[],"changed":[],"held":[]}\n');
    };
    const timer = setInterval(send, 100);
    send();
    response.once('close', () => clearInterval(timer));
  }

  /** Takes results, and answers what became of each. */
  take(reported: Result[] | undefined): object[] | undefined {
    this.results.push(...(reported ?? []));
    return reported?.map(({ token }) => ({ token, state: 'ok' }));
  }

  readonly #answer: Answer = (seen, response) => {
    const { pathname, searchParams } = seen.url;
    const special = [...this.instead].find(([path]) => pathname.endsWith(path))?.[1];
    const body = seen.body as { results?: Result[]; waitSeconds?: number } | undefined;
    if (special) special(seen, response);
    else if (pathname.endsWith('/renew') && searchParams.has('stream')) this.stream(response);
    else if (pathname.endsWith('/renew')) {
      this.renewals++;
      json(response, 200, { expiresInSeconds: 2, lost: [], changed: [], held: this.held });
    } else if (pathname.endsWith('/done')) {
      json(response, 200, { results: this.take(body?.results) });
    } else if (pathname.endsWith('/claims')) {
      const now = this.claims.shift();
      const wait = now || !body?.waitSeconds ? 0 : 50;
      const taken = this.take(body?.results);
      setTimeout(() => json(response, 200, { claims: now ?? [], ...(taken && { results: taken }) }), wait);
    } else if (seen.method === 'DELETE') response.writeHead(204).end();
    else json(response, 200, { ...(seen.body as object), name: 'c', claimSeconds: 2 });
  };
}

/** A claim of the cluster `foo/<name>`. */
export function claim(name: string, token = `token-${name}`) {
  return {
    kind: 'key',
    token,
    type: 'clusters',
    namespace: 'foo',
    name,
    uid: `uid-${name}`,
    object: null,
    attempts: 0,
    reason: 'added',
    expiresInSeconds: 2,
  };
}
