import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** A certificate and its key, as PEM. */
export interface Pair {
  cert: string;
  key: string;
}

/** A certificate authority for tests, made by the program `openssl` in a temporary folder (15 ms per certificate). */
export class Authority {
  private constructor(
    private readonly folder: string,
    /** Its own certificate, as PEM. */
    readonly ca: string,
  ) {}

  static async create(): Promise<Authority> {
    const folder = await mkdtemp(join(tmpdir(), 'authority-'));
    const made = ['-keyout', 'ca.key', '-out', 'ca.crt', '-days', '2', '-subj', '/CN=Authority of a test'];
    await run('openssl', ['req', '-x509', ...newKey, ...made], { cwd: folder });
    return new Authority(folder, await readFile(join(folder, 'ca.crt'), 'utf8'));
  }

  /**
   * @param names subject alternative names in openssl's form: `IP:127.0.0.1,DNS:localhost`
   * @param options.weak with an RSA key of 768 bits, which every OpenSSL of Node 20 and later refuses
   */
  async issue(names: string, options: { expired?: boolean; weak?: boolean } = {}): Promise<Pair> {
    await writeFile(join(this.folder, 'names'), `subjectAltName=${names}\n`);
    const key = options.weak === true ? ['-newkey', 'rsa:768', '-nodes'] : newKey;
    await run('openssl', ['req', ...key, '-keyout', 'key', '-out', 'csr', '-subj', '/CN=test'], {
      cwd: this.folder,
    });
    const signed = ['-CA', 'ca.crt', '-CAkey', 'ca.key', '-CAcreateserial', '-extfile', 'names', '-out', 'crt'];
    const days = options.expired === true ? '-1' : '2';
    await run('openssl', ['x509', '-req', '-in', 'csr', '-days', days, ...signed], { cwd: this.folder });
    return this.read();
  }

  /** Of nobody but itself, though not allowed to sign others. */
  async selfSigned(names: string): Promise<Pair> {
    const made = [
      '-keyout',
      'key',
      '-out',
      'crt',
      '-days',
      '2',
      '-subj',
      '/CN=itself',
      '-addext',
      `subjectAltName=${names}`,
    ];
    await run('openssl', ['req', '-x509', ...newKey, ...made], { cwd: this.folder });
    return this.read();
  }

  async remove(): Promise<void> {
    await rm(this.folder, { recursive: true });
  }

  private async read(): Promise<Pair> {
    const [cert = '', key = ''] = await Promise.all(
      ['crt', 'key'].map(name => readFile(join(this.folder, name), 'utf8')),
    );
    return { cert, key };
  }
}

const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
