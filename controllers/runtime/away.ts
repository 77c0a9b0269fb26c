import { ConnectionError } from '../../client/index.js';

/** What TLS says of a certificate that is not trusted, see Node's documentation of `tls`, "X509 certificate error codes". */
const untrusted = new Set([
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
]);

/** What to do about an API that gives no answer, by what the connection says. */
export function remedyFor(error: unknown): string {
  const code = error instanceof ConnectionError ? error.code : '';
  if (untrusted.has(code)) return "API_CA_FILE is to name the certificate of the authority that signed the API's";
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID') return 'API_URL must name the API as its certificate does';
  if (code === 'CERT_HAS_EXPIRED' || code === 'CERT_NOT_YET_VALID')
    return 'the API needs a certificate that is valid now';
  if (code === 'EPROTO') return 'API_URL begins with https, and what answers there speaks no TLS that fits';
  return 'API_URL says where it is';
}
