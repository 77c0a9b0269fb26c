import { expect } from 'chai';
import { parseKubeconfig, type FailureReason } from './index.js';
import { Authority, type Pair } from './testing/certificates.js';
import { errorOf, everythingOf, expectFailure } from './testing/failure.js';
import { base64, kubeconfigText } from './testing/kubeconfig.js';

const server = 'https://10.0.0.1:6443';

describe('parseKubeconfig', () => {
  let authority: Authority;
  let pair: Pair;
  let weak: Pair;

  before(async () => {
    authority = await Authority.create();
    pair = await authority.issue('DNS:someone');
    weak = await authority.issue('DNS:someone', { weak: true });
  });
  after(() => authority.remove());

  it('reads server, trust and credentials of the current context', () => {
    const access = parseKubeconfig(`
apiVersion: v1
kind: Config
current-context: 17
contexts:
- name: 17
  context: { cluster: one, user: me, namespace: default }
clusters:
- name: one
  cluster:
    server: https://[::1]:6443/k8s/clusters/c-1
    certificate-authority-data: |
      ${base64(authority.ca).replace(/(.{64})/g, '$1\n      ')}
    tls-server-name: api.example
users:
- name: me
  user:
    client-certificate-data: ${base64(pair.cert)}
    client-key-data: ${base64(pair.key)}
    token: t0ken
`);
    expect({ ...access, server: access.server.href }).to.deep.equal({
      server: 'https://[::1]:6443/k8s/clusters/c-1',
      ca: authority.ca,
      tlsServerName: 'api.example',
      cert: pair.cert,
      key: pair.key,
      token: 't0ken',
    });
  });

  it('reads JSON, name and password, and an account without credentials', () => {
    const named = { username: 'me', password: 'pass:word' };
    const access = parseKubeconfig(
      kubeconfigText(server, { user: named, cluster: { 'insecure-skip-tls-verify': true } }),
    );
    expect(access).to.deep.equal({ server: new URL(server), insecureSkipTlsVerify: true, ...named });
    expect(parseKubeconfig(kubeconfigText(server))).to.deep.equal({ server: new URL(server) });
  });

  it('takes the context that is asked for, and looks at no other', async () => {
    const text = `
current-context: pod
contexts: [{name: pod, context: {cluster: a, user: plugin}}, {name: plain, context: {cluster: b, user: token}}]
clusters: [{name: a, cluster: {server: "https://a"}}, {name: b, cluster: {server: "https://b"}}]
users: [{name: plugin, user: {exec: {command: /bin/sh}}}, {name: token, user: {token: t}}]`;
    expect(parseKubeconfig(text, 'plain')).to.deep.equal({ server: new URL('https://b'), token: 't' });
    await expectFailure('KubeconfigUnsupported', () => parseKubeconfig(text));
    await expectFailure('KubeconfigInvalid', () => parseKubeconfig(text, 'other'));
  });

  it('gives no credentials to a plain http server, as kubectl', () => {
    const text = kubeconfigText('http://10.0.0.1:8080', { user: { token: 't0ken' } });
    expect(parseKubeconfig(text)).to.deep.equal({ server: new URL('http://10.0.0.1:8080') });
  });

  for (const [part, field, value] of [
    [
      'user',
      'exec',
      { apiVersion: 'client.authentication.k8s.io/v1', command: '/bin/sh', args: ['-c', 'touch /tmp/x'] },
    ],
    ['user', 'exec', {}],
    ['user', 'auth-provider', { name: 'gcp', config: { 'cmd-path': '/bin/sh' } }],
    ['user', 'client-certificate', '/etc/passwd'],
    ['user', 'client-key', '/etc/passwd'],
    ['user', 'tokenFile', '/var/run/secrets/kubernetes.io/serviceaccount/token'],
    ['user', 'as', 'system:admin'],
    ['user', 'as-uid', '1'],
    ['user', 'as-groups', ['system:masters']],
    ['user', 'as-user-extra', { scopes: ['all'] }],
    ['cluster', 'certificate-authority', '/etc/passwd'],
    ['cluster', 'proxy-url', 'http://10.0.0.9:3128'],
  ] as const) {
    it(`refuses ${part}.${field}, by name, even beside a token (${JSON.stringify(value).slice(0, 12)})`, async () => {
      const more = { user: { token: 't0ken' }, [part]: { token: 't0ken', [field]: value } };
      const failure = await expectFailure('KubeconfigUnsupported', () => parseKubeconfig(kubeconfigText(server, more)));
      expect(failure.message).to.contain(`${part}.${field}:`);
    });
  }

  it('takes the last of a repeated key, as kubectl, also where that one is refused', async () => {
    const text = kubeconfigText(server, { user: { token: 't0ken' } });
    expect(parseKubeconfig(text.replace('"token":', '"token":"first","token":')).token).to.equal('t0ken');
    const twice = text.replace('"token":', '"exec":null,"exec":{"command":"sh"},"token":');
    await expectFailure('KubeconfigUnsupported', () => parseKubeconfig(twice));
  });

  it('overlooks refused fields that are empty', () => {
    const user = { exec: null, 'client-key': '', tokenFile: '', token: 't0ken' };
    expect(parseKubeconfig(kubeconfigText(server, { user })).token).to.equal('t0ken');
  });

  const without = (field: string): string => kubeconfigText(server).replace(`"${field}"`, '"x"');
  for (const [what, text, message] of [
    ['a word', () => 'foobar', /not a YAML or JSON mapping/],
    ['nothing', () => '', /not a YAML or JSON mapping/],
    ['a list', () => '[]', /not a YAML or JSON mapping/],
    ['broken YAML', () => 'a: b\n c: "d', /not YAML: \w+ at line \d, column \d+/],
    ['two documents', () => 'a: b\n---\nc: d', /more than one YAML document/],
    ['another kind', () => 'kind: Secret', /kind/],
    ['no current-context', () => without('current-context'), /no current-context/],
    ['no contexts', () => without('contexts'), /lacks an entry in contexts/],
    ['no clusters', () => without('clusters'), /lacks an entry in clusters/],
    ['no users', () => without('users'), /lacks an entry in users/],
    ['a context without a user', () => kubeconfigText(server).replace('"user":"admin"', '"x":1'), /without a user/],
    ['contexts that are a mapping', () => 'current-context: a\ncontexts: {a: {}}', /contexts that are not a list/],
    ['no server', () => without('server'), /lacks cluster.server/],
    ['a server without scheme', () => kubeconfigText('10.0.0.1:6443'), /https:\/\/ or http:\/\//],
    ['a server that is a file', () => kubeconfigText('file:///etc/passwd'), /https:\/\/ or http:\/\//],
    ['a unix socket', () => kubeconfigText('unix:///var/run/docker.sock'), /https:\/\/ or http:\/\//],
    ['credentials in the URL', () => kubeconfigText('https://me:pw@10.0.0.1'), /credentials within cluster.server/],
    ['a server with a query', () => kubeconfigText('https://10.0.0.1/?a=b'), /query/],
    ['a number as token', () => kubeconfigText(server, { user: { token: 123 } }), /put it in quotes/],
    ['a token of two lines', () => kubeconfigText(server, { user: { token: 'a\r\nb: c' } }), /white space/],
    ['two identities', () => kubeconfigText(server, { user: { token: 'a', username: 'b' } }), /both/],
    ['a password alone', () => kubeconfigText(server, { user: { password: 'a' } }), /without user.username/],
    ['a CA that is not base64', () => withCa('%%%%'), /certificate-authority-data that is not base64/],
    ['a CA that is not PEM', () => withCa(base64('hello')), /certificate-authority-data that holds no PEM/],
    ['a CA that is a key', () => withCa(base64(pair.key)), /no readable certificate/],
    ['a CA that is damaged', () => withCa(base64(authority.ca.replace(/MII/, 'AAA'))), /no readable certificate/],
    ['a CA beside insecure', () => withCa(base64(authority.ca), { 'insecure-skip-tls-verify': true }), /has both/],
    ['insecure as text', () => withCa('', { 'insecure-skip-tls-verify': 'yes' }), /true or false/],
    ['a certificate without key', () => withPair(pair.cert), /only one of/],
    ['a key that is none', () => withPair(pair.cert, pair.cert), /not the unencrypted key/],
    ['a key that is too short', () => withPair(weak.cert, weak.key), /too weak \(ERR_SSL_EE_KEY_TOO_SMALL\)/],
    ['the key of another', () => withPair(authority.ca, pair.key), /not the unencrypted key/],
  ] as [string, () => string, RegExp][]) {
    it(`says what is wrong with ${what}`, async () => {
      const failure = await expectFailure('KubeconfigInvalid', () => parseKubeconfig(text()));
      expect(failure.message).to.match(message);
    });
  }

  function withCa(ca: string, more: object = {}): string {
    return kubeconfigText(server, { cluster: { 'certificate-authority-data': ca, ...more } });
  }
  function withPair(cert: string, key?: string): string {
    const data = {
      'client-certificate-data': base64(cert),
      ...(key !== undefined && { 'client-key-data': base64(key) }),
    };
    return kubeconfigText(server, { user: data });
  }

  // Without its limits the parser takes 2 to 4 s for 1 MiB of these, and aborts the process at the nested lists.
  const aliases = Array.from(
    'bcdefgh',
    (key, i) =>
      `${key}: &${key} [${Array(9)
        .fill(`*${'abcdefg'[i] ?? ''}`)
        .join()}]`,
  );
  for (const [what, text, message] of [
    ['more than 1 MiB', `a: ${'b'.repeat(1024 * 1024)}`, /larger than 1048576 bytes/],
    ['aliases for 9^8 words', `a: &a [${Array(9).fill('x').join()}]\n${aliases.join('\n')}`, /too many YAML aliases/],
    ['12,000 nested lists', `[${'['.repeat(12_000)}]`, /more than 100 levels deep/],
    ['500,000 nested lists', '- '.repeat(500_000), /more than 100 levels deep/],
    ['200,000 nested mappings', '{a: '.repeat(200_000), /more than 100 levels deep/],
    ['260,000 items', '- a\n'.repeat(260_000), /more than 25000 YAML tokens/],
    ['100,000 keys', Array.from({ length: 100_000 }, (_, i) => `k${i}: 1`).join('\n'), /more than 25000 YAML tokens/],
  ] as const) {
    it(`gives up on ${what} in less than a second`, async () => {
      // Processor time: it waits for nothing, and what else the machine does is not its own.
      const before = process.cpuUsage();
      const failure = await expectFailure('KubeconfigInvalid', () => parseKubeconfig(text));
      const { user, system } = process.cpuUsage(before);
      expect((user + system) / 1_000).to.be.below(1_000);
      expect(failure.message).to.match(message);
    });
  }

  it('takes a file of 150 contexts', () => {
    const data = base64(authority.ca.repeat(3));
    const all = (field: string, value: object): object[] =>
      Array.from({ length: 150 }, (_, i) => ({ name: `n${i}`, [field]: value }));
    const text = JSON.stringify({
      clusters: all('cluster', { server, 'certificate-authority-data': data }),
      users: all('user', { token: 't0ken' }),
      contexts: Array.from({ length: 150 }, (_, i) => ({
        name: `n${i}`,
        context: { cluster: `n${i}`, user: `n${i}` },
      })),
    });
    expect(text.length).to.be.above(300_000);
    const access = parseKubeconfig(text, 'n149');
    expect(access.token).to.equal('t0ken');
    expect(access.ca).to.equal(authority.ca.repeat(3));
  });

  it('never shows a word of the file in its errors', async () => {
    const secrets = ['CANARY-token', 'CANARY-password', pair.key.slice(40, 80), base64(pair.key).slice(40, 80)];
    const [token = '', password = ''] = secrets;
    const texts: [FailureReason, string][] = [
      ['KubeconfigInvalid', token],
      ['KubeconfigInvalid', `a: b\nusers: [{user: {token: "${token}\nb: ]`],
      ['KubeconfigInvalid', `users:\n\t- token: ${token}`],
      ['KubeconfigInvalid', `*${token}`],
      ['KubeconfigInvalid', `a: *${token}`],
      ['KubeconfigInvalid', `? {${token}: ${password}}\n: 1`],
      ['KubeconfigInvalid', `a: !<tag:${token}> ${password}\n!${token}: [`],
      ['KubeconfigInvalid', `current-context: ${token}`],
      ['KubeconfigInvalid', kubeconfigText(token)],
      ['KubeconfigInvalid', kubeconfigText(`https://me:${password}@10.0.0.1`)],
      ['KubeconfigInvalid', kubeconfigText(server, { user: { token: `${token} ` } })],
      ['KubeconfigInvalid', kubeconfigText(server, { user: { token, username: 'me', password } })],
      ['KubeconfigInvalid', kubeconfigText(server, { user: { 'client-key-data': base64(pair.key) } })],
      ['KubeconfigInvalid', withPair(pair.key, pair.key)],
      ['KubeconfigInvalid', withPair(authority.ca, pair.key)],
      ['KubeconfigInvalid', kubeconfigText(server, { cluster: { 'certificate-authority-data': token } })],
      ['KubeconfigUnsupported', kubeconfigText(server, { user: { exec: { env: [{ name: 'T', value: token }] } } })],
      ['KubeconfigUnsupported', kubeconfigText(server, { user: { 'client-key': pair.key, token } })],
    ];
    const warnings: Error[] = [];
    const onWarning = (warning: Error): void => void warnings.push(warning);
    process.on('warning', onWarning);
    for (const [reason, text] of texts) {
      await expectFailure(reason, () => parseKubeconfig(text));
      const shown = everythingOf(await errorOf(() => parseKubeconfig(text)));
      for (const secret of secrets) expect(shown).not.to.contain(secret);
    }
    await new Promise(setImmediate);
    process.off('warning', onWarning);
    expect(warnings).to.deep.equal([]);
  });
});
