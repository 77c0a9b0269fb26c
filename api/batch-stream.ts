import { once } from 'node:events';
import type { NextFunction, Request, Response } from 'express';
import type { AnswerReference, StoredAnswer } from '../db/index.js';
import { models } from '../build/models.js';
import type { BatchOperation } from './batch.js';
import { Bonds } from './batch-bonds.js';
import { readOperation } from './batch-operations.js';
import { carryOutEach } from './batch-each.js';
import { GroupSize } from './batch-group.js';
import { nameOf, type Attempt } from './batch-parts.js';
import { errorJson, explained, resultJson, type ItemResult } from './batch-results.js';
import { ApiError } from './errors.js';
import { idempotencyKey, isOutcome, usedKey } from './idempotency.js';
import { parseBody } from './json.js';
import { Lines, type Line } from './lines.js';
import type { Platform } from './platform.js';
import { refuse } from './refusals.js';
import { mediaType, unpacked } from './requests.js';
import { writer } from './resource-controller.js';
import { check, type FieldError } from './validation.js';

/** What the lines of one group have together, and how many groups are under way. */
const groupBytes = 2_000_000;
const mostGroups = 2;
/** A client that neither sends nor reads for so long is gone, in ms. */
const patience = 120_000;

/** Answers batches with one operation a line; others go on to the next handler. */
export function streamBatches(platform: Platform) {
  return (request: Request, response: Response, next: NextFunction): void => {
    if (request.method !== 'POST' || request.path !== '/v1/batch' || mediaType(request) !== 'application/x-ndjson') {
      next();
      return;
    }
    new BatchStream(platform, request, response).run().catch(next);
  };
}

/** A line that was read: what is to be done, or why it cannot be. */
interface Job {
  index: number;
  attempt: Attempt;
  reference?: AnswerReference;
}

/**
 * One batch as a stream. Lines are read while fewer than two groups of operations are under way and the client takes their
 * results: so much is in memory at most, however long the body is. Operations on an object that is still under way wait.
 */
class BatchStream {
  readonly #platform: Platform;
  readonly #request: Request;
  readonly #response: Response;
  readonly #key: string | undefined;
  readonly #dryRun: boolean;
  readonly #busy = new Set<string>();
  readonly #running = new Set<Promise<void>>();
  /** Those of what is under way, and of what was before it without a pause. */
  readonly #bonds: Bonds;
  #written: Promise<void> = Promise.resolve();
  readonly #groupSize = new GroupSize();

  constructor(platform: Platform, request: Request, response: Response) {
    this.#platform = platform;
    this.#bonds = new Bonds(platform.ruled);
    this.#request = request;
    this.#response = response;
    this.#dryRun = isDryRun(request);
    this.#key = this.#dryRun ? undefined : idempotencyKey(request);
  }

