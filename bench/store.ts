import { randomUUID } from 'node:crypto';
import { Database, ObjectStore } from '../db/index.js';
import { annotations, labels } from './objects.js';

/** What one stored object is made of, beside the labels and annotations of all. */
export interface Stored {
  namespace: string;
  name: string;
  labels?: Record<string, string>;
  owners?: object[];
}

/**
 * Stores objects of 1 KB as an API process would, 500 with a statement, and lets Postgres count them as autovacuum would within a
 * minute.
 */
export async function store(
  databaseUrl: string,
  type: string,
  count: number,
  one: (number: number) => Stored,
): Promise<void> {
  const database = new Database({ connection: { connectionString: databaseUrl }, log: () => undefined });
  try {
    const objects = new ObjectStore(database);
    const filled = { ...annotations, 'example.com/sent': '', 'example.com/filling': 'x'.repeat(500) };
    const write = async (number: number) => {
      const { namespace, name, labels: own, owners } = one(number);
      const key = { namespace, name };
      const uid = randomUUID();
      const all = { ...labels, ...own };
      const object = { type, ...key, uid, generation: 1, labels: all, annotations: filled, ...(owners && { owners }) };
      const written = {
        op: 'create',
        uid,
        object: JSON.stringify(object),
        labels: all,
        actor: 'client',
        own: false,
      } as const;
      const { outcome } = await objects.write(type, { ...key, ...written, changed: ['spec'] });
      if (outcome !== 'ok') throw new Error(`an object was ${outcome}`);
    };
    await Promise.all(Array.from({ length: count }, (_, number) => write(number)));
    await database.query({ text: 'analyze syncsets.objects, syncsets.events' });
  } finally {
    await database.stop();
  }
}
