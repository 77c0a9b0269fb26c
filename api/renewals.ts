import type { Response } from 'express';
import type { Log } from '../db/index.js';
import type { Claims } from './claims.js';

/** Whose lease to renew. */
export interface RenewInput {
  /** @pattern ^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$ must be 1 to 128 letters, digits, dots, dashes, colons */
  worker: string;
  /**
   * Claims that the worker believes to hold: those that it does not are answered as lost.
   * @maxItems 1000 must be at most 1000
   */
  tokens?: string[];
}

/** Whether to go on telling. */
export interface RenewQuery {
  /** `true` keeps the connection open and sends a line every 0.7 s; the lease is renewed by calls without it. */
  stream?: boolean;
}

/** The state of a worker's lease and claims. */
export interface Renewal {
  /** The lease from now; 0: it had run out, and everything that the worker held is lost. */
  expiresInSeconds: number;
  /** All claims that the worker holds. */
  held: string[];
  /** Claims that the worker no longer holds. */
  lost: string[];
  /** Held claims whose object has changed since. */
  changed: string[];
}

/** Milliseconds between two lines. */
const interval = 700;

/**
 * The state of a lease for its worker.
 *
 * @param held the token of each claim that it holds, and whether its object has changed
 * @param believed tokens that it believes to hold
 */
export function renewalOf(seconds: number, held: Map<string, boolean>, believed: string[]): Renewal {
  return {
    expiresInSeconds: seconds,
    held: [...held.keys()],
    lost: believed.filter(token => !held.has(token)),
    changed: [...held].flatMap(([token, changed]) => (changed ? [token] : [])),
  };
}

/**
 * Watches a worker by its open connection: tells it every 0.7 s what it holds, and cuts its lease to 1.5 s when the connection
 * breaks, so that a killed worker's keys are free within 2 s. It does not extend the lease: the sockets of a frozen process stay
 * open, and only its own calls show that it lives.
 */
export async function streamRenewals(options: {
  claims: Claims;
  log: Log;
  response: Response;
  controller: string;
  worker: string;
}): Promise<void> {
  const { claims, log, response, controller, worker } = options;
  let broken = true;
  // From the beginning: the client may go while its lease is renewed.
  const closed = new Promise<'closed'>(resolve => response.once('close', () => resolve('closed')));
  if (response.destroyed) return;
  claims.opened(controller, worker, response);
  try {
    await claims.renew(controller, worker);
    response.status(200).setHeader('Content-Type', 'application/x-ndjson; charset=utf-8');
    response.setHeader('Cache-Control', 'no-store');
    await tellUntilClosed(claims, response, closed, controller, worker);
    // A stream that this server ended itself, at shutdown, is no sign of a broken worker.
    broken = !response.writableEnded;
  } finally {
    await claims.closed(controller, worker, response, broken).catch((error: unknown) => {
      log('warn', 'lease of a broken worker not cut short', { controller, worker, reason: String(error) });
    });
  }
}

async function tellUntilClosed(
  claims: Claims,
  response: Response,
  closed: Promise<'closed'>,
  controller: string,
  worker: string,
): Promise<void> {
  let before = new Map<string, boolean>();
  for (;;) {
    const { seconds, held } = await claims.held(controller, worker);
    const renewal = renewalOf(seconds, held, [...before.keys()]);
    before = held;
    if (!response.destroyed) response.write(`${JSON.stringify(renewal)}\n`);
    let timer: NodeJS.Timeout | undefined;
    const pause = new Promise<'pause'>(resolve => (timer = setTimeout(() => resolve('pause'), interval)));
    const outcome = await Promise.race([closed, pause]);
    clearTimeout(timer);
    if (outcome === 'closed') return;
  }
}
