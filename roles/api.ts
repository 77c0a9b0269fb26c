import { ApiServer, typeTables } from '../api/index.js';
import { Bus } from '../bus/index.js';
import { isLoopback } from '../config.js';
import type { Database } from '../db/index.js';
import { encryptionKeysOf } from './encryption-keys.js';
import { refuseAddress } from './start-error.js';
import type { Starting } from './start.js';

/**
 * Starts the bus and the API server; returns where the API is found.
 *
 * @throws StartError when the server cannot listen on HOST and PORT
 */
export async function startApi({ settings, parts, log }: Starting, database: Database): Promise<string> {
  const { amqpUrl, eventLogMax, instance, host, port, apiToken, tls, apiUrl } = settings;
  const encryptionKeys = encryptionKeysOf(settings);
  const types = typeTables().map(({ type }) => type);
  const bus = new Bus({ database, types, amqpUrl, eventLogMax, instance, log });
  parts.add(bus);
  await bus.start();
  const api = new ApiServer({
    database,
    bus,
    encryptionKeys,
    host,
    port,
    token: apiToken,
    tls,
    isLocalHost: isLoopback,
    log,
  });
  parts.add(api);
  return withPort(apiUrl, await api.start().catch((error: unknown) => refuseAddress(error, 'PORT')));
}

/** PORT=0 listens on a free port, which only the server knows. */
function withPort(url: string, port: number): string {
  const parsed = new URL(url);
  if (parsed.port === '0') parsed.port = String(port);
  return parsed.href.replace(/\/$/, '');
}
