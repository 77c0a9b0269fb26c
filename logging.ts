import { pino } from 'pino';
import pretty from 'pino-pretty';
import type { Log } from './db/index.js';

/**
 * The process's logger: constant messages, variables as fields. Errors are shown by type, message and stack, never by their
 * other properties: those of the database driver hold values of the statement.
 */
export function createLog(options: { level: string; format: 'text' | 'json'; part: string }): Log {
  const settings = {
    level: options.level,
    base: { part: options.part },
    serializers: {
      error: (error: unknown) =>
        error instanceof Error
          ? { type: error.name, message: error.message, stack: error.stack }
          : { message: String(error) },
    },
  };
  const logger =
    options.format === 'text'
      ? pino(settings, pretty({ sync: true, ignore: 'pid,hostname', translateTime: 'HH:MM:ss.l', singleLine: true }))
      : pino(
          { ...settings, formatters: { level: label => ({ level: label }) }, timestamp: pino.stdTimeFunctions.isoTime },
          pino.destination({ sync: true }),
        );
  return (level, message, fields = {}) => {
    logger[level](fields, message);
  };
}
