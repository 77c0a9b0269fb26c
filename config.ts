import { createPrivateKey, X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { resolve } from 'node:path';
import { createSecureContext } from 'node:tls';
import { brokerAddress } from './amqp.js';

/** Everything that the environment can say, checked. The table of settings in README.md follows this file. */
export interface Settings {
  port: number;
  host: string;
  /** DATABASE_URL or POSTGRES_PARAMS as given; both undefined: the embedded Postgres in dataDir. */
  databaseUrl: string | undefined;
  postgresParams: string | undefined;
  dataDir: string;
  /** One address or several of a cluster, see amqp.ts; undefined: the Postgres transport, no broker. */
  amqpUrl: string | undefined;
  apiUrl: string;
  apiCaFile: string | undefined;
  apiToken: string | undefined;
  tls: { certFile: string; keyFile: string } | undefined;
  /** The first one writes, all read; undefined: one is generated in dataDir (embedded database only). */
  encryptionKeys: Buffer[] | undefined;
  /** Bytes. */
  eventLogMax: number;
  /** Health and metrics of a controllers process; undefined: off. */
  healthPort: number | undefined;
  /** How many objects a controllers process works on at a time, per controller. */
  concurrency: number;
  logLevel: 'debug' | 'info' | 'warn' | 'error';
  logFormat: 'text' | 'json';
  /** Where spans go; undefined: none are made. */
  tracing: TracingSettings | undefined;
  /** Names this process among its replicas. */
  instance: string;
}

/** OpenTelemetry's own variables, as far as they concern spans over OTLP/HTTP. */
export interface TracingSettings {
  endpoint: string;
  headers: Record<string, string>;
  serviceName: string | undefined;
  /** Share of new traces that is recorded, 0 to 1. */
  ratio: number;
}

/** A variable holds what it may not: says which one, what it holds and what it may hold. */
export class BadSetting extends Error {
  constructor(
    readonly variable: string,
    problem: string,
  ) {
    super(`${variable}: ${problem}`);
  }
}

const secretVariables = new Set([
  'API_TOKEN',
  'ENCRYPTION_KEY',
  'DATABASE_URL',
  'POSTGRES_PARAMS',
  'AMQP_URL',
  'OTEL_EXPORTER_OTLP_HEADERS',
]);

/**
 * Reads and checks all settings. Throws BadSetting for the first variable that is wrong; never shows a secret. A process that
 * does not serve the API needs neither token nor TLS to listen: on HOST it has no more than its health.
 */
export function readSettings(env: NodeJS.ProcessEnv = process.env, servesApi = true): Settings {
  const text = (name: string) => (env[name] === undefined || env[name] === '' ? undefined : env[name]);
  const refuse = (name: string, allowed: string): never => {
    const held = secretVariables.has(name) ? 'its value' : `"${env[name] ?? ''}"`;
    throw new BadSetting(name, `${held} is not ${allowed}`);
  };
  const port = (name: string, fallback: number | undefined) => {
    const value = text(name);
    if (value === undefined) return fallback;
    const number = Number(value);
    return /^\d+$/.test(value) && number <= 65535 ? number : refuse(name, 'a port: a number from 0 to 65535');
  };
  const oneOf = <Value extends string>(name: string, allowed: readonly Value[], fallback: Value): Value => {
    const value = text(name);
    if (value === undefined) return fallback;
    return allowed.find(one => one === value) ?? refuse(name, `one of ${allowed.join(', ')}`);
  };
  const url = (name: string, protocols: string[]) => {
    const value = text(name);
    if (value === undefined) return undefined;
    const parsed = URL.canParse(value) ? new URL(value) : undefined;
    if (!parsed || !protocols.includes(parsed.protocol))
      refuse(name, `a URL that begins with ${protocols.map(one => `${one}//`).join(' or ')}`);
    return value;
  };
  const broker = (name: string) => {
    const value = text(name);
    try {
      if (value !== undefined) brokerAddress(value);
      return value;
    } catch (error) {
      if (error instanceof TypeError) throw new BadSetting(name, `its value ${error.message}`);
      throw error;
    }
  };
  const file = (name: string) => {
    const value = text(name);
    if (value === undefined) return undefined;
    try {
      readFileSync(value);
    } catch (error) {
      refuse(
        name,
        `a file that can be read (${error instanceof Error && 'code' in error ? String(error.code) : 'unreadable'})`,
      );
    }
    return value;
  };

  const host = text('HOST') ?? '127.0.0.1';
  const apiPort = port('PORT', 7070) ?? 7070;
  const certFile = file('TLS_CERT_FILE');
  const keyFile = file('TLS_KEY_FILE');
  if (certFile && !keyFile)
    throw new BadSetting('TLS_KEY_FILE', 'is missing, TLS_CERT_FILE is set: set both or neither');
  if (keyFile && !certFile)
    throw new BadSetting('TLS_CERT_FILE', 'is missing, TLS_KEY_FILE is set: set both or neither');
  const tlsMode = oneOf('TLS', ['on', 'off'], certFile ? 'on' : 'off');
  if (tlsMode === 'on' && !certFile) throw new BadSetting('TLS', 'is "on", which needs TLS_CERT_FILE and TLS_KEY_FILE');
  const tls = tlsMode === 'on' && certFile && keyFile ? { certFile, keyFile } : undefined;
  if (tls) checkPair(tls);
  const apiToken = text('API_TOKEN');
  if (apiToken !== undefined && !/^[\x21-\x7e]{16,}$/.test(apiToken)) {
    refuse('API_TOKEN', 'at least 16 printable characters without spaces (for example: openssl rand -hex 32)');
  }
  const loopback = isLoopback(host) || !servesApi;
  if (!loopback && !apiToken) {
    throw new BadSetting(
      'API_TOKEN',
      `is not set, and HOST is "${host}": a token is required when the API listens beyond loopback`,
    );
  }
  if (!loopback && !tls && text('TLS') !== 'off') {
    throw new BadSetting(
      'TLS_CERT_FILE',
      `is not set, and HOST is "${host}": set TLS_CERT_FILE and TLS_KEY_FILE, or TLS=off when a proxy in front terminates TLS`,
    );
  }
  const databaseUrl = text('DATABASE_URL');
  const postgresParams = text('POSTGRES_PARAMS');
  const encryptionKeys = text('ENCRYPTION_KEY')
    ?.split(',')
    .map(one => {
      const key = Buffer.from(one.trim(), 'base64');
      return key.length === 32 && /^[A-Za-z0-9+/]{43}=$/.test(one.trim())
        ? key
        : refuse(
            'ENCRYPTION_KEY',
            '32 bytes in base64, or several of them joined by commas, the new one first (openssl rand -base64 32)',
          );
    });
  if (!encryptionKeys && (databaseUrl ?? postgresParams) !== undefined) {
    // A key generated beside an external database would be lost with this machine, and the data with it.
    throw new BadSetting('ENCRYPTION_KEY', 'is required with an external database: openssl rand -base64 32');
  }
  const collector = url('OTEL_EXPORTER_OTLP_ENDPOINT', ['http:', 'https:']);
  // It could not be asked for: `fetch` refuses such a URL, and says so with the password in it.
  const { username = '', password = '' } = collector === undefined ? {} : new URL(collector);
  if (username !== '' || password !== '')
    throw new BadSetting(
      'OTEL_EXPORTER_OTLP_ENDPOINT',
      'its value holds a user or password; send them with OTEL_EXPORTER_OTLP_HEADERS',
    );
  const traced = {
    headers:
      pairs(text('OTEL_EXPORTER_OTLP_HEADERS') ?? '') ??
      refuse('OTEL_EXPORTER_OTLP_HEADERS', 'a list of headers: name=value, joined by commas'),
    serviceName: text('OTEL_SERVICE_NAME'),
    ratio: share(text('OTEL_TRACES_SAMPLER_ARG') ?? '1') ?? refuse('OTEL_TRACES_SAMPLER_ARG', 'a share from 0 to 1'),
  };
  const shownHost = host === '0.0.0.0' || host === '::' ? '127.0.0.1' : host.includes(':') ? `[${host}]` : host;
  return {
    port: apiPort,
    host,
    databaseUrl,
    postgresParams,
    dataDir: resolve(text('DATA_DIR') ?? '.data'),
    amqpUrl: broker('AMQP_URL'),
    apiUrl: url('API_URL', ['http:', 'https:']) ?? `${tls ? 'https' : 'http'}://${shownHost}:${apiPort}`,
    apiCaFile: authority(file('API_CA_FILE')),
    apiToken,
    tls,
    encryptionKeys,
    eventLogMax:
      bytes(text('EVENT_LOG_MAX') ?? '4GiB') ??
      refuse('EVENT_LOG_MAX', 'a size of at least 16MiB: bytes, or a number with MiB or GiB'),
    healthPort: port('HEALTH_PORT', undefined),
    concurrency: count(text('CONCURRENCY') ?? '16') ?? refuse('CONCURRENCY', 'a whole number from 1 to 1000'),
    logLevel: oneOf('LOG_LEVEL', ['debug', 'info', 'warn', 'error'], 'info'),
    logFormat: oneOf('LOG_FORMAT', ['text', 'json'], process.stdout.isTTY ? 'text' : 'json'),
    tracing: collector === undefined ? undefined : { endpoint: collector, ...traced },
    instance: `${hostname()}-${process.pid}`,
  };
}

/** Throws BadSetting unless the files are a certificate and its key. */
function checkPair({ certFile, keyFile }: { certFile: string; keyFile: string }): void {
  const pem = (variable: string, path: string, what: string, read: (bytes: Buffer) => unknown) => {
    const bytes = readFileSync(path);
    try {
      read(bytes);
    } catch {
      // OpenSSL's words ("no start line") name neither file nor remedy.
      throw new BadSetting(variable, `"${path}" holds no ${what}`);
    }
    return bytes;
  };
  const cert = pem('TLS_CERT_FILE', certFile, 'certificate in PEM', bytes => new X509Certificate(bytes));
  const key = pem('TLS_KEY_FILE', keyFile, 'private key in PEM without a passphrase', createPrivateKey);
  try {
    createSecureContext({ cert, key });
  } catch {
    throw new BadSetting('TLS_KEY_FILE', `"${keyFile}" is not the key of the certificate in "${certFile}"`);
  }
}

/** Certificates of authorities to trust. Throws BadSetting for a file without any: it would be trusted to hold none, silently. */
function authority(path: string | undefined): string | undefined {
  if (path === undefined) return undefined;
  try {
    // Throws for anything else.
    new X509Certificate(readFileSync(path));
  } catch {
    throw new BadSetting('API_CA_FILE', `"${path}" holds no certificate in PEM`);
  }
  return path;
}

/** Whether a host name or address reaches this machine only. */
export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127\.\d+\.\d+\.\d+$/.test(host);
}

function bytes(value: string): number | undefined {
  const [, number, unit = ''] = /^(\d+)(MiB|GiB)?$/.exec(value) ?? [];
  const size = Number(number) * (unit === 'GiB' ? 2 ** 30 : unit === 'MiB' ? 2 ** 20 : 1);
  return size >= 2 ** 24 ? size : undefined;
}

function count(value: string): number | undefined {
  const number = Number(value);
  return Number.isInteger(number) && number >= 1 && number <= 1000 ? number : undefined;
}

function share(value: string): number | undefined {
  const number = Number(value);
  return number >= 0 && number <= 1 ? number : undefined;
}

/** `name=value` pairs with values percent-encoded, as OpenTelemetry writes headers in a variable. */
function pairs(value: string): Record<string, string> | undefined {
  const read: Record<string, string> = {};
  for (const one of value.split(',')) {
    if (one.trim() === '') continue;
    const [, name, encoded] = /^\s*([\w!#$%&'*+.^`|~-]+)\s*=\s*([\x21-\x7e]*)\s*$/.exec(one) ?? [];
    if (name === undefined || encoded === undefined) return undefined;
    try {
      const decoded = decodeURIComponent(encoded);
      // Nothing that no header may hold: who sends it would be told so with the whole value, which is a secret.
      if (!/^[\t\x20-\x7e\x80-\xff]*$/.test(decoded)) return undefined;
      read[name] = decoded;
    } catch {
      return undefined;
    }
  }
  return read;
}
