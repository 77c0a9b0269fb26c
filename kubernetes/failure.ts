/**
 * Why a target cluster cannot be used, as a word that is stable enough for a condition's `reason`:
 *
 * | reason | when |
 * |---|---|
 * | `KubeconfigInvalid` | the kubeconfig cannot be read or lacks something |
 * | `KubeconfigUnsupported` | it needs what is refused on purpose: a program, a file, a proxy, impersonation |
 * | `Unauthorized`, `Forbidden` | the target answered 401, 403 |
 * | `TooManyRequests` | the target answered 429; Kubernetes uses the same word in its own Status |
 * | `ServerError` | the target answered 5xx |
 * | `Timeout` | not connected, or not answered in full, within the time-out |
 * | `ConnectionRefused`, `ConnectionReset`, `HostNotFound`, `HostUnreachable` | the network |
 * | `CertificateInvalid` | unknown authority, self-signed, wrong host, revoked, not yet valid, too weak |
 * | `CertificateExpired` | the target's certificate is past its end |
 * | `TlsFailed` | any other failed handshake: plain HTTP on the port, or the target refused our certificate |
 * | `Redirected` | a 3xx; followed, it would hand the credentials to another host |
 * | `TooLarge` | more bytes than the caller allowed |
 * | `UnexpectedAnswer` | something answers, but not as an API server does |
 */
export type FailureReason =
  | 'KubeconfigInvalid'
  | 'KubeconfigUnsupported'
  | 'Unauthorized'
  | 'Forbidden'
  | 'TooManyRequests'
  | 'ServerError'
  | 'Timeout'
  | 'ConnectionRefused'
  | 'ConnectionReset'
  | 'HostNotFound'
  | 'HostUnreachable'
  | 'CertificateInvalid'
  | 'CertificateExpired'
  | 'TlsFailed'
  | 'Redirected'
  | 'TooLarge'
  | 'UnexpectedAnswer';

/**
 * Everything that can go wrong between a kubeconfig and an answer of its cluster. The message is for people and goes
 * into statuses and logs as it is, so it never holds a credential. There is no `cause` on purpose: the errors of Node
 * and of the YAML library carry certificates and lines of the file.
 */
export class TargetFailure extends Error {
  override readonly name = 'TargetFailure';

  /** @param status the HTTP status, where the target answered */
  constructor(
    readonly reason: FailureReason,
    message: string,
    readonly status?: number,
  ) {
    super(message);
  }
}

const network: Record<string, [FailureReason, string]> = {
  ECONNREFUSED: ['ConnectionRefused', 'refused the connection'],
  ECONNRESET: ['ConnectionReset', 'closed the connection before it had answered'],
  ECONNABORTED: ['ConnectionReset', 'closed the connection before it had answered'],
  EPIPE: ['ConnectionReset', 'closed the connection before it had answered'],
  ETIMEDOUT: ['Timeout', 'cannot be connected to: the network gave up waiting'],
  ENOTFOUND: ['HostNotFound', 'has a host name that no name server knows'],
  EAI_AGAIN: ['HostNotFound', 'has a host name that cannot be looked up at present'],
  EAI_FAIL: ['HostNotFound', 'has a host name that cannot be looked up'],
  EAI_NODATA: ['HostNotFound', 'has a host name without an address'],
  EHOSTUNREACH: ['HostUnreachable', 'cannot be reached: no route to the host'],
  EHOSTDOWN: ['HostUnreachable', 'cannot be reached: the host is down'],
  ENETUNREACH: ['HostUnreachable', 'cannot be reached: no route to its network'],
  ENETDOWN: ['HostUnreachable', 'cannot be reached: the network is down'],
  EADDRNOTAVAIL: ['HostUnreachable', 'has an address that cannot be connected to from here'],
  EACCES: ['HostUnreachable', 'cannot be reached: connecting to it is not permitted from here'],
  EPERM: ['HostUnreachable', 'cannot be reached: connecting to it is not permitted from here'],
  HPE_HEADER_OVERFLOW: ['TooLarge', 'answered with more than 16 KiB of headers'],
  CERT_HAS_EXPIRED: ['CertificateExpired', 'shows a certificate that has expired'],
  CERT_NOT_YET_VALID: ['CertificateInvalid', 'shows a certificate that is not valid yet; compare the clocks'],
  DEPTH_ZERO_SELF_SIGNED_CERT: [
    'CertificateInvalid',
    'shows a self-signed certificate that the kubeconfig does not trust',
  ],
  ERR_TLS_CERT_ALTNAME_INVALID: ['CertificateInvalid', 'shows a certificate that was made for another host'],
  HOSTNAME_MISMATCH: ['CertificateInvalid', 'shows a certificate that was made for another host'],
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: [
    'CertificateInvalid',
    'shows a certificate of an authority that the kubeconfig does not trust',
  ],
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: [
    'CertificateInvalid',
    'shows a certificate of an authority that the kubeconfig does not trust',
  ],
  SELF_SIGNED_CERT_IN_CHAIN: [
    'CertificateInvalid',
    'shows a certificate of an authority that the kubeconfig does not trust',
  ],
};

