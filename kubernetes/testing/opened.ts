import { once } from 'node:events';
import net from 'node:net';
import { parseKubeconfig, Target, type TargetRequest } from '../index.js';
import { FakeApiServer, type FakeCluster } from './apiserver.js';
import { Authority, type Pair } from './certificates.js';
import { base64, kubeconfigText } from './kubeconfig.js';

/** The question that most tests ask. */
export const version: TargetRequest = { method: 'GET', path: '/version' };

/** What a test has opened: servers and targets that are closed after it, in reverse order. */
export class Opened {
  /** Whose certificates the tests' targets trust, with `trust`. */
  readonly authority: Authority;
  /** A certificate of it, for 127.0.0.1 and for api.example. */
  readonly pair: Pair;
  readonly #closers: (() => unknown)[] = [];

  private constructor(authority: Authority, pair: Pair) {
    this.authority = authority;
    this.pair = pair;
  }

  static async create(): Promise<Opened> {
    const authority = await Authority.create();
    return new Opened(authority, await authority.issue('IP:127.0.0.1,DNS:api.example'));
  }

  /** The part of a kubeconfig's cluster that trusts the authority. */
  get trust(): object {
    return { 'certificate-authority-data': base64(this.authority.ca) };
  }

  async fake(cluster: FakeCluster = {}, tls?: Pair & { ca?: string; ciphers?: string }): Promise<FakeApiServer> {
    const fake = await FakeApiServer.start(cluster, tls);
    this.#closers.push(() => fake.stop());
    return fake;
  }

  target(url: string, more: { cluster?: object; user?: object } = {}): Target {
    const target = new Target(parseKubeconfig(kubeconfigText(url, more)));
    this.#closers.push(() => target.close());
    return target;
  }

  /** A TCP server that does with a connection what no HTTP server would. Returns host and port. */
  async raw(onConnection: (socket: net.Socket) => void): Promise<string> {
    const sockets = new Set<net.Socket>();
    const server = net.createServer(socket => {
      sockets.add(socket.on('error', () => undefined));
      onConnection(socket);
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    this.#closers.push(async () => {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, 'close');
    });
    return `127.0.0.1:${(server.address() as net.AddressInfo).port}`;
  }

  /** Runs `close` with the others. */
  later(close: () => unknown): void {
    this.#closers.push(close);
  }

  async close(): Promise<void> {
    for (const close of this.#closers.splice(0).reverse()) await close();
  }
}
