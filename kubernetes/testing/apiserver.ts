import { once } from 'node:events';
import http, { type IncomingMessage, type ServerResponse } from 'node:http';
import https from 'node:https';
import type { AddressInfo } from 'node:net';
import type { Pair } from './certificates.js';

/** What a fake API server is like; all may be changed while it runs. */
export interface FakeCluster {
  /** The only credential that is accepted: a whole `authorization` header. Default: everyone is system:anonymous. */
  authorization?: string;
  /** Default 0. */
  nodes?: number;
  /** Whether nodes may be listed. Default true. */
  nodesAllowed?: boolean;
  /** Names of the checks of /readyz that fail. Default none. */
  failing?: string[];
  /** Answers before all else; returns false for what it leaves alone. */
  instead?: (request: IncomingMessage, response: ServerResponse) => boolean;
}

/**
 * The part of a kube-apiserver that cluster health needs, over real sockets. Headers and bodies are those of version
 * 1.34.4, down to `items: null` of a metadata-only list.
 */
export class FakeApiServer {
  /** `METHOD /path?query` of each request so far. */
  readonly requests: string[] = [];
  /** How many connections were opened so far. */
  connections = 0;

  private constructor(
    readonly cluster: FakeCluster,
    private readonly server: http.Server | https.Server,
    readonly url: string,
  ) {
    server.on('connection', () => this.connections++);
    server.on('request', (request, response) => this.answer(request, response));
  }

  /**
   * Listens on a free port of 127.0.0.1.
   * @param tls absent: plain HTTP; with `ca`, client certificates of it are demanded; `ciphers` as Node takes them
   */
  static async start(
    cluster: FakeCluster = {},
    tls?: Pair & { ca?: string; ciphers?: string },
  ): Promise<FakeApiServer> {
    const server = tls ? https.createServer({ ...tls, requestCert: tls.ca !== undefined }) : http.createServer();
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    return new FakeApiServer(cluster, server, `${tls ? 'https' : 'http'}://127.0.0.1:${port}`);
  }

  /** Closes every connection, used or idle. */
  async stop(): Promise<void> {
    this.server.closeAllConnections();
    this.server.close();
    await once(this.server, 'close');
  }

  private answer(request: IncomingMessage, response: ServerResponse): void {
    this.requests.push(`${request.method ?? ''} ${request.url ?? ''}`);
    const { authorization, nodes = 0, nodesAllowed = true, failing = [], instead } = this.cluster;
    response.setHeader('cache-control', 'no-cache, private');
    if (instead?.(request, response) === true) return;
    const url = new URL(request.url ?? '/', 'http://fake');
    if (authorization !== undefined && request.headers.authorization !== authorization) {
      status(response, 401, 'Unauthorized', 'Unauthorized');
    } else if (url.pathname === '/version') {
      json(response, 200, version);
    } else if (url.pathname === '/readyz') {
      readyz(response, failing);
    } else if (url.pathname === '/api/v1/nodes' && nodesAllowed) {
      json(response, 200, nodeList(nodes, Number(url.searchParams.get('limit'))));
    } else if (url.pathname === '/api/v1/nodes') {
      status(response, 403, 'Forbidden', forbidden, { kind: 'nodes' });
    } else {
      text(response, 404, '404 page not found\n');
    }
  }
}

const forbidden =
  'nodes is forbidden: User "system:anonymous" cannot list resource "nodes" in API group "" at the cluster scope';

const version = {
  major: '1',
  minor: '34',
  emulationMajor: '1',
  emulationMinor: '34',
  minCompatibilityMajor: '1',
  minCompatibilityMinor: '33',
  gitVersion: 'v1.34.4',
  gitCommit: '$Format:%H$',
  gitTreeState: '',
  buildDate: '1970-01-01T00:00:00Z',
  goVersion: 'go1.26.8',
  compiler: 'gc',
  platform: 'linux/amd64',
};

function nodeList(nodes: number, limit: number): object {
  const shown = limit > 0 ? Math.min(limit, nodes) : nodes;
  const items = Array.from({ length: shown }, (_, index) => ({
    kind: 'PartialObjectMetadata',
    apiVersion: 'meta.k8s.io/v1',
    metadata: {
      name: `n${index + 1}`,
      uid: `7480f9cb-8c10-44be-b178-${String(index).padStart(12, '0')}`,
      resourceVersion: '201',
      creationTimestamp: '2026-11-21T07:39:33Z',
    },
  }));
  const more = { continue: 'eyJ2IjoibWV0YS5rOHMuaW8vdjEifQ', remainingItemCount: nodes - shown };
  return {
    kind: 'PartialObjectMetadataList',
    apiVersion: 'meta.k8s.io/v1',
    metadata: { resourceVersion: '203', ...(nodes > shown && more) },
    items: nodes === 0 ? null : items,
  };
}

function readyz(response: ServerResponse, failing: string[]): void {
  const checks = ['ping', 'log', 'etcd', 'etcd-readiness', 'informer-sync', 'shutdown'];
  const lines = checks.map(check =>
    failing.includes(check) ? `[-]${check} failed: reason withheld` : `[+]${check} ok`,
  );
  if (failing.length === 0) text(response, 200, 'ok');
  else text(response, 500, `${lines.join('\n')}\nreadyz check failed\n`);
}

function status(response: ServerResponse, code: number, reason: string, message: string, details?: object): void {
  const body = { kind: 'Status', apiVersion: 'v1', metadata: {}, status: 'Failure', message, reason, details, code };
  json(response, code, body);
}

function json(response: ServerResponse, code: number, body: object): void {
  send(response, code, 'application/json', JSON.stringify(body, null, 2));
}

function text(response: ServerResponse, code: number, body: string): void {
  response.setHeader('x-content-type-options', 'nosniff');
  send(response, code, 'text/plain; charset=utf-8', body);
}

function send(response: ServerResponse, code: number, type: string, body: string): void {
  response.writeHead(code, { 'content-type': type, 'content-length': Buffer.byteLength(body) }).end(body);
}
