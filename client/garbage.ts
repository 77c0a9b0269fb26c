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
   * deleted, in sets. May be called any time and again; `waiting` tells which of them wait for dependents. There is no dry run
   * of it: with `dryRun` it throws TypeError and deletes nothing.
   *
   * @example
   * const { deleted } = await client.garbage.collect([{ type: 'clusters', namespace: 'foo', name: 'cluster1' }]);
   */
  async collect(
    objects: ({ type: string } & Key)[],
    options?: Omit<CallOptions, 'dryRun' | 'idempotencyKey'>,
  ): Promise<GarbageResult> {
    const { dryRun, claim, signal, traceparent }: CallOptions = { ...this.#options, ...options };
    // The server knows of none and would delete.
    if (dryRun === true) throw new TypeError('garbage.collect has no dry run: what no owner holds would be deleted');
    const answer = await this.#transport.send({
      method: 'POST',
      path: '/v1/garbage',
      body: { objects: objects.map(({ type, namespace, name }) => ({ type, namespace, name })) },
      repeat: true,
      claim,
      signal,
      traceparent,
    });
    // The server validates what it sends; its type is that of the document which this client was generated from.
    return answer as GarbageResult;
  }
}
