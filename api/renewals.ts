import type { Response } from 'express';
import type { Log } from '../db/index.js';
import type { Claims } from './claims.js';
import type { Renewal } from './work.js';

/**
 * Keeps a worker's lease while its connection is open: renews it five times per lease, at most 1 s apart, and writes a line
 * each time. When the connection breaks the lease is cut to 1.5 s, so that a killed worker's keys are free within 2 s; a
 * worker that has returned on another connection renews it before that.
 */
export async function streamRenewals(options: {
  claims: Claims;
  log: Log;
  response: Response;
  controller: string;
  worker: string;
  claimSeconds: number;
}): Promise<void> {
  const { claims, log, response, controller, worker, claimSeconds } = options;
  let held = new Map<string, boolean>();
  const closed = new Promise<'closed'>(resolve => response.once('close', () => resolve('closed')));
  response.status(200).setHeader('Content-Type', 'application/x-ndjson; charset=utf-8');
  response.setHeader('Cache-Control', 'no-store');
  response.flushHeaders();
  while (!response.destroyed && !response.writableEnded) {
    const renewed = await claims.renew(controller, worker);
    const now = renewed?.held ?? new Map<string, boolean>();
    const renewal: Renewal = {
      expiresInSeconds: renewed?.seconds ?? 0,
      lost: [...held.keys()].filter(token => !now.has(token)),
      changed: [...now].flatMap(([token, changed]) => (changed ? [token] : [])),
    };
    held = now;
    response.write(`${JSON.stringify(renewal)}\n`);
    let timer: NodeJS.Timeout | undefined;
    const pause = new Promise<'pause'>(resolve => {
      timer = setTimeout(() => resolve('pause'), Math.min(1_000, (claimSeconds * 1_000) / 5));
    });
    const outcome = await Promise.race([closed, pause]);
    clearTimeout(timer);
    if (outcome === 'closed') break;
  }
  // A stream that this server ended itself, at shutdown, is not a broken worker.
  if (response.writableEnded) return;
  await claims.broken(controller, worker).catch((error: unknown) => {
    log('warn', 'lease of a broken worker not cut short', { controller, worker, reason: String(error) });
  });
}
