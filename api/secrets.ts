import {
  createCipheriv,
  createDecipheriv,
  createHash,
  createHmac,
  createSecretKey,
  randomBytes,
  type KeyObject,
} from 'node:crypto';
import { platformKey, rewrapPlatformKey, type Database } from '../db/index.js';
import type { ErrorDetail } from './errors.js';
import { isObject, type JsonObject } from './json.js';
import type { TypeDefinition } from './type-definition.js';

/** What clients see in place of a secret value. Sending it back keeps the stored value. */
export const mask = '••••••';
/** Each value of a map is encrypted and hashed by itself: 20,000 took a second, in every write of the object. */
const maxValues = 1_000;

/** One value at rest: key id, nonce + ciphertext + tag in base64, and an equality tag. */
interface SealedValue {
  k: string;
  c: string;
  h: string;
}

/** The sealed fields of an object: a value, or a value per key of a map. */
export type Sealed = Record<string, SealedValue | Record<string, SealedValue>>;

/** Says which stored value a ciphertext belongs to: moved elsewhere, it does not open. */
interface Place {
  type: string;
  uid: string;
  path: string;
}

/** ENCRYPTION_KEY does not hold a key that stored data was encrypted with. */
export class MissingEncryptionKey extends Error {
  constructor(id: string) {
    super(
      `ENCRYPTION_KEY: no key with the id ${id}, which stored data needs; add the old key behind the new one, joined by a comma`,
    );
  }
}

/** Encrypts, masks and reveals the fields marked `@secret`: AES-256-GCM, one key writes, all given keys read. */
export class Secrets {
  #random = Buffer.alloc(0);
  // As node keeps keys: from bytes it makes that anew for each value.
  readonly #keys: Map<string, KeyObject>;
  readonly #writingId: string;
  readonly #hmacKey: KeyObject;

  private constructor(keys: Map<string, Buffer>, writingId: string, hmacKey: Buffer) {
    this.#keys = new Map([...keys].map(([id, key]) => [id, createSecretKey(key)]));
    this.#writingId = writingId;
    this.#hmacKey = createSecretKey(hmacKey);
  }

  /**
   * Loads the platform's own key, which `keys` (32 bytes each, the first one writes) wrap, and wraps it anew when the
   * writing key has changed. Throws MissingEncryptionKey.
   */
  static async load(database: Database, keys: Buffer[]): Promise<Secrets> {
    const byId = new Map(keys.map(key => [keyId(key), key]));
    const [writingId] = byId.keys();
    if (writingId === undefined) throw new Error('no encryption key');
    const wrapping = new Secrets(byId, writingId, Buffer.alloc(32));
    const place: Place = { type: '', uid: '', path: 'hmac' };
    const fresh = wrapping.#encrypt(randomBytes(32).toString('base64'), place);
    const stored = await platformKey(database, 'hmac', { keyId: fresh.k, wrapped: fresh.c });
    const hmacKey = wrapping.#decrypt({ k: stored.keyId, c: stored.wrapped }, place);
    if (stored.keyId !== writingId) {
      const again = wrapping.#encrypt(hmacKey, place);
      await rewrapPlatformKey(database, 'hmac', { keyId: again.k, wrapped: again.c });
    }
    return new Secrets(byId, writingId, Buffer.from(hmacKey, 'base64'));
  }

