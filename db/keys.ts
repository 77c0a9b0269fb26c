import type { Database } from './database.js';

/** A key of the platform, encrypted with the key `keyId` of ENCRYPTION_KEY. */
export interface WrappedKey {
  keyId: string;
  wrapped: string;
}

/** The stored key of a purpose; the given one is stored and returned when there is none yet. */
export async function platformKey(database: Database, purpose: string, fresh: WrappedKey): Promise<WrappedKey> {
  await database.query({
    text: 'insert into syncsets.keys (purpose, key_id, wrapped) values ($1, $2, $3) on conflict (purpose) do nothing',
    values: [purpose, fresh.keyId, fresh.wrapped],
  });
  const [row] = await database.query<{ key_id: string; wrapped: string }>({
    text: 'select key_id, wrapped from syncsets.keys where purpose = $1',
    values: [purpose],
  });
  if (!row) throw new Error(`the platform key ${purpose} vanished`);
  return { keyId: row.key_id, wrapped: row.wrapped };
}

/** Replaces a key's wrapping by one with the current encryption key. */
export async function rewrapPlatformKey(database: Database, purpose: string, key: WrappedKey): Promise<void> {
  await database.query({
    text: 'update syncsets.keys set key_id = $2, wrapped = $3 where purpose = $1',
    values: [purpose, key.keyId, key.wrapped],
  });
}
