import { createReadStream, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

/**
 * A line of a worker's journal, as it was written at that moment: `begin` and `end` of a run, `held` while it goes on, `wrote`
 * a status that was accepted (`at` is before it was sent), `failed` a run that threw.
 */
export interface Entry {
  /** Milliseconds on the machine's monotonic clock. */
  at: number;
  what: 'begin' | 'held' | 'wrote' | 'end' | 'failed';
  worker: string;
  /** Numbers the runs of a worker. */
  run: number;
  /** `type/namespace/name`. */
  key: string;
  /** Whether the claim is certainly held now, as the worker knows it. */
  certain: boolean;
  /** At its begin: the object's serial number as its writer gave it, `gone` without an object. */
  serial?: string;
  /** With `wrote`: the version that was answered. That of an earlier write if another worker had written the same status before. */
  version?: number;
}

/** All lines that workers wrote into a folder, a file for each of their processes. */
export async function* readJournals(folder: string): AsyncGenerator<Entry, void, undefined> {
  for (const file of readdirSync(folder).filter(name => name.endsWith('.journal'))) {
    for await (const line of createInterface({ input: createReadStream(join(folder, file)) })) {
      // The last line of a process that was killed may be a part of one.
      if (line.endsWith('}')) yield JSON.parse(line) as Entry;
    }
  }
}
