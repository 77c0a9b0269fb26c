import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';

/**
 * What a network does to its connections. `reset`: all end at once, new ones too. `silence`: nothing passes, nothing ends; what
 * was under way arrives afterwards. `half`: the far end sees them end, the near end hears nothing until the network is mended.
 */
export type Cut = 'reset' | 'silence' | 'half';
export const cuts = ['reset', 'silence', 'half'] as const;

interface Pair {
  near: Socket;
  far: Socket;
}

/** A TCP proxy that can be cut; with several targets it takes them in turn and passes over those that refuse. */
export class Proxy {
  readonly name: string;
  readonly #server: Server;
  readonly #targets: readonly number[];
  readonly #pairs = new Set<Pair>();
  /** Accepted and not yet connected, or without a far end. */
  readonly #lone = new Set<Socket>();
  #cut: Cut | undefined;
  #turn = 0;

  private constructor(name: string, targets: readonly number[], turn: number) {
    this.name = name;
    this.#targets = targets;
    this.#turn = turn;
    this.#server = createServer({ noDelay: true }, near => this.#accept(near));
  }

  /** @param targets ports of loopback; @param turn which of them is asked first */
  static async start(name: string, targets: readonly number[], turn = 0): Promise<Proxy> {
    const proxy = new Proxy(name, targets, turn);
    await once(proxy.#server.listen(0, '127.0.0.1'), 'listening');
    return proxy;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** Replaces host and port of a URL by those of the proxy. */
  before(url: string): string {
    const changed = new URL(url);
    changed.hostname = '127.0.0.1';
    changed.port = String(this.port);
    return changed.href.replace(/\/$/, '');
  }

  cut(cut: Cut): void {
    this.#cut = cut;
    for (const pair of this.#pairs) {
      if (cut !== 'reset') {
        pair.near.unpipe().pause();
        pair.far.unpipe().pause();
      }
      if (cut === 'reset') pair.near.resetAndDestroy();
      if (cut === 'half') {
        this.#pairs.delete(pair);
        this.#lone.add(pair.near);
      }
      if (cut !== 'silence') pair.far.resetAndDestroy();
    }
  }

  mend(): void {
    const cut = this.#cut;
    this.#cut = undefined;
    for (const near of this.#lone) {
      this.#lone.delete(near);
      if (cut === 'silence') this.#connect(near);
      else near.resetAndDestroy();
    }
    if (cut === 'silence') for (const pair of this.#pairs) join(pair);
  }

  async stop(): Promise<void> {
    const closed = once(this.#server.close(), 'close');
    for (const { near, far } of this.#pairs) for (const socket of [near, far]) socket.destroy();
    for (const near of this.#lone) near.destroy();
    await closed;
  }

  #accept(near: Socket): void {
    near.on('error', () => undefined);
    near.once('close', () => this.#lone.delete(near));
    if (this.#cut === 'reset') {
      near.resetAndDestroy();
      return;
    }
    this.#lone.add(near);
    if (this.#cut === undefined) this.#connect(near);
  }

  #connect(near: Socket, tries = this.#targets.length): void {
    if (tries === 0) {
      this.#lone.delete(near);
      near.resetAndDestroy();
      return;
    }
    const port = this.#targets[this.#turn++ % this.#targets.length] ?? 0;
    const far = connect({ host: '127.0.0.1', port, noDelay: true });
    const refused = () => {
      if (!near.destroyed) this.#connect(near, tries - 1);
    };
    far.once('error', refused);
    far.once('connect', () => {
      far.off('error', refused);
      far.on('error', () => undefined);
      this.#lone.delete(near);
      if (near.destroyed || this.#cut === 'reset' || this.#cut === 'half') {
        near.resetAndDestroy();
        far.resetAndDestroy();
        return;
      }
      const pair = { near, far };
      this.#pairs.add(pair);
      near.once('close', () => this.#end(pair, far));
      far.once('close', () => this.#end(pair, near));
      if (this.#cut === undefined) join(pair);
    });
  }

  #end(pair: Pair, other: Socket): void {
    // Not in the set: cut in half, so the near end is to hear nothing yet.
    if (this.#pairs.delete(pair) || other === pair.far) other.destroy();
  }
}

function join({ near, far }: Pair): void {
  near.pipe(far);
  far.pipe(near);
}
