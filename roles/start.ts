import type { Settings, TracingSettings } from '../config.js';
import type { Log } from '../db/index.js';
import { Exporter, SpanSource } from '../tracing/index.js';
import { startApi } from './api.js';
import { startOwnControllers } from './controllers.js';
import { openDatabase } from './database.js';
import type { Part, Parts } from './parts.js';
import type { Role } from './role.js';
import { raise, rotate } from './upkeep.js';

/** What the start of a role is given. */
export interface Starting {
  role: Role;
  settings: Settings;
  /** Takes every part in, in the order of the start. */
  parts: Parts;
  log: Log;
}

/**
 * Starts the parts of a role in order, or does its work and is done; returns the last lines to print.
 *
 * @throws StartError for what the user can mend; MissingEncryptionKey and KeyStillInUse of the API likewise
 */
export async function start(starting: Starting): Promise<string[]> {
  const { role, settings, parts } = starting;
  if (settings.tracing) parts.add(startTracing(settings.tracing, starting));
  if (role === 'controllers') {
    await startOwnControllers(starting, settings.apiUrl);
    return [`ready: ${settings.apiUrl}`];
  }
  const opened = await openDatabase(starting);
  if (!opened || role === 'migrate') return [];
  const { database, hint } = opened;
  if (role === 'raise-versions') return raise(database);
  if (role === 'rotate-key') return rotate(starting, database);
  const apiUrl = await startApi(starting, database);
  if (role === 'run') await startOwnControllers(starting, apiUrl);
  return [...(hint === undefined ? [] : [`database: ${hint}`]), `ready: ${apiUrl}`];
}

/** Records spans from now on; stopped last, when the other parts have ended theirs. */
function startTracing(tracing: TracingSettings, { role, settings, log }: Starting): Part {
  const { endpoint, headers, serviceName = `syncsets-${role}`, ratio } = tracing;
  const resource = { 'service.name': serviceName, 'service.instance.id': settings.instance };
  const exporter = new Exporter({ endpoint, headers, resource, log });
  new SpanSource({ ratio, ended: span => exporter.add(span) }).use();
  return exporter;
}
