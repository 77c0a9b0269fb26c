import { X509Certificate } from 'node:crypto';
import tls from 'node:tls';
import { TargetFailure } from './failure.js';
import { isMapping, parseMapping, type Mapping } from './document.js';

/**
 * How to reach one cluster and as whom: all that counts of a kubeconfig, as plain data. It holds credentials: never
 * log it, never put it into an error.
 */
export interface ClusterAccess {
  /** `https:` or `http:`, without user, query and fragment; a path is a prefix of every request (Rancher has one). */
  server: URL;
  /** PEM, one certificate or more. Absent: the authorities that Node ships. */
  ca?: string;
  /** PEM; comes with `key`. */
  cert?: string;
  /** PEM, without pass phrase, belongs to `cert`. */
  key?: string;
  token?: string;
  /** Comes with `password`, which may be empty. */
  username?: string;
  password?: string;
  /** The target's certificate is not checked. Never together with `ca`. */
  insecureSkipTlsVerify?: boolean;
  /** The host that the target's certificate must be for, where it is not the host of `server`. */
  tlsServerName?: string;
}

// Field → what to do instead. Fields and meanings: k8s.io/client-go/tools/clientcmd/api/v1 (types.go).
const refusedOfCluster: Record<string, string> = {
  'certificate-authority': 'put the certificate into certificate-authority-data',
  'proxy-url': 'clusters are reached directly',
};
const refusedOfUser: Record<string, string> = {
  exec: 'no program is run for credentials; use a token, or client-certificate-data with client-key-data',
  'auth-provider': 'no plug-in is run for credentials; use a token, or client-certificate-data with client-key-data',
  'client-certificate': 'put the certificate into client-certificate-data',
  'client-key': 'put the key into client-key-data',
  tokenFile: 'put the token into token',
  as: 'impersonation is not supported; use the credentials of the account itself',
  'as-uid': 'impersonation is not supported; use the credentials of the account itself',
  'as-groups': 'impersonation is not supported; use the credentials of the account itself',
  'as-user-extra': 'impersonation is not supported; use the credentials of the account itself',
};

/**
 * Reads a kubeconfig as untrusted input: whoever may write one must not run programs, read files or choose proxies
 * where this process runs. Only inline data counts.
 *
 * Refused as `KubeconfigUnsupported`, with the field's name, rather than ignored: leaving out a proxy, a CA or an
 * impersonation would reach another place, or with other rights, than the author said. Only the cluster and the user
 * of the chosen context are looked at, since people paste whole files with many contexts.
 *
 * As in kubectl: a token and a password exclude each other, so do a CA and `insecure-skip-tls-verify`, and to an `http:`
 * server no credentials are sent, so the access then holds none. Stricter than kubectl: the context must name a user
 * (it may be empty), and the server's URL must have a scheme.
 * @param text YAML or JSON, at most 1 MiB
 * @param context name of the context; default: the file's `current-context`
 * @throws TargetFailure `KubeconfigInvalid` or `KubeconfigUnsupported`. Messages name fields and places, never contents.
 */
export function parseKubeconfig(text: string, context?: string): ClusterAccess {
  const config = parseMapping(text);
  if (config.kind !== undefined && config.kind !== 'Config') throw invalid('is of another kind than Config');
  const { cluster, user } = choose(config, context);
  refuse('cluster', cluster, refusedOfCluster);
  refuse('user', user, refusedOfUser);

  const server = serverOf(cluster);
  const access = { server, ...trustOf(cluster), ...identityOf(user) };
  checkTls(access);
  return server.protocol === 'https:' ? access : { server };
}

function choose(config: Mapping, wanted: string | undefined): { cluster: Mapping; user: Mapping } {
  const current = wanted ?? nameOf(config['current-context']);
  if (current === undefined) throw invalid('has no current-context, and no context was asked for');
  const chosen = wanted === undefined ? 'its current-context' : 'the context asked for';
  const context = entry(config, 'contexts', 'context', current, chosen);
  const cluster = nameOf(context.cluster);
  if (cluster === undefined) throw invalid(`has a context without a cluster (${chosen})`);
  const user = nameOf(context.user);
  if (user === undefined) throw invalid(`has a context without a user (${chosen})`);
  return {
    cluster: entry(config, 'clusters', 'cluster', cluster, `the cluster of ${chosen}`),
    user: entry(config, 'users', 'user', user, `the user of ${chosen}`),
  };
}

/** Kubeconfigs keep maps as lists of {name, [field]}. The first of a name counts, as in kubectl. */
function entry(config: Mapping, list: string, field: string, name: string, what: string): Mapping {
  const entries = config[list] ?? [];
  if (!Array.isArray(entries)) throw invalid(`has ${list} that are not a list`);
  const found: unknown = entries.find(each => isMapping(each) && nameOf(each.name) === name);
  if (!isMapping(found)) throw invalid(`lacks an entry in ${list} for ${what}`);
  const value = found[field] ?? {};
  if (!isMapping(value)) throw invalid(`has an entry in ${list} whose ${field} is not a mapping`);
  return value;
}

/** Names may look like numbers or booleans to YAML (`name: 17`). */
function nameOf(value: unknown): string | undefined {
  if (typeof value === 'string') return value === '' ? undefined : value;
  return typeof value === 'number' || typeof value === 'boolean' ? String(value) : undefined;
}

