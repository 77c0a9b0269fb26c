import http from 'node:http';
import https from 'node:https';
import type { Endpoint, Template } from './load.js';

/** Kept connections to one server, with as little work for each request as node:http allows. */
export class Connections {
  readonly #agent: http.Agent;
  readonly #base: http.RequestOptions;
  readonly #module: typeof http | typeof https;
  readonly #headers: Record<string, string>;
  readonly #tls: NonNullable<Endpoint['tls']>;
  readonly #streams = new Set<http.ClientRequest>();

  /** @param sockets most connections at once */
  constructor({ url, headers = {}, tls = {} }: Endpoint, sockets: number) {
    const { protocol, hostname, port } = new URL(url);
    const secure = protocol === 'https:';
    const kept = { keepAlive: true, maxSockets: sockets, maxFreeSockets: sockets };
    this.#agent = secure ? new https.Agent({ ...kept, ...tls }) : new http.Agent(kept);
    this.#module = secure ? https : http;
    this.#base = { protocol, hostname, port, agent: this.#agent };
    this.#tls = tls;
    this.#headers = { accept: 'application/json', ...headers };
  }

  /** Sends a request and waits for the whole answer. @throws Error the answer when it is no 2xx */
  send({ method, path, body }: Template): Promise<void> {
    return new Promise((resolve, reject) => {
      const headers = body === undefined ? this.#headers : { ...this.#headers, ...bodyHeaders(body) };
      const request = this.#module.request({ ...this.#base, method, path, headers }, response => {
        const status = response.statusCode ?? 0;
        response.once('error', reject);
        if (status >= 200 && status < 300) {
          response.once('end', resolve).resume();
          return;
        }
        let text = '';
        response.on('data', chunk => (text += String(chunk)));
        response.once('end', () => reject(new Error(`${method} ${path} was answered ${status}: ${text}`)));
      });
      request.once('error', reject);
      request.end(body);
    });
  }

  /** Opens an answer that goes on and calls `onLine` with each of its lines. Resolves when it has begun. */
  stream(path: string, onLine: (line: string) => void): Promise<void> {
    return new Promise((resolve, reject) => {
      const options = { ...this.#tls, ...this.#base, agent: false, path, headers: this.#headers };
      const request = this.#module.request(options, response => {
        if (response.statusCode !== 200) reject(new Error(`GET ${path} was answered ${response.statusCode}`));
        let rest = '';
        response.setEncoding('utf8').on('data', (chunk: string) => {
          const lines = (rest + chunk).split('\n');
          rest = lines.pop() ?? '';
          for (const line of lines) onLine(line);
        });
        response.once('close', () => this.#streams.delete(request));
        resolve();
      });
      this.#streams.add(request);
      request.once('error', reject);
      request.end();
    });
  }

  close(): void {
    for (const request of this.#streams) request.destroy();
    this.#agent.destroy();
  }
}

function bodyHeaders(body: string): Record<string, string> {
  return { 'content-type': 'application/json', 'content-length': String(Buffer.byteLength(body)) };
}
