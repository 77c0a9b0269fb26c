import http from 'node:http';
import type { Registry } from 'prom-client';

/** Where health is asked for, and what it is. */
export interface HealthOptions {
  port: number;
  /** Default 127.0.0.1. */
  host?: string;
  register: Registry;
  /** What is not ready yet, by name; empty when all is. */
  missing: () => string[];
}

/** Answers `/healthz` (the process lives), `/readyz` (its controllers work) and `/metrics` (Prometheus). */
export class HealthServer {
  readonly #options: HealthOptions;
  readonly #server = http.createServer((request, response) => void this.#answer(request, response));

  constructor(options: HealthOptions) {
    this.#options = options;
  }

  /** Listens; returns the port, which is of interest when it was 0. */
  async start(): Promise<number> {
    const { port, host = '127.0.0.1' } = this.#options;
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(port, host, resolve);
    });
    const address = this.#server.address();
    return typeof address === 'object' && address !== null ? address.port : port;
  }

  async stop(): Promise<void> {
    if (!this.#server.listening) return;
    this.#server.closeAllConnections();
    await new Promise(resolve => this.#server.close(resolve));
  }

  async #answer(request: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    const send = (status: number, text: string, type = 'text/plain; charset=utf-8') => {
      response.writeHead(status, { 'content-type': type });
      response.end(request.method === 'HEAD' ? undefined : text);
    };
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      send(405, 'only GET\n');
      return;
    }
    const { register, missing } = this.#options;
    const path = request.url?.split('?')[0];
    if (path === '/healthz') {
      send(200, 'ok\n');
    } else if (path === '/readyz') {
      const names = missing();
      if (names.length === 0) send(200, 'ok\n');
      else send(503, `not ready: ${names.join(', ')}\n`);
    } else if (path === '/metrics') {
      await register.metrics().then(
        text => send(200, text, register.contentType),
        (error: unknown) => send(500, `${String(error)}\n`),
      );
    } else {
      send(404, '/healthz, /readyz and /metrics are here\n');
    }
  }
}