function refuse(where: string, entry: Mapping, refused: Record<string, string>): void {
  for (const [field, remedy] of Object.entries(refused)) {
    const value = entry[field];
    if (value === undefined || value === null || value === '') continue;
    throw new TargetFailure('KubeconfigUnsupported', `The kubeconfig has ${where}.${field}: ${remedy}`);
  }
}

function serverOf(cluster: Mapping): URL {
  const text = textOf(cluster, 'cluster', 'server');
  if (text === undefined) throw invalid('lacks cluster.server');
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (!url || (url.protocol !== 'https:' && url.protocol !== 'http:')) {
    throw invalid('has a cluster.server that is not a URL beginning with https:// or http://');
  }
  if (url.username !== '' || url.password !== '') throw invalid('has credentials within cluster.server');
  if (url.search !== '' || url.hash !== '') throw invalid('has a cluster.server with a query or fragment');
  return url;
}

function trustOf(cluster: Mapping): Pick<ClusterAccess, 'ca' | 'insecureSkipTlsVerify' | 'tlsServerName'> {
  const ca = pemOf(cluster, 'cluster', 'certificate-authority-data');
  const insecure = cluster['insecure-skip-tls-verify'] ?? false;
  if (typeof insecure !== 'boolean') throw invalid('has a cluster.insecure-skip-tls-verify other than true or false');
  if (insecure && ca !== undefined) {
    throw invalid('has both cluster.insecure-skip-tls-verify and cluster.certificate-authority-data');
  }
  const tlsServerName = textOf(cluster, 'cluster', 'tls-server-name');
  return {
    ...(ca !== undefined && { ca }),
    ...(insecure && { insecureSkipTlsVerify: true }),
    ...(tlsServerName !== undefined && { tlsServerName }),
  };
}

function identityOf(user: Mapping): Pick<ClusterAccess, 'cert' | 'key' | 'token' | 'username' | 'password'> {
  const cert = pemOf(user, 'user', 'client-certificate-data');
  const key = pemOf(user, 'user', 'client-key-data');
  if ((cert === undefined) !== (key === undefined)) {
    throw invalid('has only one of user.client-certificate-data and user.client-key-data');
  }
  const token = textOf(user, 'user', 'token');
  if (token !== undefined && /[^\x21-\x7e]/.test(token)) {
    throw invalid('has a user.token with white space or other characters that no HTTP header carries');
  }
  const username = textOf(user, 'user', 'username');
  const password = textOf(user, 'user', 'password');
  if (username === undefined && password !== undefined) throw invalid('has a user.password without user.username');
  if (username?.includes(':')) throw invalid('has a user.username with a colon, which HTTP forbids');
  if (username !== undefined && token !== undefined) throw invalid('has both user.token and user.username');
  return {
    ...(cert !== undefined && { cert, key }),
    ...(token !== undefined && { token }),
    ...(username !== undefined && { username, password: password ?? '' }),
  };
}

/** Text of a field; empty counts as absent, as in kubectl. Numbers are refused: YAML has already lost their spelling. */
function textOf(entry: Mapping, where: string, field: string): string | undefined {
  const value = entry[field] ?? '';
  if (typeof value !== 'string') throw invalid(`has a ${where}.${field} that is not text; put it in quotes`);
  return value === '' ? undefined : value;
}

function pemOf(entry: Mapping, where: string, field: string): string | undefined {
  const packed = textOf(entry, where, field)?.replace(/\s+/g, '');
  if (packed === undefined) return undefined;
  if (packed.length % 4 !== 0 || !/^[A-Za-z0-9+/]+={0,2}$/.test(packed))
    throw invalid(`has a ${where}.${field} that is not base64`);
  const pem = Buffer.from(packed, 'base64').toString('latin1');
  if (!pem.includes('-----BEGIN ')) throw invalid(`has a ${where}.${field} that holds no PEM`);
  return pem;
}

/** What TLS would refuse only when connecting, or, a CA without any certificate, would take for "trust nobody". */
function checkTls({ ca, cert, key }: ClusterAccess): void {
  if (ca !== undefined) {
    const certificates = ca.match(/-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g) ?? [];
    if (certificates.length === 0 || !certificates.every(isCertificate)) {
      throw invalid('has a cluster.certificate-authority-data that holds no readable certificate');
    }
  }
  if (cert === undefined) return;
  if (!isCertificate(cert)) throw invalid('has a user.client-certificate-data that holds no readable certificate');
  try {
    tls.createSecureContext({ ca: [], cert, key });
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : '';
    // What is weak depends on the OpenSSL that Node has, see connectionFailure.
    if (/_TOO_(SMALL|WEAK)$/.test(code)) {
      throw invalid(`has a user.client-certificate-data with a key or a signature that is too weak (${code})`);
    }
    throw invalid('has a user.client-key-data that is not the unencrypted key of user.client-certificate-data');
  }
}

function isCertificate(pem: string): boolean {
  try {
    return new X509Certificate(pem).subject !== '';
  } catch {
    return false;
  }
}

function invalid(what: string): TargetFailure {
  return new TargetFailure('KubeconfigInvalid', `The kubeconfig ${what}`);
}
