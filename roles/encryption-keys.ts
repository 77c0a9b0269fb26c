import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Settings } from '../config.js';

/** The keys of secret fields: those that are set, or the one that belongs to the embedded database. */
export function encryptionKeysOf({ encryptionKeys, dataDir }: Settings): Buffer[] {
  return encryptionKeys ?? [generatedKey(dataDir)];
}

/** Made once, beside the embedded database: whoever keeps its directory keeps the key. */
function generatedKey(dataDir: string): Buffer {
  const file = join(dataDir, 'encryption-key');
  if (!existsSync(file)) {
    mkdirSync(dataDir, { recursive: true });
    writeFileSync(file, `${randomBytes(32).toString('base64')}\n`, { mode: 0o600, flag: 'wx' });
  }
  return Buffer.from(readFileSync(file, 'utf8').trim(), 'base64');
}
