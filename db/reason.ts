/** What went wrong, in the words of whoever threw it, for log lines and for errors that say what to do about it. */
export function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
