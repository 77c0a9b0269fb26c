import { expect } from 'chai';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { BadSetting, readSettings } from '../config.js';
import { Authority } from '../kubernetes/testing/certificates.js';
import { encryptionKey } from './platform.js';
import { variables } from './settings.js';

const token = '0123456789abcdef';
const readme = await readFile(join(import.meta.dirname, '..', 'README.md'), 'utf8');

describe('settings', () => {
  const key = encryptionKey.toString('base64');
  const certificate = join(import.meta.dirname, '..', 'package.json');
  const open = { HOST: '0.0.0.0', API_TOKEN: token, TLS: 'off' };
  /** A bad value of a variable, what else is set, and what the message must say. */
  const bad: [string, string, RegExp, Record<string, string>?][] = [
    ['PORT', 'http', /"http" is not a port: a number from 0 to 65535/],
    ['PORT', '65536', /"65536" is not a port/],
    ['PORT', '-1', /"-1" is not a port/],
    ['HEALTH_PORT', '80a', /"80a" is not a port/],
    ['DATABASE_URL', 'postgres://u:hunter22@h/db', /^ENCRYPTION_KEY: is required with an external database: openssl/],
    ['POSTGRES_PARAMS', 'user=u password=hunter22', /^ENCRYPTION_KEY: is required with an external database/],
    ['AMQP_URL', 'http://u:hunter22@h', /its value is not a URL that begins with amqp:\/\/ or amqps:\/\//],
    ['AMQP_URL', 'hunter22', /its value is not a URL/],
    ['AMQP_URL', 'amqp://u:hunter22@a,b', /its value is not a URL.*a comma in a password is written %2C/],
    ['AMQP_URL', 'amqp://u:hunter22@a,amqp://v:hunter22@b', /its value names nodes of one cluster, which must agree/],
    ['AMQP_URL', 'amqp://u:hunter22@[::1]:5672', /its value holds an IPv6 address.*use a host name/],
    ['AMQP_URL', 'amqp://u:hunter22@a?cacertfile=/ca.pem', /its value has a cacertfile, which needs amqps/],
    [
      'AMQP_URL',
      'amqps://u:hunter22@a?cacertfile=/nowhere/ca.pem',
      /"\/nowhere\/ca.pem", which cannot be read \(ENOENT\)/,
    ],
    ['API_URL', 'ftp://h', /"ftp:\/\/h" is not a URL that begins with http:\/\/ or https:\/\//],
    ['API_URL', 'localhost', /"localhost" is not a URL/],
    ['API_CA_FILE', '/nowhere/ca.crt', /"\/nowhere\/ca.crt" is not a file that can be read \(ENOENT\)/],
    ['API_CA_FILE', certificate, /^API_CA_FILE: ".*package.json" holds no certificate in PEM/],
    ['API_TOKEN', 'hunter22', /its value is not at least 16 printable characters without spaces.*openssl rand -hex 32/],
    ['API_TOKEN', 'hunter22 hunter22 hunter22', /its value is not at least 16 printable characters/],
    ['HOST', '0.0.0.0', /^API_TOKEN: is not set, and HOST is "0.0.0.0": a token is required/],
    ['HOST', '::', /^TLS_CERT_FILE: is not set, and HOST is "::": set TLS_CERT_FILE.*or TLS=off/, { API_TOKEN: token }],
    ['TLS_CERT_FILE', '/nowhere/tls.crt', /is not a file that can be read \(ENOENT\)/],
    ['TLS_CERT_FILE', certificate, /^TLS_KEY_FILE: is missing, TLS_CERT_FILE is set/],
    ['TLS_KEY_FILE', certificate, /^TLS_CERT_FILE: is missing, TLS_KEY_FILE is set/],
    ['TLS_CERT_FILE', certificate, /package.json" holds no certificate in PEM/, { TLS_KEY_FILE: certificate }],
    ['TLS', 'yes', /"yes" is not one of on, off/],
    ['TLS', 'on', /^TLS: is "on", which needs TLS_CERT_FILE and TLS_KEY_FILE/],
    ['ENCRYPTION_KEY', 'hunter22', /its value is not 32 bytes in base64.*openssl rand -base64 32/],
    ['ENCRYPTION_KEY', `${key},hunter22`, /its value is not 32 bytes in base64/],
    ['EVENT_LOG_MAX', '4GB', /"4GB" is not a size of at least 16MiB: bytes, or a number with MiB or GiB/],
    ['EVENT_LOG_MAX', '1MiB', /"1MiB" is not a size of at least 16MiB/],
    ['CONCURRENCY', '0', /"0" is not a whole number from 1 to 1000/],
    ['OTEL_EXPORTER_OTLP_ENDPOINT', 'collector:4318', /"collector:4318" is not a URL/],
    ['OTEL_EXPORTER_OTLP_ENDPOINT', 'http://me:hunter22@collector:4318', /its value holds a user or password/],
    ['OTEL_EXPORTER_OTLP_HEADERS', 'a=hunter22%0d%0ab:c', /its value is not a list of headers/],
    ['OTEL_EXPORTER_OTLP_HEADERS', 'hunter22', /its value is not a list of headers: name=value, joined by commas/],
    ['OTEL_EXPORTER_OTLP_HEADERS', 'a=%hunter22', /its value is not a list of headers/],
    ['OTEL_TRACES_SAMPLER_ARG', '2', /"2" is not a share from 0 to 1/],
    ['LOG_LEVEL', 'loud', /"loud" is not one of debug, info, warn, error/],
    ['LOG_FORMAT', 'xml', /"xml" is not one of text, json/],
  ];

  it('tells a key that is none from one of another certificate', async () => {
    const authority = await Authority.create();
    const folder = await mkdtemp(join(tmpdir(), 'settings-'));
    try {
      const [one, other] = [await authority.issue('DNS:one'), await authority.issue('DNS:other')];
      const file = async (name: string, text: string) => {
        await writeFile(join(folder, name), text);
        return join(folder, name);
      };
      const [cert, key] = [await file('tls.crt', one.cert), await file('tls.key', one.key)];
      const read = (keyFile: string) => readSettings({ TLS_CERT_FILE: cert, TLS_KEY_FILE: keyFile });
      expect(read(key).tls).to.deep.equal({ certFile: cert, keyFile: key });
      const none = await file('none.key', 'half of a ke');
      expect(() => read(none)).to.throw(BadSetting, /^TLS_KEY_FILE: ".*none.key" holds no private key in PEM without/);
      const others = await file('other.key', other.key);
      expect(() => read(others)).to.throw(
        BadSetting,
        /^TLS_KEY_FILE: ".*other.key" is not the key of the certificate in/,
      );
    } finally {
      await authority.remove();
      await rm(folder, { recursive: true });
    }
  });

  it('names the variable that is wrong, what it holds and what it may hold, and shows no secret', () => {
    for (const [variable, value, message, more] of bad) {
      const setting = `${variable}=${value}`;
      const thrown = expect(() => readSettings({ ...more, [variable]: value }), setting).to.throw(BadSetting, message);
      thrown.with.property('message').that.matches(/^[A-Z_]+: /);
      thrown.with.property('message').that.does.not.include('hunter22');
    }
  });

  it('checks every variable that there is', () => {
    // A directory will do, whichever it is, until it is used; a name may be any.
    const unchecked = ['DATA_DIR', 'OTEL_SERVICE_NAME'];
    expect(variables().filter(name => !unchecked.includes(name))).to.have.members([
      ...new Set(bad.map(([variable]) => variable)),
    ]);
  });

  it('takes an empty value for one that is not set, and sizes, ports and keys as they are written', () => {
    const empty = Object.fromEntries(variables().map(name => [name, '']));
    expect({ ...readSettings(empty), instance: '' }).to.deep.equal({ ...readSettings({}), instance: '' });
    const settings = readSettings({ ...open, PORT: '80', EVENT_LOG_MAX: '32MiB', ENCRYPTION_KEY: `${key}, ${key}` });
    expect(settings).to.include({ port: 80, eventLogMax: 2 ** 25, apiUrl: 'http://127.0.0.1:80', apiToken: token });
    expect(settings.encryptionKeys).to.deep.equal([encryptionKey, encryptionKey]);
  });
});

describe('the table of settings in README.md', () => {
  const rows = [...readme.matchAll(/^\| `([A-Z_]+)` \| (.+?) \|/gm)].map(([, name = '', shown = '']) => ({
    name,
    shown,
  }));

  it('has every variable that config.ts reads, and no other', () => {
    expect(rows.map(({ name }) => name)).to.have.members(variables());
  });

  it('shows the defaults that hold', () => {
    const defaults = rows.flatMap(({ name, shown }) => {
      const value = /^`([^`]+)`$/.exec(shown)?.[1];
      return value === undefined ? [] : [[name, value] as const];
    });
    expect(defaults.length).to.be.greaterThan(5);
    const given = readSettings(Object.fromEntries(defaults));
    expect({ ...given, instance: '' }).to.deep.equal({ ...readSettings({}), instance: '' });
  });
});
