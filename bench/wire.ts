import net from 'node:net';
import tls from 'node:tls';
import type { Endpoint, Template } from './load.js';

/**
 * One kept HTTP/1.1 connection that asks one thing at a time. The load generator shares two cores with what it measures, and a
 * client of node:http takes 120 us for each request of a kept connection; this takes a fourth of it, from every server's
 * figures alike. It reads what those servers send: a length, or chunks.
 */
export class Wire {
  readonly #socket: net.Socket;
  readonly #head: string;
  #received: Buffer[] = [];
  #pending: { resolve: () => void; reject: (error: Error) => void; what: string } | undefined;
  #broken: Error | undefined;

  constructor({ url, headers = {}, tls: options }: Endpoint) {
    const { protocol, hostname, port, host } = new URL(url);
    const place = { host: hostname, port: Number(port) };
    this.#socket = protocol === 'https:' ? tls.connect({ ...options, ...place }) : net.connect(place);
    this.#head = Object.entries({ host, accept: 'application/json', ...headers })
      .map(([name, value]) => `${name}: ${value}\r\n`)
      .join('');
    this.#socket.setNoDelay(true);
    this.#socket.on('data', chunk => this.#read(chunk));
    this.#socket.on('error', error => this.#break(error));
    this.#socket.on('close', () => this.#break(new Error('the server closed the connection')));
  }

  /** Whether it was closed: servers do that to connections that are idle for some seconds. */
  get isBroken(): boolean {
    return this.#broken !== undefined;
  }

  /** Sends a request and waits for the whole answer. @throws Error the answer when it is no 2xx */
  send({ method, path, body }: Template): Promise<void> {
    if (this.#broken) return Promise.reject(this.#broken);
    return new Promise((resolve, reject) => {
      this.#pending = { resolve, reject, what: `${method} ${path}` };
      const about =
        body === undefined ? '' : `content-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\n`;
      this.#socket.write(`${method} ${path} HTTP/1.1\r\n${this.#head}${about}\r\n${body ?? ''}`);
    });
  }

  close(): void {
    this.#socket.destroy();
  }

  #read(chunk: Buffer): void {
    this.#received.push(chunk);
    const all = this.#received.length === 1 ? chunk : Buffer.concat(this.#received);
    const end = all.indexOf('\r\n\r\n');
    if (end < 0) return;
    const head = all.toString('latin1', 0, end);
    const length = /\r\ncontent-length: *(\d+)/i.exec(head)?.[1];
    // One answer is awaited at a time, so the last chunk is the end of what has come.
    const whole =
      length === undefined
        ? all.toString('latin1', all.length - 5) === '0\r\n\r\n'
        : all.length >= end + 4 + Number(length);
    if (!whole) return;
    this.#received = [];
    const pending = this.#pending;
    this.#pending = undefined;
    if (/^HTTP\/1\.1 2/.test(head)) pending?.resolve();
    else pending?.reject(new Error(`${pending.what} was answered ${all.toString('utf8')}`));
  }

  #break(error: Error): void {
    this.#broken ??= error;
    this.#pending?.reject(error);
  }
}