  /** Signs a text for the platform's own use, such as continue tokens. */
  sign(purpose: string, text: string): string {
    return createHmac('sha256', this.#hmacKey).update(`${purpose}\0${text}`).digest('base64url');
  }

  /**
   * Takes the secret values out of an object: returns it masked, with the ciphertexts. A mask keeps the value that is
   * stored for the same field and key; `kept` says that nothing differs from what is stored.
   */
  seal(
    type: TypeDefinition,
    uid: string,
    object: JsonObject,
    stored: Sealed | null,
  ): { masked: JsonObject; sealed: Sealed | null; kept: boolean; violations: ErrorDetail[] } {
    if (type.secrets.length === 0) return { masked: object, sealed: null, kept: true, violations: [] };
    const masked = { ...object };
    const sealed: Sealed = {};
    const violations: ErrorDetail[] = [];
    let kept = true;
    const one = (value: unknown, path: string, before: SealedValue | undefined): SealedValue | undefined => {
      if (value === mask) {
        if (!before)
          violations.push({
            path,
            message: 'is the mask of a secret, but no value is stored to keep; send the value itself',
          });
        return before;
      }
      if (typeof value !== 'string') return undefined;
      const place = { type: type.type, uid, path };
      if (before && before.h === this.#tag(value, place)) return before;
      kept = false;
      return this.#encrypt(value, place);
    };
    for (const { field, map } of type.secrets) {
      const value = object[field];
      const before = stored?.[field];
      if (value === undefined) {
        if (before !== undefined) kept = false;
        continue;
      }
      if (!map) {
        const fresh = one(value, field, isSealed(before) ? before : undefined);
        if (fresh) sealed[field] = fresh;
        masked[field] = typeof value === 'string' ? mask : value;
        continue;
      }
      if (!isObject(value)) continue;
      const values: [string, SealedValue][] = [];
      const beforeKeys = before && !isSealed(before) ? before : {};
      const count = Object.keys(value).length;
      if (count > Math.max(maxValues, Object.keys(beforeKeys).length)) {
        violations.push({ path: field, message: `must have at most ${maxValues} values, not ${count}` });
        masked[field] = {};
        continue;
      }
      for (const [key, item] of Object.entries(value)) {
        const fresh = one(item, `${field}.${key}`, Object.hasOwn(beforeKeys, key) ? beforeKeys[key] : undefined);
        if (fresh) values.push([key, fresh]);
      }
      if (Object.keys(beforeKeys).some(key => !Object.hasOwn(value, key))) kept = false;
      sealed[field] = Object.fromEntries(values);
      masked[field] = Object.fromEntries(
        Object.entries(value).map(([key, item]) => [key, typeof item === 'string' ? mask : item]),
      );
    }
    if (Object.keys(sealed).length === 0) return { masked, sealed: null, kept, violations };
    // What is stored at all is stored under the writing key: a rotation that has passed by meanwhile is not undone.
    const resealed = kept || stored === null ? sealed : this.reseal(type.type, uid, sealed, false);
    return { masked, sealed: resealed, kept, violations };
  }

  /**
   * The same values, all of them encrypted with the writing key; those that are already stay as they are. Throws
   * MissingEncryptionKey for a value whose key is not given, or keeps it as it is when it need not be `complete`.
   */
  reseal(type: string, uid: string, sealed: Sealed, complete = true): Sealed {
    const one = (value: SealedValue, path: string): SealedValue => {
      if (value.k === this.#writingId || (!complete && !this.#keys.has(value.k))) return value;
      const place = { type, uid, path };
      return this.#encrypt(this.#decrypt(value, place), place);
    };
    return Object.fromEntries(
      Object.entries(sealed).map(([field, value]) => [
        field,
        isSealed(value)
          ? one(value, field)
          : Object.fromEntries(Object.entries(value).map(([key, item]) => [key, one(item, `${field}.${key}`)])),
      ]),
    );
  }

  /** Names the key that writes: the first 8 hex digits of its sha256. */
  get writingId(): string {
    return this.#writingId;
  }

  /** The secret fields of an object in clear. Throws MissingEncryptionKey. */
  reveal(type: TypeDefinition, uid: string, sealed: Sealed | null): JsonObject {
    const open = (value: SealedValue, path: string) => this.#decrypt(value, { type: type.type, uid, path });
    const fields = Object.entries(sealed ?? {}).map(([field, value]): [string, unknown] => [
      field,
      isSealed(value)
        ? open(value, field)
        : Object.fromEntries(Object.entries(value).map(([key, item]) => [key, open(item, `${field}.${key}`)])),
    ]);
    return Object.fromEntries(fields);
  }

  #encrypt(value: string, place: Place): SealedValue {
    const key = this.#keys.get(this.#writingId);
    if (!key) throw new MissingEncryptionKey(this.#writingId);
    const nonce = this.#nonce();
    const cipher = createCipheriv('aes-256-gcm', key, nonce).setAAD(Buffer.from(bound(place)));
    const text = Buffer.concat([nonce, cipher.update(value, 'utf8'), cipher.final(), cipher.getAuthTag()]);
    return { k: this.#writingId, c: text.toString('base64'), h: this.#tag(value, place) };
  }

  // Random bytes come from the system 340 nonces at a time: one call each was 3 % of a create with a secret.
  #nonce(): Buffer {
    if (this.#random.length < 12) this.#random = randomBytes(4_080);
    const nonce = this.#random.subarray(0, 12);
    this.#random = this.#random.subarray(12);
    return nonce;
  }

  #decrypt(value: { k: string; c: string }, place: Place): string {
    const key = this.#keys.get(value.k);
    if (!key) throw new MissingEncryptionKey(value.k);
    const text = Buffer.from(value.c, 'base64');
    const decipher = createDecipheriv('aes-256-gcm', key, text.subarray(0, 12)).setAAD(Buffer.from(bound(place)));
    decipher.setAuthTag(text.subarray(-16));
    return Buffer.concat([decipher.update(text.subarray(12, -16)), decipher.final()]).toString('utf8');
  }

  // Tells whether two values are equal without decrypting; survives a rotation of the encryption keys.
  #tag(value: string, place: Place): string {
    return createHmac('sha256', this.#hmacKey)
      .update(`${bound(place)}\0${value}`)
      .digest('base64');
  }
}

/** The bytes of the values of an object in clear, about. */
export function sealedBytes(sealed: Sealed | null): number {
  const one = (value: SealedValue) => Math.max(0, Math.floor((value.c.length * 3) / 4) - 28);
  let bytes = 0;
  for (const value of Object.values(sealed ?? {})) {
    if (isSealed(value)) bytes += one(value);
    else for (const item of Object.values(value)) bytes += one(item);
  }
  return bytes;
}

/** The first 8 hex digits of a key's sha256 name it beside each ciphertext. */
function keyId(key: Buffer): string {
  return createHash('sha256').update(key).digest('hex').slice(0, 8);
}

function bound(place: Place): string {
  return `${place.type}\0${place.uid}\0${place.path}`;
}

function isSealed(value: unknown): value is SealedValue {
  return (
    isObject(value) &&
    typeof value['k'] === 'string' &&
    typeof value['c'] === 'string' &&
    typeof value['h'] === 'string'
  );
}