  async run(): Promise<void> {
    const request = this.#request;
    const response = this.#response;
    const author = writer(request);
    const release = this.#key === undefined ? undefined : await this.#platform.idempotency.take(this.#key, 0);
    try {
      // Of the answer, not of the socket: its listener goes with it, where those of a socket add up over many batches.
      response.setTimeout(patience, () => request.destroy());
      const lines = new Lines(unpacked(request));
      response.status(200).setHeader('Content-Type', 'application/x-ndjson; charset=utf-8');
      response.flushHeaders();
      for (;;) {
        const free = this.#free();
        free.catch(() => undefined);
        const group = await lines.take(this.#groupSize.next, groupBytes, free);
        if (group === undefined || response.destroyed) break;
        await this.#schedule(group.map(line => this.#read(line, author)));
      }
      await Promise.all(this.#running);
      response.end();
    } catch (error) {
      await Promise.allSettled(this.#running);
      throw error;
    } finally {
      release?.();
    }
  }

  /** Begins once nothing under way concerns the same objects, and enough is done. */
  async #schedule(jobs: Job[]): Promise<void> {
    const names = new Set<string>();
    for (const { attempt } of jobs) {
      if (attempt instanceof ApiError) continue;
      const name = nameOf(attempt);
      if (this.#running.size > 0 && (this.#busy.has(name) || this.#bonds.meet(attempt)))
        await Promise.all(this.#running);
      names.add(name);
    }
    await this.#free();
    if (this.#running.size === 0) this.#bonds.clear();
    for (const { attempt } of jobs) if (!(attempt instanceof ApiError)) this.#bonds.add(attempt);
    this.#begin(jobs, names);
  }

  /** One more group may begin. Throws what a group under way failed with. */
  async #free(): Promise<void> {
    while (this.#running.size >= mostGroups) await Promise.race(this.#running);
  }

  #begin(group: Job[], names: Set<string>): void {
    for (const name of names) this.#busy.add(name);
    const before = this.#written;
    const work = this.#carryOut(group);
    // Results leave in the order of the lines; whoever does not read them holds everything up.
    const run = (this.#written = Promise.all([work, before]).then(([text]) => this.#write(text))).finally(() => {
      for (const name of names) this.#busy.delete(name);
      this.#running.delete(run);
    });
    // Looked at by whoever waits for a place, or at the end.
    run.catch(() => undefined);
    this.#running.add(run);
  }

  async #write(text: string): Promise<void> {
    const response = this.#response;
    if (response.destroyed || response.write(text)) return;
    const gone = new AbortController();
    const closed = () => gone.abort();
    response.once('close', closed);
    await once(response, 'drain', { signal: gone.signal }).catch(() => undefined);
    response.off('close', closed);
  }

  async #carryOut(jobs: Job[]): Promise<string> {
    const { idempotency } = this.#platform;
    const references = jobs.flatMap(({ reference }) => reference ?? []);
    const kept = await idempotency.find(references);
    const open = jobs.filter(job => !job.reference || !kept.has(job.reference.line));
    const results = await carryOutEach(
      this.#platform,
      open.map(job => job.attempt),
    );
    const done = new Map(open.map((job, i) => [job.index, results[i]]));
    const answers: Parameters<typeof idempotency.keep>[0] = [];
    const lines = jobs.map(({ index, reference }) => {
      const result = done.get(index) ?? replayed(reference, kept);
      const { status, object, error } = result;
      if (reference && !result.repeated && isOutcome(status)) {
        const body = error ? JSON.stringify(errorJson(error, this.#request.id)) : (object ?? 'null');
        // What was written has its answer already.
        if (error ?? status === 200) answers.push({ ...reference, status, body });
      }
      return `{"index":${index},${resultJson(result, this.#request.id)}}\n`;
    });
    await idempotency.keep(answers);
    const text = lines.join('');
    this.#groupSize.learn(jobs.length, text.length);
    return text;
  }

  #read({ index, text }: Line, author: ReturnType<typeof writer>): Job {
    const platform = this.#platform;
    const reference =
      this.#key === undefined || text instanceof ApiError
        ? undefined
        : platform.idempotency.reference(this.#key, index, text);
    try {
      if (text instanceof ApiError) throw text;
      const attempt = readOperation(
        { platform, writer: author, dryRun: this.#dryRun },
        checked(parseBody(text)),
        reference,
      );
      return { index, attempt, ...(reference ? { reference } : {}) };
    } catch (error) {
      return { index, attempt: explained(platform, error), ...(reference ? { reference } : {}) };
    }
  }
}

/** The routes' own check of queries comes after this handler. Throws InvalidQuery. */
function isDryRun({ query }: Request): boolean {
  const unknown = Object.keys(query).find(name => name !== 'dryRun');
  if (unknown !== undefined) throw new ApiError('InvalidQuery', `${unknown}: a batch takes dryRun alone.`);
  if (query['dryRun'] !== undefined && query['dryRun'] !== 'All')
    throw new ApiError('InvalidQuery', 'dryRun: must be "All".');
  return query['dryRun'] === 'All';
}

function replayed(reference: AnswerReference | undefined, kept: Map<number, StoredAnswer>): ItemResult {
  const answer = reference && kept.get(reference.line);
  if (!answer) throw new Error('an operation has no result');
  if (answer.request === reference.request) return { status: answer.status, repeated: answer };
  const error = usedKey();
  return { status: error.status, error };
}

/** A line's JSON as an operation. Throws UnknownField, Invalid. */
function checked(value: object): BatchOperation {
  if (!models['BatchOperation']) throw new Error('there is no model BatchOperation; run make generate');
  const errors: FieldError[] = [];
  check({ ref: 'BatchOperation', required: true }, value, '', errors);
  refuse(errors);
  // Checked a line above, by the model that the generator made of it.
  return value as BatchOperation;
}
