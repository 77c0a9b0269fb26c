/**
 * Where a controller logs: constant messages, variables as fields. pino's loggers fit.
 *
 * @example
 * context.log.info({ nodes: 3 }, 'looked at the cluster');
 */
export interface Log {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
  child(fields: Record<string, unknown>): Log;
}
