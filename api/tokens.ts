import { timingSafeEqual } from 'node:crypto';
import type { ClaimReference, Key, Place } from '../db/index.js';
import { ApiError } from './errors.js';
import type { Secrets } from './secrets.js';

/** A claim of a stretch of another type's events, to be mapped to keys. */
export interface MapReference {
  controller: string;
  map: string;
  nonce: string;
}

/** A claim's token: opaque to clients, unguessable by its nonce, and says by itself which row it is about. */
export function claimToken(claim: ClaimReference | MapReference): string {
  const parts =
    'map' in claim
      ? ['map', claim.nonce, claim.controller, claim.map]
      : ['key', claim.nonce, claim.controller, claim.type, claim.namespace, claim.name];
  // Any text may be named as a key, also one that no object can have: names of objects stay as they are.
  return Buffer.from(parts.map(encodeURIComponent).join('|')).toString('base64url');
}

/** The claim that a token names; undefined when it is not one of ours. */
export function readClaimToken(token: string): ClaimReference | MapReference | undefined {
  const parts = Buffer.from(token, 'base64url').toString().split('|').map(decoded);
  if (parts.includes(undefined)) return undefined;
  const [kind, nonce = '', controller = '', type = '', namespace = '', name = '', ...rest] = parts;
  const whole = controller !== '' && type !== '' && rest.length === 0;
  if (!whole || !/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(nonce)) return undefined;
  // No name holds one, and Postgres refuses texts that do.
  if ([controller, type, namespace, name].some(part => part.includes('\0'))) return undefined;
  if (kind === 'map') return { controller, map: type, nonce };
  return kind === 'key' && name !== '' ? { controller, type, namespace, name, nonce } : undefined;
}

function decoded(part: string): string | undefined {
  try {
    return decodeURIComponent(part);
  } catch {
    return undefined;
  }
}

/** Where a list goes on: after a place, in the state of a version. */
export interface Continuation {
  /** undefined: in the state of when the token is used. */
  version: number | undefined;
  after: Place;
  /** How many objects follow, if that is known. */
  remaining?: number | undefined;
}

/** A continue token: signed, so that a made-up one is refused, and valid on every replica and after a restart. */
export function continueToken(secrets: Secrets, query: string, { version, after, remaining }: Continuation): string {
  return signed(secrets, query, [version ?? null, after.namespace, after.name, after.value ?? null, remaining ?? null]);
}

/** Reads a continue token of the same query. Throws InvalidQuery for a made-up one or one of another query. */
export function readContinueToken(secrets: Secrets, query: string, token: string): Continuation {
  // What is signed was written above.
  const [version, namespace, name, value, remaining] = readSigned(secrets, query, token) as [
    number | null,
    string,
    string,
    string | null,
    number | null,
  ];
  return {
    version: version ?? undefined,
    after: { namespace, name, ...(value === null ? {} : { value }) },
    ...(remaining === null ? {} : { remaining }),
  };
}

/** Where a list of a controller's keys goes on: after this one. */
export function workToken(secrets: Secrets, query: string, { type, namespace, name }: { type: string } & Key): string {
  return signed(secrets, query, [type, namespace, name]);
}

/** Reads a token of `workToken`. Throws InvalidQuery for a made-up one or one of another query. */
export function readWorkToken(secrets: Secrets, query: string, token: string): { type: string } & Key {
  // What is signed was written above.
  const [type, namespace, name] = readSigned(secrets, query, token) as [string, string, string];
  return { type, namespace, name };
}

function signed(secrets: Secrets, query: string, content: unknown[]): string {
  const text = JSON.stringify(content);
  return `${Buffer.from(text).toString('base64url')}.${secrets.sign('continue', `${query}\n${text}`)}`;
}

function readSigned(secrets: Secrets, query: string, token: string): unknown {
  const [encoded = '', signature = '', ...more] = token.split('.');
  const text = Buffer.from(encoded, 'base64url').toString();
  const expected = Buffer.from(secrets.sign('continue', `${query}\n${text}`));
  const given = Buffer.from(signature);
  if (more.length > 0 || given.length !== expected.length || !timingSafeEqual(given, expected)) {
    throw new ApiError(
      'InvalidQuery',
      'continue: this is not a token of this list; send it back as it was answered, with the same type, namespace, selectors and orderBy, or begin again without it.',
    );
  }
  return JSON.parse(text);
}
