import { Connection, type AsyncMessage, type Consumer } from 'rabbitmq-client';
import type { LogEvent } from '../db/index.js';

/** An event as the log has it, with whatever else is wanted of it. */
export function logEvent(version: number, rest: Partial<LogEvent> = {}): LogEvent {
  return {
    version,
    previous: version - 1,
    op: 'MODIFIED',
    namespace: 'default',
    name: 'one',
    uid: '0b9a3e0e-3f7d-4a55-9a8b-2f6f3f1f4f10',
    object: '{}',
    before: null,
    changed: ['spec'],
    actor: 'client',
    own: false,
    traceparent: null,
    at: Date.now(),
    ...rest,
  };
}

/** Takes what comes to a queue of its own that is bound to a type's exchange, from the end of this call on. */
export async function hear(
  connection: Connection,
  exchange: string,
  take: (message: AsyncMessage) => void,
): Promise<Consumer> {
  const consumer = connection.createConsumer(
    {
      queue: '',
      queueOptions: { exclusive: true },
      exchanges: [{ exchange, type: 'fanout', durable: true }],
      queueBindings: [{ exchange }],
      noAck: true,
    },
    take,
  );
  await new Promise<void>(resolve => consumer.once('ready', resolve));
  return consumer;
}

/** The version of the event that a message tells. */
export function versionOf({ headers }: AsyncMessage): number {
  return Number(headers?.['resourceVersion']);
}

/** The version of each message that comes to a queue bound to a type's exchange, in their order. */
export async function listen(
  url: string,
  exchange: string,
): Promise<{ versions: number[]; close: () => Promise<void> }> {
  const connection = new Connection(url);
  connection.on('error', () => undefined);
  const versions: number[] = [];
  const consumer = await hear(connection, exchange, message => void versions.push(versionOf(message)));
  return {
    versions,
    close: async () => {
      await consumer.close();
      await connection.close();
    },
  };
}

/** What is left when each version is dropped that is not above those before it. */
export function withoutRepeats(versions: number[]): number[] {
  let seen = 0;
  return versions.filter(version => version > seen && (seen = version));
}
