import { Backoff } from './backoff.js';
import type { Broker } from './broker.js';
import { ConnectionError, isPlatformError, PlatformError, readError } from './errors.js';
import { linesOf } from './lines.js';
import { Replay, type Bookmark, type WatchEvent } from './replay.js';
import { compareVersions, type Resource } from './resource.js';
import type { Transport } from './transport.js';

/** What can be watched: a collection of the client. */
export interface Watchable<T extends Resource> {
  readonly type: string;
  /** `/v1/clusters`. */
  readonly path: string;
  /** @internal */
  readonly transport: Transport;
  /** @internal */
  readonly broker?: Broker | undefined;
  /** @internal That of all its calls. */
  readonly signal?: AbortSignal | undefined;
  /** Checks and types what came over the wire. */
  readonly parse: (object: unknown) => T;
}

/**
 * Which changes a watch tells, and from where on.
 *
 * @example
 * const { items, resourceVersion } = await client.clusters.list();
 * for await (const event of watch(client.clusters, { since: resourceVersion, signal: AbortSignal.timeout(60_000) })) apply(items, event);
 */
export interface WatchOptions {
  /** Only objects of this namespace. */
  namespace?: string;
  /** Only objects with these labels: one that begins to match arrives as ADDED, one that ceases to as DELETED. */
  labelSelector?: string;
  /** Only objects with these field values, in the same way: `status.serverVersion~v1.34`. */
  fieldSelector?: string;
  /**
   * Only changes after this version. The watch then throws `Expired` when the server no longer holds them: what its
   * consumer knew at that version is unknown to it, so it cannot tell what has vanished.
   */
  since?: string;
  /** Ends the iteration, without an error; that of `client.with({ signal })` ends it by throwing its reason. */
  signal?: AbortSignal;
  /** Told between events when everything up to a version has been told, and when the objects of now are complete. */
  onBookmark?: (bookmark: Bookmark) => void;
  /** Told when the connection was lost and is made anew; nothing needs to be done about it. */
  onInterruption?: (error: unknown) => void;
}

/** Bookmarks come every 10 s at the latest; a stream that is silent for three of them is dead. */
const longestSilence = 30_000;

/**
 * Follows the changes of a collection: first the objects of now as ADDED (unless `since` is given), then each change once
 * and in order, for ever. Goes on by version after lost connections and server restarts. When the server no longer holds
 * the version it lists anew and tells only what differs, so that whoever applies the events has the right state; a DELETED
 * of that kind holds no more than key and uid.
 *
 * @throws PlatformError the server refuses the watch for good: a bad selector, no such type, no access; Error: the client
 *   was closed; the reason of the signal that the client was given by `with`
 * @example
 * for await (const event of watch(client.clusters, { labelSelector: 'env=prod' })) {
 *   console.log(event.type, event.object.name);
 * }
 */
export async function* watch<T extends Resource>(
  collection: Watchable<T>,
  options: WatchOptions = {},
): AsyncGenerator<WatchEvent<T>, void, undefined> {
  const signal = either(options.signal, collection.signal);
  yield* follow(collection, { ...options, signal }, new Replay<T>(options.since));
  if (!options.signal?.aborted) collection.signal?.throwIfAborted();
}

/**
 * Aborts with the first of two signals, as far as there are any.
 * @internal
 */
export function either(one: AbortSignal | undefined, other: AbortSignal | undefined): AbortSignal | undefined {
  return one && other ? AbortSignal.any([one, other]) : (one ?? other);
}

/**
 * Follows a collection from where `replay` stands, until `options.signal` aborts or all changes up to the version `until`
 * are told.
 * @internal
 */
export async function* follow<T extends Resource>(
  collection: Watchable<T>,
  options: WatchOptions,
  replay: Replay<T>,
  until?: string,
): AsyncGenerator<WatchEvent<T>, void, undefined> {
  const { signal } = options;
  const backoff = new Backoff(50, 5000);
  const reached = () => until !== undefined && replay.seen !== undefined && compareVersions(replay.seen, until) >= 0;
  while (!signal?.aborted && !reached()) {
    let retryAfter = 0;
    try {
      if (replay.seen === undefined) replay.beginList();
      for await (const line of linesOf(await open(collection, options, replay.seen), longestSilence)) {
        const event = readLine(collection, line);
        for (const told of replay.accept(event)) yield told;
        if (event.type === 'BOOKMARK') options.onBookmark?.(event);
        if (signal?.aborted || reached()) return;
        backoff.reset();
      }
      options.onInterruption?.(new ConnectionError('Ended', true, `The server ended the watch of ${collection.type}`));
    } catch (error) {
      if (signal?.aborted) return;
      if (isPlatformError(error, 'Expired') && replay.canList) replay.beginList();
      else if (isFinal(error)) throw error;
      if (error instanceof PlatformError) retryAfter = (error.retryAfter ?? 0) * 1000;
      options.onInterruption?.(error);
    }
    await collection.transport.pause(backoff.next(retryAfter), signal);
  }
}

function open<T extends Resource>(collection: Watchable<T>, options: WatchOptions, since: string | undefined) {
  const { namespace, labelSelector, fieldSelector, signal } = options;
  return collection.transport.open({
    method: 'GET',
    path: collection.path,
    query: { watch: true, resourceVersion: since, namespace, labelSelector, fieldSelector },
    signal,
  });
}

function readLine<T extends Resource>({ type, parse }: Watchable<T>, line: string): WatchEvent<T> | Bookmark {
  const value = parseJson(line);
  if (typeof value === 'object' && value !== null && 'type' in value) {
    if (value.type === 'ERROR' && 'error' in value) {
      const error = readError(value.error);
      if (error) throw new PlatformError(error.status, error);
    }
    if ('resourceVersion' in value && typeof value.resourceVersion === 'string') {
      const { resourceVersion } = value;
      if (value.type === 'BOOKMARK') {
        return { type: value.type, resourceVersion, ...('initialEventsEnd' in value && { initialEventsEnd: true }) };
      }
      if ((value.type === 'ADDED' || value.type === 'MODIFIED' || value.type === 'DELETED') && 'object' in value) {
        const previous = 'previousResourceVersion' in value ? value.previousResourceVersion : undefined;
        return {
          type: value.type,
          resourceVersion,
          ...(typeof previous === 'string' && { previousResourceVersion: previous }),
          object: parse(value.object),
        };
      }
    }
  }
  throw new ConnectionError(
    'BadLine',
    true,
    `The watch of ${type} sent a line that is no event; is the URL that of the API?`,
  );
}

function parseJson(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}

/**
 * Whether asking again would get the same answer.
 * @internal
 */
export function isFinal(error: unknown): boolean {
  if (error instanceof PlatformError) return error.status < 500 && ![408, 429].includes(error.status);
  return !(error instanceof ConnectionError);
}
