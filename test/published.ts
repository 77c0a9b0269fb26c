import { Connection } from 'rabbitmq-client';

/** The version of each message that comes to a queue bound to a type's exchange, in their order. */
export async function listen(
  url: string,
  exchange: string,
): Promise<{ versions: number[]; close: () => Promise<void> }> {
  const connection = new Connection(url);
  connection.on('error', () => undefined);
  const versions: number[] = [];
  const consumer = connection.createConsumer(
    {
      queue: '',
      queueOptions: { exclusive: true },
      exchanges: [{ exchange, type: 'fanout', durable: true }],
      queueBindings: [{ exchange }],
      noAck: true,
    },
    message => void versions.push(Number(message.headers?.['resourceVersion'])),
  );
  await new Promise<void>(resolve => consumer.once('ready', resolve));
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
