import type { Request } from 'express';
import type { Platform } from './platform.js';

/** Gives each controller of a request the platform of its app: no globals, so that a process may hold several apps. */
export const iocContainer = (request: Request) => ({
  get: <T>(controller: new (platform: Platform) => T): T => new controller(platformOf(request)),
});

/** The platform that `createApp` has put into the app. */
function platformOf(request: Request): Platform {
  const locals: Partial<Record<'platform', Platform>> = request.app.locals;
  if (!locals.platform) throw new Error('the app has no platform');
  return locals.platform;
}
