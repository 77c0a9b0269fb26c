import { Connection } from 'rabbitmq-client';
import type { PublishJob } from '../load.js';

/** Persistent messages to a fanout exchange, 500 at once, each 500 confirmed before the next. */
export async function publish({ amqpUrl, exchange, count, message }: PublishJob): Promise<void> {
  const connection = new Connection(amqpUrl);
  const publisher = connection.createPublisher({ confirm: true });
  const body = Buffer.from(message.body);
  const envelope = { exchange, durable: true, contentType: 'application/json', headers: message.headers };
  try {
    for (let at = 0; at < count; at += 500) {
      await Promise.all(Array.from({ length: Math.min(500, count - at) }, () => publisher.send(envelope, body)));
    }
  } finally {
    await publisher.close();
    await connection.close();
  }
}
