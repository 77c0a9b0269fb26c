import type http from 'node:http';
import { interrupted, PlatformError } from './errors.js';

/** Reads an answer to its end. */
export async function textOf(response: http.IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  try {
    for await (const chunk of response as AsyncIterable<Buffer>) chunks.push(chunk);
  } catch (error) {
    throw interrupted(error);
  }
  const [only] = chunks;
  return (chunks.length === 1 && only ? only : Buffer.concat(chunks)).toString();
}

/** The JSON of a success. */
export function parse(text: string, status: number): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new PlatformError(status, {
      code: 'NotJson',
      message: 'The answer is not JSON; is the URL that of the API?',
    });
  }
}

/** Whether the answer is 2xx. */
export function isSuccess(response: http.IncomingMessage): boolean {
  const status = response.statusCode ?? 0;
  return status >= 200 && status < 300;
}

/** Retry-After in seconds: a number, or a date as proxies send it. At most a minute is believed. */
export function retryAfterOf(response: http.IncomingMessage): number | undefined {
  const value = response.headers['retry-after'];
  if (value === undefined) return undefined;
  const seconds = /^\d+$/.test(value) ? Number(value) : (Date.parse(value) - Date.now()) / 1000;
  return Number.isFinite(seconds) ? Math.min(60, Math.max(0, seconds)) : undefined;
}

/** The texts of a Warning header, which Node has joined by commas: `299 - "one", 299 - "two"`. */
export function warningsOf(header: string | undefined): string[] {
  return [...(header ?? '').matchAll(/299 - "((?:[^"\\]|\\.)*)"/g)].map(([, text = '']) =>
    text.replace(/\\(.)/g, '$1'),
  );
}
