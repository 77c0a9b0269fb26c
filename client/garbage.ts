import type { CallOptions } from './calls.js';
import type { GarbageResult } from './generated/index.js';
import type { Key } from './resource.js';
import type { Transport } from './transport.js';

/** What owners leave behind; the controller `garbagecollector` looks after it. */
export class Garbage {
  readonly #transport: Transport;
  readonly #options: CallOptions;

  /** @internal */
  constructor(transport: Transport, options: CallOptions) {
    this.#transport = transport;
    this.#options = options;
  }

  /**
   * Looks after objects, at most 100, which may be gone, and after all that name them as an owner: what no owner holds is
   * deleted, in sets. May be called any time and again; `waiting` tells which of them wait for dependents.
   *
   * @example
   * const { deleted } = await client.garbage.collect([{ type: 'clusters', namespace: 'foo', name: 'cluster1' }]);
   */
  async collect(objects: ({ type: string } & Key)[], options?: CallOptions): Promise<GarbageResult> {
    const answer = await this.#transport.send({
      method: 'POST',
      path: '/v1/garbage',
      body: { objects: objects.map(({ type, namespace, name }) => ({ type, namespace, name })) },
      repeat: true,
      ...this.#options,
      ...options,
    });
    // The server validates what it sends; its type is that of the document which this client was generated from.
    return answer as GarbageResult;
  }
}
