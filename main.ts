import { KeyStillInUse, MissingEncryptionKey } from './api/index.js';
import { BadSetting, readSettings } from './config.js';
import { createLog } from './logging.js';
import { ends, Parts, readRole, servesApi, start, StartError } from './roles/index.js';

/** Starts the role that the command line names in order, and stops it in reverse: at a signal, or when its work is done. */
async function main(): Promise<void> {
  const role = readRole(process.argv[2] ?? 'run');
  const settings = readSettings(undefined, servesApi(role));
  const log = createLog({ level: settings.logLevel, format: settings.logFormat, part: role });
  const parts = new Parts(log);
  const ended = new Promise<void>(resolve => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) {
      process.on(signal, () => {
        log('info', 'stopping', { signal });
        void parts.stop().then(resolve);
      });
    }
  });
  try {
    const lines = await start({ role, settings, parts, log });
    if (lines.length > 0 && (ends(role) || !parts.stopping)) process.stdout.write(`${lines.join('\n')}\n`);
    if (!ends(role) && !parts.stopping) await ended;
  } catch (error) {
    // A signal stops the parts under a start that is on its way; what the start then fails with is no news.
    if (!parts.stopping) throw error;
    log('debug', 'the start was cut short', { error });
  } finally {
    await parts.stop();
  }
  endSoon(0);
}

/** Ends the process although something may still be open: a part that was stopped while it started, a socket that hangs. */
function endSoon(code: number): void {
  process.exitCode = code;
  setTimeout(() => process.exit(code), 2_000).unref();
}

main().catch((error: unknown) => {
  const expected = [BadSetting, StartError, MissingEncryptionKey, KeyStillInUse];
  const known = expected.some(kind => error instanceof kind);
  const text = error instanceof Error ? ((known ? undefined : error.stack) ?? error.message) : String(error);
  process.stderr.write(`error: ${text}\n`);
  endSoon(1);
});
