import type { NextFunction, Request, Response } from 'express';
import {
  findAnswers,
  firstAnswer,
  keepAnswers,
  type AnswerReference,
  type Database,
  type Log,
  type StoredAnswer,
} from '../db/index.js';
import { ApiError } from './errors.js';
import { isObject, parseJson, stringifyJson } from './json.js';
import { send } from './answers.js';
import type { Secrets } from './secrets.js';

declare module 'express-serve-static-core' {
  interface Request {
    /** Set for a request with an Idempotency-Key: where the write keeps its answer. */
    answer?: AnswerReference;
  }
}

/** How long a request waits for the first one with the same key, in ms. */
const patience = 5_000;

/**
 * Requests that may be sent again: the first answer under an Idempotency-Key is kept for 24 hours. What is written and its
 * answer are one transaction, so an answer is there exactly if the write is.
 */
export class Idempotency {
  readonly #database: Database;
  readonly #secrets: Secrets;
  readonly #flights = new Map<string, Promise<void>>();

  constructor(options: { database: Database; secrets: Secrets }) {
    this.#database = options.database;
    this.#secrets = options.secrets;
  }

  /** Where an answer is kept. `text` is what was sent; it is kept as a keyed hash, since it may hold secrets. */
  reference(key: string, line: number, text: string): AnswerReference {
    return { key, line, request: this.#secrets.sign('idempotency', text) };
  }

  /**
   * Takes the key for a request, until `release` is called. A twin in this process is waited for; one in another process is
   * found by the database. Throws Conflict with Retry-After when the twin takes long.
   */
  async take(key: string, wait = patience): Promise<() => void> {
    const until = performance.now() + wait;
    for (let flight = this.#flights.get(key); flight; flight = this.#flights.get(key)) {
      let timer: NodeJS.Timeout | undefined;
      const late = new Promise(resolve => {
        timer = setTimeout(resolve, until - performance.now());
      });
      await Promise.race([flight, late]);
      clearTimeout(timer);
      if (performance.now() >= until && this.#flights.has(key)) {
        throw new ApiError(
          'Conflict',
          'A request with this Idempotency-Key is under way; send it again later for its answer.',
          { headers: { 'Retry-After': '1' } },
        );
      }
    }
    let release: () => void = () => undefined;
    this.#flights.set(key, new Promise(resolve => (release = resolve)));
    return () => {
      this.#flights.delete(key);
      release();
    };
  }

  /**
   * The answer to a request as a whole, if there is one. A batch that a process left halfway has none, but answers to some lines.
   * Throws Invalid if another request had the key.
   */
  async findWhole({ key, request }: AnswerReference): Promise<StoredAnswer | undefined> {
    const first = await firstAnswer(this.#database, key);
    if (first && first.request !== request) throw usedKey();
    return first?.line === -1 ? first : undefined;
  }

  /** The answers that there are to these operations of a batch, by line. */
  async find(references: AnswerReference[]): Promise<Map<number, StoredAnswer>> {
    const first = references[0];
    const last = references.at(-1);
    if (!first || !last) return new Map();
    return findAnswers(this.#database, first.key, first.line, last.line);
  }

  /** Keeps answers to what stored nothing, see keepAnswers. */
  async keep(answers: (AnswerReference & { status: number; body: string })[]): Promise<void> {
    await keepAnswers(this.#database, answers);
  }
}

/** The key of a request, if it has one. Throws InvalidQuery. */
export function idempotencyKey(request: Request): string | undefined {
  const key = request.get('Idempotency-Key');
  if (key === undefined) return undefined;
  if (!/^[\x21-\x7e]{1,255}$/.test(key))
    throw new ApiError('InvalidQuery', 'Idempotency-Key: must be 1 to 255 visible ASCII characters.');
  return key;
}

/** The error for a key that another request was sent with. */
export function usedKey(): ApiError {
  return new ApiError(
    'Invalid',
    'Another request was sent with this Idempotency-Key within 24 hours; choose a new key for a new request.',
    { details: [{ path: 'Idempotency-Key', message: 'was used for another request' }] },
  );
}

/** Whether an answer is the outcome of the request: a refusal of the moment is not, the same request may succeed later. */
export function isOutcome(status: number): boolean {
  return status < 500 && ![401, 403, 408, 429].includes(status);
}

/** Replays the first answer to a request with an Idempotency-Key, or lets it through and keeps its answer. */
export function replayAnswers(idempotency: Idempotency, log: Log) {
  return (request: Request, response: Response, next: NextFunction): void => {
    if (request.get('Idempotency-Key') === undefined || !['POST', 'PUT', 'PATCH'].includes(request.method)) {
      next();
      return;
    }
    // Batches keep an answer for each operation; work queues are no objects; a dry run stores nothing that could be done twice.
    if (!/^\/v1\/(?!controllers\/|batch$)/.test(request.path) || request.query['dryRun'] !== undefined) {
      next();
      return;
    }
    replay(request, response, idempotency, log).then(replayed => {
      if (!replayed) next();
    }, next);
  };
}

async function replay(request: Request, response: Response, idempotency: Idempotency, log: Log): Promise<boolean> {
  const key = idempotencyKey(request);
  if (key === undefined) return false;
  const sent = [request.method, request.originalUrl, request.get('Content-Type'), request.get('If-Match')];
  const reference = idempotency.reference(key, -1, `${JSON.stringify(sent)}\n${stringifyJson(request.body)}`);
  const release = await idempotency.take(key);
  response.once('close', release);
  // Also when the response was closed while this waited.
  if (response.destroyed) release();
  const stored = await idempotency.findWhole(reference);
  if (stored) {
    sendStored(response, stored);
    return true;
  }
  request.answer = reference;
  const end = response.end.bind(response);
  // Every answer goes out by `end` with the whole body at once. What the write itself has kept stays.
  response.end = ((body?: unknown): Response => {
    const status = response.statusCode;
    if (!isOutcome(status)) return end(body);
    const text = typeof body === 'string' || Buffer.isBuffer(body) ? String(body) : '';
    if (text !== '') response.setHeader('Content-Length', Buffer.byteLength(text));
    // Leaves with the body; until then it tells the router that there is an answer.
    response.writeHead(status);
    idempotency
      .keep([{ ...reference, status, body: text === '' ? 'null' : text }])
      .catch((error: unknown) => log('warn', 'answer not kept', { requestId: request.id, error }))
      .finally(() => end(body));
    return response;
  }) as Response['end'];
  return false;
}

/** Sends an answer of before, with the headers that can be told from it. */
export function sendStored(response: Response, { status, body }: StoredAnswer): void {
  const object = parseJson(body);
  const fields = isObject(object) && status < 300 ? object : {};
  const { type, namespace, name, resourceVersion } = fields;
  response.setHeader('Idempotency-Replayed', 'true');
  if (status === 201 && typeof type === 'string' && typeof name === 'string') {
    const path = [type, ...(typeof namespace === 'string' ? [namespace] : []), name].map(encodeURIComponent);
    response.location(`/v1/${path.join('/')}`);
  }
  // Only an answer that left the object out, as it was asked to, has no body.
  if (object === null) response.status(status).set('Preference-Applied', 'return=minimal').end();
  else send(response, status, body, typeof resourceVersion === 'string' ? resourceVersion : undefined);
}
