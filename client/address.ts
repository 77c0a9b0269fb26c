import type { Call } from './transport.js';

/** The query of a call, with its question mark; empty without parameters. */
export function queryOf({ query = {} }: Pick<Call, 'query'>): string {
  const pairs = Object.entries(query).flatMap(([name, value]) =>
    value === undefined ? [] : [`${encodeURIComponent(name)}=${encodeURIComponent(value)}`],
  );
  return pairs.length > 0 ? `?${pairs.join('&')}` : '';
}

/**
 * The address of the API, ending in a slash.
 * @throws TypeError it is none; never repeats it, since people put passwords into addresses
 */
export function baseOf(text: string): URL {
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    throw new TypeError("The API's URL is not a URL such as http://127.0.0.1:7070");
  }
  if (url.username !== '' || url.password !== '') {
    throw new TypeError("The API's URL must not hold a user name or password; give a token");
  }
  if (url.protocol !== 'http:' && url.protocol !== 'https:')
    throw new TypeError("The API's URL must begin with http:// or https://");
  if (!url.pathname.endsWith('/')) url.pathname += '/';
  return url;
}
