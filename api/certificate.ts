import { readFileSync, watch } from 'node:fs';
import { dirname } from 'node:path';
import type { Log } from '../db/index.js';
import { reasonOf } from '../reason.js';

/** The files that a server is known by, in PEM. */
export interface CertificateFiles {
  certFile: string;
  keyFile: string;
}

/** Milliseconds that the files' folders have to be quiet: certificate and key are written one after the other. */
const quiet = 200;

/** A certificate and its key, as they were read last. */
export class Certificate {
  readonly #files: CertificateFiles;
  #pair: { cert: Buffer; key: Buffer };

  /** Reads the files. Throws the system's error. */
  constructor(files: CertificateFiles) {
    this.#files = files;
    this.#pair = this.#read();
  }

  get pair(): { cert: Buffer; key: Buffer } {
    return this.#pair;
  }

  /**
   * Reads the files again and hands another pair than before to `use`; returns whether there was one. One that `use` throws for
   * (half written) is another one still at the next call. Throws the system's error, and what `use` throws.
   */
  renew(use: (pair: { cert: Buffer; key: Buffer }) => void): boolean {
    const pair = this.#read();
    if (pair.cert.equals(this.#pair.cert) && pair.key.equals(this.#pair.key)) return false;
    use(pair);
    this.#pair = pair;
    return true;
  }

  /** Takes renewed certificates without a restart, until it is closed; a pair that does not fit is left for the next change. */
  watch(use: (pair: { cert: Buffer; key: Buffer }) => void, log: Log): { close(): void } {
    const { certFile, keyFile } = this.#files;
    let timer: NodeJS.Timeout | undefined;
    const take = () => {
      try {
        // Not said of other files in the folder: a log among them would be written to by this line, without end.
        if (this.renew(use)) log('info', 'certificate renewed', { file: certFile });
      } catch (error) {
        log('warn', 'certificate not taken', { file: certFile, reason: reasonOf(error) });
      }
    };
    const changed = () => {
      clearTimeout(timer);
      timer = setTimeout(take, quiet);
    };
    // The folders are watched: a mounted secret is renewed by exchanging a link beside the files.
    const watchers = [...new Set([certFile, keyFile].map(file => dirname(file)))].map(folder =>
      // A folder that goes away ends its watcher with an error, which would end the process if nobody listened.
      watch(folder, changed).on('error', error => {
        log('error', 'certificates are watched no longer; restart to take renewed ones', {
          folder,
          reason: reasonOf(error),
        });
      }),
    );
    return {
      close: () => {
        clearTimeout(timer);
        for (const watcher of watchers) watcher.close();
      },
    };
  }

  #read(): { cert: Buffer; key: Buffer } {
    return { cert: readFileSync(this.#files.certFile), key: readFileSync(this.#files.keyFile) };
  }
}