// OpenSSL's other verification results, as Node names them (src/crypto/crypto_common.cc). ERR_SSL_… and EPROTO come
// first because the names of some alerts speak of certificates too.
const families: [RegExp, FailureReason, string][] = [
  [/^(EPROTO$|ERR_SSL_|ERR_OSSL_)/, 'TlsFailed', 'and this program could not agree on TLS'],
  [/^HPE_/, 'UnexpectedAnswer', 'did not answer in HTTP'],
  [
    /CERT|CRL|SIGNATURE|ISSUER|ALTNAME|^INVALID_(CA|PURPOSE)$|^PATH_LENGTH_EXCEEDED$|^UNSPECIFIED$/,
    'CertificateInvalid',
    'shows a certificate that cannot be trusted',
  ],
];

/**
 * Translates an error of Node's sockets, TLS, name look-up or HTTP parser. What it does not know comes back unchanged:
 * it is a fault of this process (out of file descriptors, a bug) and must not be blamed on a cluster.
 * @param address host and port of the target, for the message
 */
export function connectionFailure(error: Error, address: string): Error {
  const code = errorCode(error);
  if (code === undefined) return error;
  const exact = network[code];
  if (exact) return new TargetFailure(exact[0], `${address} ${exact[1]} (${code})`);
  // Has no code, and depends on Node: OpenSSL 3.5 (Node 24, 22 of late) wants RSA keys of 2048 bits, 3.0 (Node 20) of 1024.
  const weak = code === 'UNSPECIFIED' ? /^[\w ]+ too weak$/.exec(error.message)?.[0] : undefined;
  if (weak) return new TargetFailure('CertificateInvalid', `${address} shows a certificate that is too weak (${weak})`);
  const family = families.find(([pattern]) => pattern.test(code));
  return family ? new TargetFailure(family[1], `${address} ${family[2]} (${code})`) : error;
}

/**
 * The code of an error. A name with several addresses fails with one error per address; the most telling counts, since
 * "no route" is usual for the address family that this machine does not have.
 */
function errorCode(error: unknown): string | undefined {
  if (error instanceof AggregateError) {
    const codes = error.errors.map(errorCode).filter(code => code !== undefined);
    return codes.find(code => network[code]?.[0] !== 'HostUnreachable') ?? codes[0];
  }
  if (!(error instanceof Error) || !('code' in error)) return undefined;
  return typeof error.code === 'string' ? error.code : undefined;
}

/** The reason for an answer that is not the one hoped for, by its HTTP status. */
export function reasonOfStatus(status: number): FailureReason {
  if (status === 401) return 'Unauthorized';
  if (status === 403) return 'Forbidden';
  if (status === 429) return 'TooManyRequests';
  if (status >= 500) return 'ServerError';
  return 'UnexpectedAnswer';
}

/**
 * Makes text of a target fit for a message: one line, no control characters, no lone surrogates (Postgres refuses both
 * in JSON), cut after 300 characters.
 */
export function oneLine(text: string): string {
  const line = text
    .slice(0, 1000)
    .replace(/[\p{Cc}\p{Cs}\s]+/gu, ' ')
    .trim();
  return line.length > 300 ? `${line.slice(0, 299).replace(/\p{Cs}/gu, '')}…` : line;
}
