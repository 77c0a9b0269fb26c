import type { CallOptions, MergePatch, Preconditions } from './calls.js';
import { Collection } from './collection.js';
import type { Revealed } from './generated/index.js';
import type { Key, Resource } from './resource.js';

/** What collections have whose type has a status. */
export interface StatusCalls<T, StatusInput> {
  /**
   * Reads the whole object, as `read` does, at the address of its status; throws `NotFound`.
   *
   * @example
   * const { status } = await client.clusters.readStatus({ namespace: 'foo', name: 'cluster1' });
   */
  readStatus(key: Key, options?: CallOptions): Promise<T>;
  /**
   * Replaces an object's status and nothing else; `uid` and `resourceVersion` beside it are preconditions.
   *
   * @example
   * await client.clusters.replaceStatus({ name: 'cluster1' }, { status: { serverVersion: 'v1.34.4' } });
   */
  replaceStatus(key: Key, body: StatusInput, options?: CallOptions): Promise<T>;
  /**
   * Changes parts of an object's status; `uid` and `resourceVersion` in `preconditions` say which state it is meant for.
   *
   * @example
   * await client.clusters.patchStatus(cluster, { nodeCount: 3 }, { uid: cluster.uid });
   */
  patchStatus(
    key: Key,
    status: T extends { status?: infer Status } ? MergePatch<NonNullable<Status>> : never,
    preconditions?: Preconditions,
    options?: CallOptions,
  ): Promise<T>;
}

/** What collections have whose type has secret fields. */
export interface SecretCalls {
  /**
   * The secret fields in clear. Needs a held claim of a controller that is registered with `reveal` for the type.
   *
   * @example
   * const { fields } = await context.client.clusters.reveal(cluster);
   */
  reveal(key: Key, options?: CallOptions): Promise<Revealed>;
}

/** A collection with all that a type can have. */
export class FullCollection<T extends Resource, Input extends object>
  extends Collection<T, Input>
  implements StatusCalls<T, object>, SecretCalls
{
  async readStatus(key: Key, options?: CallOptions): Promise<T> {
    return this.#offered(this.service(options).readStatus?.(this.keyOf(key)));
  }

  async replaceStatus(key: Key, body: object, options?: CallOptions): Promise<T> {
    return this.#offered(this.service(options).replaceStatus?.({ ...this.keyOf(key), body }));
  }

  async patchStatus(key: Key, status: object, preconditions: object = {}, options?: CallOptions): Promise<T> {
    const body = { ...preconditions, status };
    return this.#offered(this.service(options).patchStatus?.({ ...this.keyOf(key), body }));
  }

  async reveal(key: Key, options?: CallOptions): Promise<Revealed> {
    return this.#offered(this.service(options).reveal?.(this.keyOf(key)));
  }

  #offered<R>(answer: Promise<R> | undefined): Promise<R> {
    if (!answer) throw new TypeError(`${this.type} has no status, or no secret fields`);
    return answer;
  }
}
