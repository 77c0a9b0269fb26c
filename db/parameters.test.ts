import { expect } from 'chai';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseConnection } from './parameters.js';
import { reasonOf } from '../reason.js';

function refused(variables: { DATABASE_URL?: string; POSTGRES_PARAMS?: string }): string {
  try {
    parseConnection(variables);
  } catch (error) {
    return reasonOf(error);
  }
  throw new Error(`accepted: ${JSON.stringify(variables)}`);
}

describe('connection parameters', () => {
  it('are undefined when neither variable is set, or both are empty', () => {
    expect(parseConnection({})).to.equal(undefined);
    expect(parseConnection({ DATABASE_URL: '', POSTGRES_PARAMS: '  ' })).to.equal(undefined);
  });

  it('read keywords and a URL alike', () => {
    const expected = {
      host: 'localhost',
      port: 5432,
      user: 'postgres',
      password: 'helloworld',
      database: 'syncsets',
      ssl: false,
    };
    const POSTGRES_PARAMS = 'user=postgres password=helloworld dbname=syncsets sslmode=disable host=localhost';
    const DATABASE_URL = 'postgres://postgres:helloworld@localhost/syncsets?sslmode=disable';
    expect(parseConnection({ POSTGRES_PARAMS })).to.deep.equal(expected);
    expect(parseConnection({ DATABASE_URL })).to.deep.equal(expected);
    expect(parseConnection({ DATABASE_URL: POSTGRES_PARAMS })).to.deep.equal(expected);
    expect(parseConnection({ POSTGRES_PARAMS: DATABASE_URL })).to.deep.equal(expected);
  });

  it("read libpq's quotes, backslashes and spaces around =", () => {
    const read = (text: string) => parseConnection({ POSTGRES_PARAMS: text });
    expect(read(String.raw`password = 'it\'s a \\ secret' user=a`)?.password).to.equal(String.raw`it's a \ secret`);
    expect(read(String.raw`password=a\ b\'c user=a`)?.password).to.equal(`a b'c`);
    expect(read(`password='' user=a`)).not.to.have.property('password');
    // libpq passes over blanks after the =, so this is no empty user
    expect(read(`user= password=x`)?.user).to.equal('password=x');
    expect(read(`\n user=a\tport=6000\n`)).to.include({ user: 'a', port: 6000 });
    expect(read(`options='-c search_path=x' connect_timeout=5 application_name='my tool' user=a`)).to.include({
      options: '-c search_path=x',
      connectionTimeoutMillis: 5000,
      application_name: 'my tool',
    });
  });

  it('read a URL as libpq does: escapes, IPv6, sockets, parameters that override', () => {
    const read = (text: string) => parseConnection({ DATABASE_URL: text });
    expect(read('postgresql://a%40b:p%2Fw%25@db:6000/my%20db')).to.include({
      user: 'a@b',
      password: 'p/w%',
      host: 'db',
      port: 6000,
      database: 'my db',
    });
    expect(read('postgres://u:p?ss#w&rd@db/x')).to.include({ password: 'p?ss#w&rd', host: 'db', database: 'x' });
    expect(read('postgres://u@[::1]:6000/x')).to.include({ host: '::1', port: 6000 });
    expect(read('postgres://u@%2Fvar%2Frun%2Fpostgresql/x?sslmode=require')).to.include({
      host: '/var/run/postgresql',
      ssl: false,
    });
    expect(read('postgres:///x?host=db&user=u&password=p%3D1&port=1')).to.include({
      host: 'db',
      user: 'u',
      password: 'p=1',
      port: 1,
      database: 'x',
    });
    expect(read('postgres://u@db')).to.include({ database: 'u' });
  });

  it('accept both variables when they say the same, and refuse them when they differ', () => {
    const DATABASE_URL = 'postgres://u:p@localhost:5432/x';
    expect(parseConnection({ DATABASE_URL, POSTGRES_PARAMS: 'user=u password=p dbname=x' })).to.include({ user: 'u' });
    expect(refused({ DATABASE_URL, POSTGRES_PARAMS: 'user=u password=p dbname=y' })).to.match(
      /^DATABASE_URL and POSTGRES_PARAMS name different databases\. Set one/,
    );
  });

  describe('refused', () => {
    const cases: [title: string, text: string, message: RegExp][] = [
      ['unknown keyword', 'user=a pasword=hunter2', /unknown keyword "pasword"; known are host, port/],
      ['unknown URL parameter', 'postgres://u:hunter2@h/x?sslmod=disable', /unknown keyword "sslmod"/],
      ['unquoted password with a space', 'password=my hunter2=x', /after the password \(quote a password/],
      [
        'unquoted password with a space and no =',
        'password=my hunter2',
        /something without = stands after the value of password/,
      ],
      ['open quote', "password='hunter2 user=a", /a quote or a backslash without its partner/],
      ['text after a closing quote', "user='a'hunter2", /a quote or a backslash without its partner/],
      ['other scheme', 'mysql://u:hunter2@h/x', /must begin with postgres:\/\/ or postgresql:\/\/, not mysql:\/\//],
      ['raw @ in a password', 'postgres://u:hun@ter2@h/x', /write \/ @ : \? and % in a user or password as %2F %40/],
      ['raw / in a password', 'postgres://u:hunter2/w@h/x', /write \/ @ : \? and % in a user or password/],
      ['raw % in a password', 'postgres://u:hunter2%zz@h/x', /the password holds a % that is no percent-encoding/],
      ['bad port', 'postgres://u:hunter2@h:0/x', /port must be a whole number from 1 to 65535/],
      ['bad port word', 'host=h port=hunter2', /port must be a whole number from 1 to 65535/],
      ['bad time-out', 'host=h connect_timeout=-1', /connect_timeout must be a whole number/],
      ['bad sslmode', 'host=h sslmode=on', /sslmode must be one of disable, allow, prefer, require, verify-ca/],
      ['several hosts', 'host=a,b user=u', /several hosts are not supported/],
      ['several hosts in a URL', 'postgres://u@a,b/x', /name one host only/],
      ['missing certificate file', 'host=h sslmode=verify-ca sslrootcert=/nowhere/ca.pem', /sslrootcert: .*ENOENT/],
      ['verify-ca without an authority', 'host=h sslmode=verify-ca', /verify-ca needs sslrootcert=FILE/],
      ['weak use of the system authorities', 'host=h sslmode=require sslrootcert=system', /needs sslmode=verify-full/],
      ['plain word', 'hunter2', /something without = stands at the start/],
    ];
    for (const [title, text, message] of cases)
      it(`${title}, naming the variable and the accepted forms and no secret`, () => {
        for (const name of ['DATABASE_URL', 'POSTGRES_PARAMS'] as const) {
          const said = refused({ [name]: text });
          expect(said)
            .to.match(message)
            .and.match(new RegExp(`^${name}: .*Accepted: a URL .* or keywords `));
          expect(said).not.to.contain('hunter2').and.not.contain('ter2');
        }
      });
  });

  describe('sslmode', () => {
    const ssl = (text: string) => parseConnection({ POSTGRES_PARAMS: text });
    let directory: string;
    let ca: string;

    before(async () => {
      directory = await mkdtemp(join(tmpdir(), 'parameters-'));
      ca = join(directory, 'ca.pem');
      await writeFile(ca, 'AUTHORITY');
    });
    after(() => rm(directory, { recursive: true }));

    it('require encrypts without checking, or checks the authority when one is named', () => {
      expect(ssl('host=h sslmode=require')?.ssl).to.deep.equal({ rejectUnauthorized: false });
      const named = ssl(`host=h sslmode=require sslrootcert=${ca}`)?.ssl;
      expect(named).to.include({ ca: 'AUTHORITY' }).and.have.property('checkServerIdentity');
      expect(named).not.to.have.property('rejectUnauthorized');
    });

    it('verify-ca checks the authority, verify-full the host name too', () => {
      expect(ssl(`host=h sslmode=verify-ca sslrootcert=${ca}`)?.ssl).to.have.all.keys('ca', 'checkServerIdentity');
      expect(ssl(`host=h sslmode=verify-full sslrootcert=${ca}`)?.ssl).to.deep.equal({ ca: 'AUTHORITY' });
      expect(ssl('host=h sslmode=verify-full')?.ssl).to.deep.equal({});
      expect(ssl('host=h sslrootcert=system')?.ssl).to.deep.equal({});
      expect(parseConnection({ DATABASE_URL: 'postgres://h/x?ssl=true' })?.ssl).to.deep.equal({
        rejectUnauthorized: false,
      });
    });

    it('is prefer when absent, except towards this machine', () => {
      expect(ssl('host=db.example')).to.include({ ssl: false }).and.have.property('stream');
      expect(ssl('host=h sslmode=allow')).to.have.property('stream');
      for (const host of ['localhost', '127.0.0.1', '::1', '/run/pg'])
        expect(ssl(`host=${host}`))
          .to.include({ ssl: false })
          .and.not.have.property('stream');
    });
  });

  it('take the password from a passfile', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'parameters-'));
    const passfile = join(directory, 'pgpass');
    await writeFile(passfile, '# comment\nother:*:*:u:wrong\nh:*:x:u:se\\:cr\\\\et\n*:*:*:*:last\n');
    const read = (text: string) => parseConnection({ POSTGRES_PARAMS: `${text} passfile=${passfile}` })?.password;
    expect(read('host=h user=u dbname=x')).to.equal('se:cr\\et');
    expect(read('host=h user=v dbname=x')).to.equal('last');
    expect(read('host=h user=u dbname=x password=given')).to.equal('given');
    await rm(directory, { recursive: true });
  });
});
