import http from 'node:http';
import https from 'node:https';
import type { Endpoint, Template } from './load.js';
import { Wire } from './wire.js';

/** Kept connections to one server. */
export class Connections {
  readonly #endpoint: Endpoint;
  readonly #most: number;
  readonly #all = new Set<Wire>();
  readonly #free: Wire[] = [];
  readonly #waiting: ((wire: Wire) => void)[] = [];
  readonly #streams: http.ClientRequest[] = [];

  /** @param most connections at once; further requests wait for one */
  constructor(endpoint: Endpoint, most: number) {
    this.#endpoint = endpoint;
    this.#most = most;
  }

  /** Sends a request and waits for the whole answer. @throws Error the answer when it is no 2xx */
  async send(request: Template): Promise<void> {
    const wire = this.#idle() ?? this.#open() ?? (await new Promise<Wire>(resolve => this.#waiting.push(resolve)));
    try {
      await wire.send(request);
    } finally {
      const next = this.#waiting.shift();
      if (next) next(wire);
      else this.#free.push(wire);
    }
  }

  /** Opens an answer that goes on and calls `onLine` with each of its lines. Resolves when it has begun. */
  stream(path: string, onLine: (line: string) => void): Promise<void> {
    const { url, headers, tls } = this.#endpoint;
    const { request } = url.startsWith('https:') ? https : http;
    return new Promise((resolve, reject) => {
      const stream = request(new URL(path, url), { ...tls, agent: false, headers }, response => {
        if (response.statusCode !== 200) reject(new Error(`GET ${path} was answered ${response.statusCode}`));
        let rest = '';
        response.setEncoding('utf8').on('data', (chunk: string) => {
          const lines = (rest + chunk).split('\n');
          rest = lines.pop() ?? '';
          for (const line of lines) onLine(line);
        });
        // Closed at the end, by this side.
        response.on('error', () => undefined);
        resolve();
      });
      stream.on('error', reject).end();
      this.#streams.push(stream);
    });
  }

  close(): void {
    for (const wire of this.#all) wire.close();
    for (const stream of this.#streams) stream.destroy();
  }

  /** The one that was used last; those that nobody needed were closed by the server. */
  #idle(): Wire | undefined {
    for (let wire = this.#free.pop(); wire; wire = this.#free.pop()) {
      if (!wire.isBroken) return wire;
      this.#all.delete(wire);
    }
    return undefined;
  }

  #open(): Wire | undefined {
    if (this.#all.size >= this.#most) return undefined;
    const wire = new Wire(this.#endpoint);
    this.#all.add(wire);
    return wire;
  }
}
