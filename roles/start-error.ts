/** Ends the process with one line that says what is wrong and what to do. */
export class StartError extends Error {}

/**
 * Says which setting leads to another address when a server cannot listen.
 *
 * @throws StartError with the remedy, or the error itself when there is none to name
 */
export function refuseAddress(error: unknown, port: 'PORT' | 'HEALTH_PORT'): never {
  const code = error instanceof Error && 'code' in error ? String(error.code) : '';
  const remedies: Record<string, string> = {
    EADDRINUSE: `Another program listens there: stop it, or set ${port} to another port`,
    EACCES: `Ports below 1024 are for root: set ${port} to another one`,
    EADDRNOTAVAIL: `Set HOST to an address of this machine`,
    ENOTFOUND: `Set HOST to an address or a name of this machine`,
    EAI_AGAIN: `Set HOST to an address or a name of this machine`,
  };
  const remedy = remedies[code];
  if (!(error instanceof Error) || remedy === undefined) throw error;
  throw new StartError(`${error.message}. ${remedy}.`, { cause: error });
}
