import { readFileSync } from 'node:fs';
import type { ConnectionOptions } from 'node:tls';
import type { ClientConfig } from 'pg';
import { passwordFor } from './passfile.js';
import { PreferTls } from './prefer-tls.js';
import { reasonOf } from '../reason.js';

/** The two settings that may say where Postgres is; either form is taken in either of them. */
export interface ConnectionVariables {
  DATABASE_URL?: string | undefined;
  POSTGRES_PARAMS?: string | undefined;
}

type Keywords = Map<string, string>;

const keywords = [
  'host',
  'port',
  'user',
  'password',
  'passfile',
  'dbname',
  'sslmode',
  'sslrootcert',
  'sslcert',
  'sslkey',
  'connect_timeout',
  'application_name',
  'options',
];
const sslmodes = ['disable', 'allow', 'prefer', 'require', 'verify-ca', 'verify-full'];

const forms =
  'Accepted: a URL (postgres://user:password@host:5432/dbname?sslmode=require) or keywords ' +
  "(user=postgres password='…' dbname=syncsets host=localhost sslmode=disable).";

/** What is wrong with a value, before it is known which variable holds it. Never carries a part of a password. */
class Malformed extends Error {}

/**
 * Reads where Postgres is, with the meaning that libpq (psql) gives to the same text:
 * https://www.postgresql.org/docs/current/libpq-connect.html. `pg-connection-string` is not used: it reads no keywords, ignores
 * what it does not know, and gives `require` and `prefer` another meaning than psql.
 *
 * Differences from libpq: without a host it is localhost over TCP; without `sslmode` a loopback host and a Unix socket are not
 * asked for TLS (elsewhere it is `prefer`, as in libpq); `verify-full` without `sslrootcert` trusts the public authorities that
 * Node trusts; one host only. Files that the text names are read here.
 *
 * @returns undefined when neither variable is set (an empty text counts as not set)
 * @throws Error naming the variable, what is wrong and what is accepted, never a password
 */
export function parseConnection(variables: ConnectionVariables): ClientConfig | undefined {
  const url = read('DATABASE_URL', variables.DATABASE_URL);
  const params = read('POSTGRES_PARAMS', variables.POSTGRES_PARAMS);
  if (url && params && canonical(url) !== canonical(params))
    throw new Error('DATABASE_URL and POSTGRES_PARAMS name different databases. Set one of them, or both to the same.');
  if (url) return explained('DATABASE_URL', () => toConfig(url));
  return params && explained('POSTGRES_PARAMS', () => toConfig(params));
}

function read(variable: keyof ConnectionVariables, text = ''): Keywords | undefined {
  const value = text.trim();
  if (value === '') return undefined;
  return explained(variable, () => {
    const url = /^(?:postgres|postgresql):\/\//i.exec(value);
    if (url) return readUrl(value.slice(url[0].length));
    const scheme = /^([a-z][a-z0-9+.-]*):\/\//i.exec(value);
    if (scheme) throw new Malformed(`a URL must begin with postgres:// or postgresql://, not ${scheme[1] ?? ''}://`);
    return readKeywords(value);
  });
}

function explained<T>(variable: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof Malformed)) throw error;
    throw new Error(`${variable}: ${error.message}. ${forms}`, { cause: error });
  }
}

function canonical(found: Keywords): string {
  const full = new Map([['host', 'localhost'], ['port', '5432'], ...found]);
  return JSON.stringify([...full].filter(([, value]) => value !== '').sort());
}

/** `user:password@host:port/dbname?keyword=value&…`, cut where libpq cuts: the first `@` ends the user and password. */
function readUrl(text: string): Keywords {
  const found: Keywords = new Map();
  const parts = /^(?:([^:@/]*)(?::([^@/]*))?@)?(\[[^\]]*\]|[^:/?,]*)(?::([^/?,]*))?(?:\/([^?]*))?(?:\?(.*))?$/s.exec(
    text,
  );
  // An @ after the authority means that a password holds a raw @ or / and that the cut went through it.
  if (!parts || [parts[3], parts[4], parts[5]].some(part => part?.includes('@')))
    throw new Malformed(
      text.includes('@')
        ? 'the part before the database name cannot be read; write / @ : ? and % in a user or password as %2F %40 %3A %3F %25, and name one host only'
        : 'the host or port cannot be read; name one host only',
    );
  const [, user, password, host, port, dbname, query] = parts;
  const set = (keyword: string, value: string | undefined) => {
    if (value) found.set(keyword, decoded(keyword, value));
  };
  set('user', user);
  set('password', password);
  set('host', host?.replace(/^\[(.*)\]$/, '$1'));
  set('port', port);
  set('dbname', dbname);
  for (const pair of query?.split('&') ?? []) {
    if (pair === '') continue;
    const [name = '', value, ...more] = pair.split('=');
    const keyword = decoded('query', name);
    if (value === undefined || more.length > 0) throw new Malformed('each query parameter must be keyword=value');
    if (keyword === 'ssl' && value === 'true') found.set('sslmode', 'require');
    else found.set(known(keyword, true), decoded(keyword, value));
  }
  return found;
}

