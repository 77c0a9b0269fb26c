import { rotateKey, Secrets } from '../api/index.js';
import { raiseVersions, type Database } from '../db/index.js';
import { encryptionKeysOf } from './encryption-keys.js';
import type { Starting } from './start.js';

/** Encrypts all secrets anew, or as many as there is time for until a stop; returns what to tell about it. */
export async function rotate({ settings, parts, log }: Starting, database: Database): Promise<string[]> {
  const secrets = await Secrets.load(database, encryptionKeysOf(settings));
  const stopping = () => parts.stopping;
  const { keyId, objects, interrupted } = await rotateKey({ database, secrets, log, stopping });
  const lines = [...objects].map(([type, count]) => `${type}: the secrets of ${count} objects encrypted anew`);
  return interrupted
    ? [...lines, 'interrupted: run it again to go on with what is left']
    : [...lines, `done: all secrets are encrypted with the key ${keyId}; the others are needed no longer`];
}

/** Lets versions go on above what a restored backup has; returns what to tell about it. */
export async function raise(database: Database): Promise<string[]> {
  const types = await raiseVersions(database);
  return [
    ...types.map(({ type, former, version }) => `${type}: versions go on after ${version} (the backup had ${former})`),
    'done: watchers list again, all claims are void, controllers look at every object once more',
  ];
}
