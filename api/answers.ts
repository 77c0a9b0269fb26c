import type { Request, Response } from 'express';
import type { Outcome } from './operation.js';
import type { WriteQuery } from './queries.js';

/** Sends JSON text as it is, with the version as entity tag. */
export function send(response: Response, status: number, json: string, version: string | undefined): void {
  response.statusCode = status;
  response.setHeader('Content-Type', 'application/json; charset=utf-8');
  if (version !== undefined) response.setHeader('ETag', `"${version}"`);
  response.end(json);
}

/**
 * Answers a write: with the object, or without it for `Prefer: return=minimal`. Nothing of a dry run can be found or matched.
 * `location` is a path whose parts are encoded.
 */
export function sendOutcome(
  request: Request,
  response: Response,
  { status, outcome, query, location }: { status: 200 | 201; outcome: Outcome; query: WriteQuery; location?: string },
): void {
  const real = query.dryRun === undefined;
  for (const text of warningHeaders(outcome.warnings)) response.append('Warning', text);
  if (real && location !== undefined) response.setHeader('Location', location);
  const version = real ? outcome.version : undefined;
  if (!/(^|[,;])\s*return\s*=\s*"?minimal"?\s*($|[,;])/i.test(request.get('Prefer') ?? '')) {
    send(response, status, outcome.json, version);
    return;
  }
  if (version !== undefined) response.setHeader('ETag', `"${version}"`);
  response.setHeader('Preference-Applied', 'return=minimal');
  response.status(status === 200 ? 204 : status).end();
}

// Headers hold ASCII, and proxies limit them, often to 8 KiB together.
const maxWarnings = { count: 10, characters: 300 };

/** Warnings as RFC 7234 writes them: 299 is one that stays. */
function warningHeaders(warnings: string[]): string[] {
  return warnings.slice(0, maxWarnings.count).map(warning => {
    const text = warning.replace(/[^\x20-\x7e]+/g, '?').slice(0, maxWarnings.characters);
    return `299 - "${text.replace(/["\\]/g, '\\$&')}"`;
  });
}
