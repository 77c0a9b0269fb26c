import { expect } from 'chai';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Certificate } from './certificate.js';

describe('a certificate', () => {
  let folder: string;
  beforeEach(async () => (folder = await mkdtemp(join(tmpdir(), 'certificate-'))));
  afterEach(() => rm(folder, { recursive: true }));

  it('is renewed by other files alone, and offered again until it is taken', async () => {
    const files = { certFile: join(folder, 'tls.crt'), keyFile: join(folder, 'tls.key') };
    await writeFile(files.certFile, 'certificate 1');
    await writeFile(files.keyFile, 'key 1');
    const certificate = new Certificate(files);
    const taken: string[] = [];
    const take = ({ cert, key }: { cert: Buffer; key: Buffer }) => {
      if (cert.at(-1) !== key.at(-1)) throw new Error('they do not fit');
      taken.push(`${cert.toString()}, ${key.toString()}`);
    };
    await writeFile(join(folder, 'a.log'), 'a line');
    expect(certificate.renew(take)).to.equal(false);
    await writeFile(files.certFile, 'certificate 2');
    for (let n = 0; n < 2; n++) expect(() => certificate.renew(take)).to.throw('they do not fit');
    await writeFile(files.keyFile, 'key 2');
    expect(certificate.renew(take)).to.equal(true);
    expect(certificate.renew(take)).to.equal(false);
    expect(taken).to.deep.equal(['certificate 2, key 2']);
  });
});
