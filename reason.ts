/**
 * What went wrong, in the words of whoever threw it, for log lines and for errors that say what to do about it. A connection
 * that failed at several addresses has words only in its parts, an error without any its name.
 */
export function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (error.message !== '') return error.message;
  return error instanceof AggregateError ? [...new Set(error.errors.map(reasonOf))].join('; ') : error.name;
}
