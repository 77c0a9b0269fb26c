/** Whom a line of a password file is looked up for. */
export interface PassfileKey {
  host: string;
  port: number;
  database: string;
  user: string;
}

/**
 * The password that a libpq password file holds for a connection: lines `host:port:database:user:password`, where `*` matches
 * anything, a backslash takes the next character literally and the first match wins
 * (https://www.postgresql.org/docs/current/libpq-pgpass.html). Undefined when no line matches.
 */
export function passwordFor(text: string, key: PassfileKey): string | undefined {
  const wanted = [key.host, String(key.port), key.database, key.user];
  for (const line of text.split(/\r?\n/)) {
    if (line.startsWith('#')) continue;
    const fields = line.match(/(?:\\.|[^:\\])+/g)?.map(field => field.replace(/\\(.)/g, '$1')) ?? [];
    const password = fields[4];
    if (password && wanted.every((value, index) => fields[index] === '*' || fields[index] === value)) return password;
  }
  return undefined;
}
