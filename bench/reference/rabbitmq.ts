import { Connection } from 'rabbitmq-client';
import type { PublishJob } from '../load.js';

/**
 * Persistent messages to a fanout exchange by the client's `send`, 500 at once, each 500 confirmed before the next. Each is one that
 * the relay published, with the same headers, content type and body, and its body is made once: what it costs is the client, the
 * broker and the listener, in which the relay's messages differ by nothing. It does not keep the broker busy while it waits for
 * the last of 500, as the relay does, which on a machine with cores to spare is to its disadvantage.
 */
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
