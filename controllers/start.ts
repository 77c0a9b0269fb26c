import { clusterHealth } from './clusterhealth/clusterhealth.js';
import { garbageCollector } from './garbagecollector/garbagecollector.js';
import type { Log } from './runtime/log.js';
import { Runtime } from './runtime/runtime.js';

type Level = 'debug' | 'info' | 'warn' | 'error';

/** How the platform's own controllers reach it: two URLs, so that they may run on another machine. */
export interface ControllersSettings {
  apiUrl: string;
  /** Bearer token, where the API asks for one. */
  apiToken?: string;
  /** PEM file of the authorities to trust instead of the system's. */
  apiCaFile?: string;
  /** RabbitMQ, as `ConnectOptions.amqpUrl`. Undefined: work comes by long polls. */
  amqpUrl?: string;
  /** Where `/healthz`, `/readyz` and `/metrics` answer; 0 for a free port. Undefined: nowhere. */
  healthPort?: number;
  /** Where health and metrics listen. Default 127.0.0.1. */
  host?: string;
  /** Keys that each controller works on at once. Default 16. */
  concurrency?: number;
  /** Whether the process goes on after an error that nobody caught. Default true. */
  catchUncaught?: boolean;
  log: (level: Level, message: string, fields?: Record<string, unknown>) => void;
}

/**
 * The platform's own controllers. `start` resolves when all are registered, and waits for an API that is away; `stop` finishes
 * the work in hand.
 *
 * @throws TypeError a setting is none; `start` throws PlatformError when the API refuses a registration
 * @example
 * const controllers = startControllers({ apiUrl: 'http://127.0.0.1:7070', log });
 * await controllers.start();
 */
export function startControllers(settings: ControllersSettings): {
  start(): Promise<void>;
  stop(): Promise<void>;
  /** Where health and metrics listen since `start`. */
  readonly healthPort: number | undefined;
} {
  return new Runtime([clusterHealth, garbageCollector()], {
    url: settings.apiUrl,
    token: settings.apiToken,
    caFile: settings.apiCaFile,
    amqpUrl: settings.amqpUrl,
    healthPort: settings.healthPort,
    healthHost: settings.host,
    concurrency: settings.concurrency,
    catchUncaught: settings.catchUncaught,
    log: logOf(settings.log, {}),
  });
}

function logOf(write: ControllersSettings['log'], bound: Record<string, unknown>): Log {
  const at = (level: Level) => (fields: object, message: string) => write(level, message, { ...bound, ...fields });
  return {
    debug: at('debug'),
    info: at('info'),
    warn: at('warn'),
    error: at('error'),
    child: fields => logOf(write, { ...bound, ...fields }),
  };
}
