import { createHash, timingSafeEqual } from 'node:crypto';
import type { NextFunction, Request, Response } from 'express';
import { ApiError } from './errors.js';

/** Requires `Authorization: Bearer <token>` of every request. Compared in constant time, whatever its length. */
export function requireToken(token: string) {
  const expected = digest(token);
  return (request: Request, _response: Response, next: NextFunction): void => {
    const given = /^Bearer +(\S+)$/i.exec(request.get('Authorization') ?? '')?.[1] ?? '';
    if (timingSafeEqual(digest(given), expected)) next();
    else {
      next(
        new ApiError(
          'Unauthorized',
          'Send the header "Authorization: Bearer <token>" with the token in API_TOKEN of the server.',
          { headers: { 'WWW-Authenticate': 'Bearer' } },
        ),
      );
    }
  };
}

/**
 * Keeps web pages out of a platform that is open to local programs: a page of another origin has a foreign Origin header,
 * and one that rebinds its own name to 127.0.0.1 has a foreign Host header.
 */
export function refuseWebPages(isLocalHost: (host: string) => boolean) {
  // Parsing a URL costs more than the rest of this; a server has few names.
  let known = '';
  return (request: Request, _response: Response, next: NextFunction): void => {
    const host = request.get('Host') ?? '';
    const origin = request.get('Origin');
    if (host !== known && !isLocalHost(hostName(host))) {
      next(
        new ApiError(
          'Forbidden',
          `Host "${host}" is not this machine; without API_TOKEN only localhost, 127.0.0.1 and [::1] are answered.`,
        ),
      );
      return;
    }
    known = host;
    if (origin !== undefined && !isOwnOrigin(origin, host)) {
      next(new ApiError('Forbidden', `Origin "${origin}" is another site; without API_TOKEN web pages are refused.`));
    } else next();
  };
}

function isOwnOrigin(origin: string, host: string): boolean {
  return URL.canParse(origin) && new URL(origin).host === host;
}

function hostName(host: string): string {
  return URL.canParse(`http://${host}`) ? new URL(`http://${host}`).hostname.replace(/^\[|\]$/g, '') : host;
}

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
