import http from 'node:http';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect, isPlatformError, watch, type Client } from '../../client/index.js';
import { Follower, type Seen } from './follower.js';
import { types, type Type } from './scale.js';
import type { Violations } from './violations.js';

/**
 * How a watcher asks. `lines`: newline-delimited JSON, byte by byte as it comes; `sse`: server-sent events, resumed by
 * Last-Event-ID; `selector`: lines of the objects with one label; `client`: the client's `watch()`.
 */
const ways = ['lines', 'sse', 'selector', 'client'] as const;
type Way = (typeof ways)[number];

export const selector = 'half=a';

export interface Watchers {
  followers: { follower: Follower; selective: boolean }[];
  connections: () => number;
  stop: () => Promise<void>;
}

/** A line of a watch, as far as it is looked at; its own checks tell whether it is one. */
interface Line {
  type: 'ADDED' | 'MODIFIED' | 'DELETED' | 'BOOKMARK' | 'ERROR';
  resourceVersion: string;
  previousResourceVersion?: string;
  object: { namespace: string; name: string };
  error?: { code: string; message: string };
}

/** Starts watchers, one way after the other; each follows all types from their first version, for ever. */
export function startWatchers(count: number, url: string, violations: Violations): Watchers {
  const stop = new AbortController();
  const clients: Client[] = [];
  let connections = 0;
  const followers = Array.from({ length: count }, (_, i) => {
    const way: Way = ways[i % ways.length] ?? 'lines';
    const selective = way === 'selector';
    const follower = new Follower({
      name: `watcher${i} (${way})`,
      violations,
      complete: !selective,
      repeats: false,
      remembers: i === 0,
    });
    return { follower, selective, way };
  });
  const loops = followers.flatMap(({ follower, way }) => {
    if (way === 'client') {
      const client = connect({ url, retrySeconds: 60 });
      clients.push(client);
      return types.map(type => followByClient(client, type, follower, violations, stop.signal));
    }
    return types.map(async type => {
      while (!stop.signal.aborted) {
        connections++;
        const error = await followOnce({ url, type, way, follower, violations, signal: stop.signal });
        if (isRefused(error))
          violations.report('refused watch', `${follower.name} of ${type}: ${error.code} ${error.message}`);
        await sleep(100, undefined, { signal: stop.signal }).catch(() => undefined);
      }
    });
  });
  return {
    followers,
    connections: () => connections,
    stop: async () => {
      stop.abort();
      await Promise.all(loops);
      await Promise.all(clients.map(client => client.close()));
    },
  };
}

async function followByClient(
  client: Client,
  type: Type,
  follower: Follower,
  violations: Violations,
  signal: AbortSignal,
): Promise<void> {
  try {
    const options = { since: '0', signal, onBookmark: () => undefined };
    for await (const event of watch(client.collection(type), options)) {
      const { object, resourceVersion, previousResourceVersion } = event;
      follower.take(type, {
        op: event.type,
        version: Number(resourceVersion),
        ...(previousResourceVersion !== undefined && { previous: Number(previousResourceVersion) }),
        name: `${object.namespace ?? ''}/${object.name}`,
      });
    }
  } catch (error) {
    violations.report(
      'ended watch',
      `${follower.name} of ${type}: ${isPlatformError(error) ? error.code : ''} ${String(error)}`,
    );
  }
}

interface Connection {
  url: string;
  type: Type;
  way: Way;
  follower: Follower;
  violations: Violations;
  signal: AbortSignal;
}

/** One connection until it ends, in whatever way. @returns the ERROR line or the refusal that ended it, if one did */
async function followOnce({ url, type, way, follower, violations, signal }: Connection): Promise<Line['error']> {
  const version = String(follower.seen.get(type) ?? 0);
  const query = new URLSearchParams({ watch: 'true', ...(way === 'selector' && { labelSelector: selector }) });
  const sse = way === 'sse';
  // The version of the selector's watcher comes from bookmarks too, as a client's would.
  if (!sse) query.set('resourceVersion', version);
  const headers = sse ? { accept: 'text/event-stream', 'last-event-id': version } : { accept: 'application/x-ndjson' };
  const request = http.get(`${url}/v1/${type}?${query.toString()}`, { headers, signal, agent: false });
  // Bookmarks come every 10 s at the latest.
  request.setTimeout(25_000, () => request.destroy());
  try {
    const response = await new Promise<http.IncomingMessage>((resolve, reject) => {
      request.once('response', resolve).once('error', reject);
    });
    request.on('error', () => undefined);
    response.on('error', () => undefined);
    for await (const text of createInterface({ input: response })) {
      if (signal.aborted) return undefined;
      const json = sse ? /^data: (.*)$/.exec(text)?.[1] : text;
      if (json === undefined || json === '') continue;
      const line = parse(json);
      // A connection that broke in the middle of a line.
      if (line === undefined) return undefined;
      if (response.statusCode !== 200 || line.type === 'ERROR') return line.error;
      if (line.type === 'BOOKMARK') follower.passed(type, Number(line.resourceVersion));
      else follower.take(type, seenOf({ ...line, type: line.type }));
    }
  } catch (error) {
    if (!signal.aborted && !isLost(error)) violations.report('broken watch', `${follower.name}: ${String(error)}`);
  } finally {
    request.destroy();
  }
  return undefined;
}

function seenOf(line: Line & { type: Seen['op'] }): Seen {
  const { type: op, resourceVersion, previousResourceVersion, object } = line;
  return {
    op,
    version: Number(resourceVersion),
    ...(previousResourceVersion !== undefined && { previous: Number(previousResourceVersion) }),
    name: `${object.namespace}/${object.name}`,
  };
}

function parse(json: string): Line | undefined {
  try {
    return JSON.parse(json) as Line;
  } catch {
    return undefined;
  }
}

/** What an API without its database answers is no refusal. */
function isRefused(error: Line['error']): error is NonNullable<Line['error']> {
  return error !== undefined && !['Unavailable', 'TooManyRequests'].includes(error.code);
}

function isLost(error: unknown): boolean {
  return (
    error instanceof Error && 'code' in error && /^(ECONN|EPIPE|UND_|ABORT_ERR|ERR_STREAM)/.test(String(error.code))
  );
}
