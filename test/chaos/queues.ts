import { Connection } from 'rabbitmq-client';
import { once } from 'node:events';
import { connect, events, type Client } from '../../client/index.js';
import { Follower } from './follower.js';
import { types } from './scale.js';
import type { Violations } from './violations.js';

const exchange = (type: string) => `syncsets.events.${type}`;

/** A message on an exchange of events, as far as it is looked at. */
interface Message {
  op: 'ADDED' | 'MODIFIED' | 'DELETED';
  type: string;
  resourceVersion: string;
  previousResourceVersion: string;
  object: { namespace: string; name: string };
}

export interface Queues {
  followers: Follower[];
  stop: () => Promise<void>;
}

/**
 * Two consumers of events. The first binds a durable quorum queue to the exchanges of all types by itself, as a program in any
 * language does, and trusts in nothing else: with that queue there, every version has to come through it. The second is the
 * client's `events()`, whose queue lives as long as its connection, and which fills gaps over HTTP.
 */
export async function startQueues(
  urls: { http: string; amqp: readonly [string, string] },
  violations: Violations,
): Promise<Queues> {
  const stop = new AbortController();
  const durable = new Follower({ name: 'queue0 (durable)', violations, complete: true, repeats: true });
  const broker = new Connection({ url: urls.amqp[0], heartbeat: 5, retryLow: 200, retryHigh: 2_000 });
  broker.on('error', () => undefined);
  const queue = 'chaos.events';
  const consumer = broker.createConsumer(
    {
      queue,
      // One consumer at a time: else the next connection may get newer messages before what was on its way to a dead one.
      queueOptions: { durable: true, arguments: { 'x-queue-type': 'quorum', 'x-single-active-consumer': true } },
      exchanges: types.map(type => ({ exchange: exchange(type), type: 'fanout', durable: true })),
      queueBindings: types.map(type => ({ exchange: exchange(type), queue })),
      qos: { prefetchCount: 500 },
      // One handler after the other: acknowledged in order.
      concurrency: 1,
    },
    ({ body }: { body?: unknown }) => {
      const { op, type, resourceVersion, previousResourceVersion, object } = body as Message;
      durable.take(type, {
        op,
        version: Number(resourceVersion),
        previous: Number(previousResourceVersion),
        name: `${object.namespace}/${object.name}`,
      });
    },
  );
  consumer.on('error', () => undefined);
  await once(consumer, 'ready');

  const filled = new Follower({ name: 'queue1 (events)', violations, complete: true, repeats: false });
  const quiet = { info: () => undefined, warn: () => undefined };
  const client: Client = connect({ url: urls.http, amqpUrl: urls.amqp[1], retrySeconds: 60, log: quiet });
  const loops = types.map(async type => {
    try {
      for await (const event of events(client.collection(type), { since: '0', signal: stop.signal })) {
        const { object, resourceVersion, previousResourceVersion } = event;
        filled.take(type, {
          op: event.type,
          version: Number(resourceVersion),
          ...(previousResourceVersion !== undefined && { previous: Number(previousResourceVersion) }),
          name: `${object.namespace ?? ''}/${object.name}`,
        });
      }
    } catch (error) {
      violations.report('ended watch', `${filled.name} of ${type}: ${String(error)}`);
    }
  });
  return {
    followers: [durable, filled],
    stop: async () => {
      stop.abort();
      await Promise.all(loops);
      await consumer.close();
      await broker.close();
      await client.close();
    },
  };
}
