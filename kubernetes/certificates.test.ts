import { expect } from 'chai';
import type { FakeApiServer } from './testing/apiserver.js';
import { Authority } from './testing/certificates.js';
import { expectFailure } from './testing/failure.js';
import { base64 } from './testing/kubeconfig.js';
import { Opened, version } from './testing/opened.js';

describe('A target trusts a certificate', () => {
  let opened: Opened;

  before(async () => {
    opened = await Opened.create();
  });
  after(() => opened.authority.remove());
  afterEach(() => opened.close());

  const ask = (fake: FakeApiServer, cluster: object, user: object = {}): Promise<{ status: number }> =>
    opened.target(fake.url, { cluster, user }).request(version);

  it('of the authority in the kubeconfig and no other', async () => {
    const fake = await opened.fake({}, opened.pair);
    expect((await ask(fake, opened.trust)).status).to.equal(200);
    await expectFailure('CertificateInvalid', () => ask(fake, {}));
    const another = await Authority.create();
    opened.later(() => another.remove());
    const cluster = { 'certificate-authority-data': base64(another.ca) };
    const failure = await expectFailure('CertificateInvalid', () => ask(fake, cluster));
    expect(failure.message).to.match(/does not trust \(UNABLE_TO_VERIFY_LEAF_SIGNATURE\)/);
    expect((await ask(fake, { 'insecure-skip-tls-verify': true })).status).to.equal(200);
  });

  it('that is not self-signed, unless it is the authority itself', async () => {
    const selfSigned = await opened.authority.selfSigned('IP:127.0.0.1');
    const fake = await opened.fake({}, selfSigned);
    const failure = await expectFailure('CertificateInvalid', () => ask(fake, opened.trust));
    expect(failure.message).to.match(/self-signed/);
    expect((await ask(fake, { 'certificate-authority-data': base64(selfSigned.cert) })).status).to.equal(200);
  });

  it('made for its host, or for the tls-server-name', async () => {
    const fake = await opened.fake({}, await opened.authority.issue('DNS:api.example'));
    const failure = await expectFailure('CertificateInvalid', () => ask(fake, opened.trust));
    expect(failure.message).to.match(/another host/);
    expect((await ask(fake, { ...opened.trust, 'tls-server-name': 'api.example' })).status).to.equal(200);
    await expectFailure('CertificateInvalid', () => ask(fake, { ...opened.trust, 'tls-server-name': 'other.example' }));
  });

  it('that has not expired', async () => {
    const fake = await opened.fake({}, await opened.authority.issue('IP:127.0.0.1', { expired: true }));
    await expectFailure('CertificateExpired', () => ask(fake, opened.trust));
  });

  it('with a key that is long enough, whatever the target itself thinks of it', async () => {
    const weak = await opened.authority.issue('IP:127.0.0.1', { weak: true });
    const fake = await opened.fake({}, { ...weak, ciphers: 'DEFAULT@SECLEVEL=0' });
    const failure = await expectFailure('CertificateInvalid', () => ask(fake, opened.trust));
    expect(failure.message).to.match(/ is too weak \(EE certificate key too weak\)$/);
  });

  it('even if the environment says that none is checked', async () => {
    const fake = await opened.fake({}, opened.pair);
    process.env.NODE_TLS_REJECT_UNAUTHORIZED = '0';
    opened.later(() => delete process.env.NODE_TLS_REJECT_UNAUTHORIZED);
    await expectFailure('CertificateInvalid', () => ask(fake, {}));
  });

  it('and shows its own where it has one', async () => {
    const fake = await opened.fake({}, { ...opened.pair, ca: opened.authority.ca });
    const mine = { 'client-certificate-data': base64(opened.pair.cert), 'client-key-data': base64(opened.pair.key) };
    expect((await ask(fake, opened.trust, mine)).status).to.equal(200);
    await expectFailure('TlsFailed', () => ask(fake, opened.trust));
  });

  it('only on a port that speaks TLS', async () => {
    const fake = await opened.fake();
    const target = opened.target(fake.url.replace('http:', 'https:'), { cluster: opened.trust });
    await expectFailure('TlsFailed', () => target.request(version));
  });
});
