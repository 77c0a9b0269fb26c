import { expect } from 'chai';
import { connectionFailure, oneLine, reasonOfStatus } from './failure.js';
import { everythingOf, expectFailure } from './testing/failure.js';

function systemError(code: string): Error {
  return Object.assign(new Error(`connect ${code}`), { code });
}

describe('connectionFailure', () => {
  for (const [reason, ...codes] of [
    ['ConnectionRefused', 'ECONNREFUSED'],
    ['ConnectionReset', 'ECONNRESET', 'EPIPE'],
    ['Timeout', 'ETIMEDOUT'],
    ['HostNotFound', 'ENOTFOUND', 'EAI_AGAIN', 'EAI_FAIL'],
    ['HostUnreachable', 'EHOSTUNREACH', 'ENETUNREACH', 'EADDRNOTAVAIL', 'EACCES'],
    ['CertificateExpired', 'CERT_HAS_EXPIRED'],
    ['CertificateInvalid', 'CERT_REVOKED', 'CERT_NOT_YET_VALID', 'INVALID_CA', 'UNABLE_TO_GET_CRL', 'INVALID_PURPOSE'],
    ['TlsFailed', 'EPROTO', 'ERR_SSL_WRONG_VERSION_NUMBER', 'ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED'],
    ['UnexpectedAnswer', 'HPE_INVALID_CONSTANT'],
    ['TooLarge', 'HPE_HEADER_OVERFLOW'],
  ] as const) {
    it(`calls ${codes.join(', ')} ${reason}`, async () => {
      for (const code of codes) {
        const failure = await expectFailure(reason, () => Promise.reject(connectionFailure(systemError(code), 'a:1')));
        expect(failure.message).to.match(/^a:1 /).and.contain(code);
      }
    });
  }

  it('takes the most telling one of the errors of several addresses', async () => {
    const errors = [systemError('ENETUNREACH'), systemError('ECONNREFUSED'), systemError('EADDRNOTAVAIL')];
    const fail = (): Promise<never> => Promise.reject(connectionFailure(new AggregateError(errors), 'a:1'));
    await expectFailure('ConnectionRefused', fail);
    errors.splice(1, 1);
    await expectFailure('HostUnreachable', fail);
  });

  it('blames no target for faults of this process', () => {
    for (const error of [systemError('EMFILE'), new TypeError('a bug'), new AggregateError([])]) {
      expect(connectionFailure(error, 'a:1')).to.equal(error);
    }
  });

  it('keeps nothing of the error it came from', () => {
    const error = Object.assign(systemError('ERR_TLS_CERT_ALTNAME_INVALID'), { cert: { raw: 'CANARY' } });
    expect(everythingOf(connectionFailure(error, 'a:1'))).not.to.contain('CANARY');
  });
});

describe('reasonOfStatus', () => {
  it('has a word for each status that is not success', () => {
    const words = [400, 401, 403, 404, 429, 500, 503].map(reasonOfStatus);
    expect(words.join(' ')).to.equal(
      'UnexpectedAnswer Unauthorized Forbidden UnexpectedAnswer TooManyRequests ServerError ServerError',
    );
  });
});

describe('oneLine', () => {
  it('makes one short line that JSON columns take', () => {
    expect(oneLine(' a\u0000b\r\n\t c\u2028\ud800 ')).to.equal('a b c');
    expect(oneLine('x'.repeat(5000))).to.equal(`${'x'.repeat(299)}…`);
    expect(oneLine('😀'.repeat(5000)).isWellFormed()).to.equal(true);
  });
});
