import http from 'node:http';
import type { AddressInfo } from 'node:net';

/** A request as a fake server saw it. */
export interface Seen {
  method: string;
  url: URL;
  headers: http.IncomingHttpHeaders;
  body: unknown;
}

/** Answers one request; may keep the response for later, or destroy its socket. */
export type Answer = (seen: Seen, response: http.ServerResponse) => void | Promise<void>;

/** An HTTP server on loopback that does what a real one will not do on demand. */
export class FakeServer {
  readonly seen: Seen[] = [];
  readonly #server: http.Server;
  #answer: Answer;

  private constructor(answer: Answer) {
    this.#answer = answer;
    this.#server = http.createServer((request, response) => {
      const chunks: Buffer[] = [];
      request.on('data', (chunk: Buffer) => chunks.push(chunk));
      request.on('end', () => {
        const text = Buffer.concat(chunks).toString();
        const seen: Seen = {
          method: request.method ?? '',
          url: new URL(request.url ?? '/', 'http://fake'),
          headers: request.headers,
          body: text === '' ? undefined : JSON.parse(text),
        };
        this.seen.push(seen);
        void Promise.resolve(this.#answer(seen, response)).catch((error: unknown) => response.destroy(error as Error));
      });
    });
  }

  static async start(answer: Answer, port = 0): Promise<FakeServer> {
    const fake = new FakeServer(answer);
    await new Promise<void>((resolve, reject) => {
      fake.#server.once('error', reject);
      fake.#server.listen(port, '127.0.0.1', resolve);
    });
    return fake;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  answer(answer: Answer): void {
    this.#answer = answer;
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise(resolve => this.#server.close(resolve));
  }
}

/** Answers with JSON. */
export function json(response: http.ServerResponse, status: number, body: unknown, headers: object = {}): void {
  response.writeHead(status, { 'content-type': 'application/json', ...headers });
  response.end(JSON.stringify(body));
}

/** An error as the API words it. */
export function failure(response: http.ServerResponse, status: number, code: string, headers: object = {}): void {
  json(response, status, { error: { code, status, message: `${code} happened`, requestId: 'r1' } }, headers);
}
