import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { isPlatformError } from '../client/index.js';
import type { Settings } from '../config.js';
import { startControllers } from '../controllers/index.js';
import { refuseAddress, StartError } from './start-error.js';
import type { Starting } from './start.js';

/**
 * Starts the platform's own controllers on the API at this address, and waits for it while it is away.
 *
 * @throws StartError when the API refuses them, or their health cannot be listened for on HOST and HEALTH_PORT
 */
export async function startOwnControllers({ role, settings, parts, log }: Starting, apiUrl: string): Promise<void> {
  const controllers = startControllers({
    apiUrl,
    apiToken: settings.apiToken,
    apiCaFile: settings.apiCaFile ?? (role === 'run' ? ownAuthority(settings) : undefined),
    amqpUrl: settings.amqpUrl,
    healthPort: settings.healthPort,
    host: settings.host,
    concurrency: settings.concurrency,
    // Beside the API an error that nobody caught may be the API's own, which must not go on in doubt.
    catchUncaught: role === 'controllers',
    log,
  });
  parts.add(controllers);
  await controllers.start().catch((error: unknown) => {
    if (!isPlatformError(error)) return refuseAddress(error, 'HEALTH_PORT');
    const remedy = error.status === 401 ? ' Set API_TOKEN to the token of the API.' : '';
    throw new StartError(`The API at ${apiUrl} refuses the controllers: ${error.message}${remedy}`);
  });
}

/** A self-signed certificate is its own authority; one that an authority has signed is not, and the system's are asked. */
function ownAuthority({ tls }: Settings): string | undefined {
  if (!tls) return undefined;
  const certificate = new X509Certificate(readFileSync(tls.certFile));
  return certificate.checkIssued(certificate) ? tls.certFile : undefined;
}
