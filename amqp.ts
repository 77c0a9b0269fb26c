import { readFileSync } from 'node:fs';
import { Socket } from 'node:net';
import type { Connection } from 'rabbitmq-client';

// What both ends of RabbitMQ must agree on: the API declares and publishes, clients and workers declare and consume, and the
// broker refuses a second opinion. Nothing here is deprecated in 4.x: queues are durable quorum queues, or exclusive.

/** The fanout exchange that carries every event of a type. */
export const eventExchange = (type: string) => `syncsets.events.${type}`;

/** The queue that carries the keys of a controller; each goes to one of its listeners. */
export const workQueue = (controller: string) => `syncsets.work.${controller}`;

/** Arguments of a work queue. */
export const workQueueArguments = { 'x-queue-type': 'quorum' } as const;

/**
 * Where messages end that others have put on our queues, with the reason in their headers. It holds the latest 1,000 of them,
 * at most 64 MiB, for at most a week.
 */
export const parkingQueue = {
  queue: 'syncsets.parked',
  durable: true,
  arguments: {
    'x-queue-type': 'quorum' as const,
    'x-max-length': 1_000,
    'x-max-length-bytes': 2 ** 26,
    'x-message-ttl': 7 * 24 * 3_600_000,
  },
};

/** How to reach a broker, in the words of rabbitmq-client. */
export interface BrokerAddress {
  url: string;
  /** Host and port of each node, tried in turn from the first. */
  hosts?: string[];
  tls?: { ca: Buffer };
}

/**
 * Reads the address of RabbitMQ: `amqp://user:password@host:5672/vhost`, or `amqps` for TLS; several joined by commas for the
 * nodes of one cluster, which are tried in turn, beginning with any: the replicas of the platform spread over them. `?cacertfile=/path/ca.pem`, as RabbitMQ's own clients have it, names the
 * authorities to trust instead of the system's.
 *
 * @throws TypeError saying what is wrong, without the address, which holds a password
 */
export function brokerAddress(text: string): BrokerAddress {
  const urls = text.split(',').map(one => {
    const url = URL.canParse(one.trim()) ? new URL(one.trim()) : undefined;
    if (url?.hostname && /^amqps?:$/.test(url.protocol)) return url;
    throw new TypeError(
      'is not a URL that begins with amqp:// or amqps://, or several joined by commas (a comma in a password is written %2C)',
    );
  });
  const [first] = urls;
  if (!first) throw new TypeError('names no host');
  const rest = ({ protocol, username, password, pathname, search }: URL) =>
    [protocol, username, password, pathname.replace(/^\/$/, ''), search].join('\n');
  if (urls.some(url => rest(url) !== rest(first)))
    throw new TypeError('names nodes of one cluster, which must agree in all but host and port');
  // rabbitmq-client 5.0.8 looks "[::1]" up as a name, and for ever.
  if (urls.some(({ hostname }) => hostname.startsWith('[')))
    throw new TypeError('holds an IPv6 address, which the client cannot connect to: use a host name');
  const begin = Math.floor(Math.random() * urls.length);
  const hosts = [...urls.slice(begin), ...urls.slice(0, begin)].map(({ host }) => host);
  const file = first.searchParams.get('cacertfile');
  if (file !== null && first.protocol !== 'amqps:') throw new TypeError('has a cacertfile, which needs amqps://');
  return {
    url: first.href,
    ...(urls.length > 1 ? { hosts } : {}),
    ...(file === null ? {} : { tls: { ca: authorities(file) } }),
  };
}

/**
 * The socket of a connection, which is no part of rabbitmq-client's API; undefined: there is none, or another release keeps it elsewhere.
 * Corked, it lets many small frames leave with one system call; without it all goes as well, only slower.
 */
export function socketOf(connection: Connection): Socket | undefined {
  const socket: unknown = Reflect.get(connection, '_socket');
  return socket instanceof Socket ? socket : undefined;
}

function authorities(file: string): Buffer {
  try {
    return readFileSync(file);
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : 'unreadable';
    throw new TypeError(`names the cacertfile "${file}", which cannot be read (${code})`, { cause: error });
  }
}
