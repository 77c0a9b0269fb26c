import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';

/** A way to a broker that can be held up and cut. */
export class Way {
  readonly #sockets = new Set<Socket>();
  readonly #server: Server;
  #held: 'nothing' | 'there' | 'back' = 'nothing';

  constructor(broker: URL) {
    this.#server = createServer(near => {
      const far = connect(Number(broker.port), broker.hostname);
      near.on('data', bytes => this.#held === 'there' || far.write(bytes));
      far.on('data', bytes => this.#held === 'back' || near.write(bytes));
      for (const [one, other] of [
        [near, far],
        [far, near],
      ] as const) {
        this.#sockets.add(one);
        one.on('error', () => undefined).on('close', () => other.destroy());
      }
    });
  }

  /** @returns the port that leads to the broker */
  async open(): Promise<number> {
    await new Promise<void>(resolve => this.#server.listen(0, '127.0.0.1', resolve));
    return (this.#server.address() as AddressInfo).port;
  }

  /** From now on nothing reaches the broker, or nothing that it says comes back. */
  hold(direction: 'there' | 'back' = 'there'): void {
    this.#held = direction;
  }

  /** Ends all connections; new ones get through. */
  cut(): void {
    this.#held = 'nothing';
    for (const socket of this.#sockets) socket.destroy();
    this.#sockets.clear();
  }

  close(): void {
    this.cut();
    this.#server.close();
  }
}