function decoded(what: string, text: string): string {
  try {
    const value = decodeURIComponent(text);
    if (!value.includes('\0')) return value;
  } catch {
    // told below, without the text
  }
  throw new Malformed(`the ${what} holds a % that is no percent-encoding (write % itself as %25)`);
}

/** `keyword=value …` with libpq's quotes and backslashes; blanks around the `=` are part of it. */
function readKeywords(text: string): Keywords {
  const found: Keywords = new Map();
  const name = /\s*([^\s=]+)\s*/y;
  const assigned = /=\s*(?:'((?:[^'\\]|\\.)*)'(?=\s|$)|(?!')((?:[^\s\\]|\\.)*)(?=\s|$))/sy;
  let previous = '';
  for (let at = 0; at < text.length;) {
    const place = previous ? `after the value of ${previous}` : 'at the start';
    name.lastIndex = at;
    const keyword = name.exec(text)?.[1];
    if (keyword === undefined) throw new Malformed(`a keyword is missing ${place}`);
    if (text[name.lastIndex] !== '=')
      throw new Malformed(`something without = stands ${place}; a value with spaces needs single quotes`);
    // After a password the "keyword" may be the rest of an unquoted password with a space in it: it is not repeated.
    known(keyword, previous !== 'password');
    assigned.lastIndex = name.lastIndex;
    const value = assigned.exec(text);
    if (!value) throw new Malformed(`the value of ${keyword} has a quote or a backslash without its partner`);
    found.set(keyword, (value[1] ?? value[2] ?? '').replace(/\\(.)/gs, '$1'));
    previous = keyword;
    at = assigned.lastIndex;
  }
  return found;
}

function known(keyword: string, mayRepeat: boolean): string {
  if (keywords.includes(keyword)) return keyword;
  const which = mayRepeat ? `"${keyword.slice(0, 40)}"` : 'after the password (quote a password that contains spaces)';
  throw new Malformed(`unknown keyword ${which}; known are ${keywords.join(', ')}`);
}

function toConfig(found: Keywords): ClientConfig {
  const get = (keyword: string) => found.get(keyword) || undefined;
  const host = get('host') ?? 'localhost';
  if (host.includes(',')) throw new Malformed('several hosts are not supported; name one');
  const port = whole('port', get('port') ?? '5432', 1, 65_535);
  const user = get('user');
  const database = get('dbname') ?? user;
  const passfile = get('passfile');
  const password =
    get('password') ??
    (passfile &&
      passwordFor(readNamed('passfile', passfile), { host, port, database: database ?? '', user: user ?? '' }));
  const timeout = get('connect_timeout');
  const application = get('application_name');
  const options = get('options');
  return {
    host,
    port,
    ...(user ? { user } : {}),
    ...(password ? { password } : {}),
    ...(database ? { database } : {}),
    ...(timeout ? { connectionTimeoutMillis: whole('connect_timeout', timeout, 0, 86_400) * 1000 } : {}),
    ...(application ? { application_name: application } : {}),
    ...(options ? { options } : {}),
    ...encryption(host, get),
  };
}

function whole(keyword: string, text: string, least: number, most: number): number {
  const value = /^\d{1,9}$/.test(text) ? Number(text) : NaN;
  if (!(value >= least && value <= most))
    throw new Malformed(`${keyword} must be a whole number from ${least} to ${most}`);
  return value;
}

/** libpq's sslmode table (documentation, "SSL Mode Descriptions") in node-postgres' terms. */
function encryption(host: string, get: (keyword: string) => string | undefined): Pick<ClientConfig, 'ssl' | 'stream'> {
  const socket = host.startsWith('/');
  const near = socket || /^(localhost|127\.\d+\.\d+\.\d+|::1)$/.test(host);
  const root = get('sslrootcert');
  const mode = get('sslmode') ?? (root === 'system' ? 'verify-full' : near ? 'disable' : 'prefer');
  if (!sslmodes.includes(mode)) throw new Malformed(`sslmode must be one of ${sslmodes.join(', ')}`);
  if (root === 'system' && mode !== 'verify-full') throw new Malformed('sslrootcert=system needs sslmode=verify-full');
  if (socket || mode === 'disable') return { ssl: false };
  // allow differs from prefer only in what is tried first; the encrypted try first connects to the same servers.
  if (mode === 'prefer' || mode === 'allow') return { ssl: false, stream: () => new PreferTls() };
  if (mode === 'verify-ca' && !root) throw new Malformed('sslmode=verify-ca needs sslrootcert=FILE');
  const cert = get('sslcert');
  const key = get('sslkey');
  const ssl: ConnectionOptions = {
    ...(root && root !== 'system' ? { ca: readNamed('sslrootcert', root) } : {}),
    ...(cert ? { cert: readNamed('sslcert', cert) } : {}),
    ...(key ? { key: readNamed('sslkey', key) } : {}),
  };
  // With a root certificate libpq's require checks it, as verify-ca does: the authority, not the host name.
  if (mode === 'require' && !root) ssl.rejectUnauthorized = false;
  else if (mode !== 'verify-full') ssl.checkServerIdentity = () => undefined;
  return { ssl };
}

function readNamed(keyword: string, path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw new Malformed(`${keyword}: the file cannot be read (${reasonOf(error)})`);
  }
}
