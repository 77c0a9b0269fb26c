import { Body, Controller, Post, Queries, Request, Response, Route, Tags } from '@tsoa/runtime';
import type express from 'express';
import type { AnswerReference, StoredAnswer } from '../db/index.js';
import type { BatchInput, BatchQuery, BatchResults } from './batch.js';
import { readOperation } from './batch-operations.js';
import { carryOutAll } from './batch-atomic.js';
import { carryOutEach } from './batch-each.js';
import type { Attempt } from './batch-parts.js';
import { GroupSize } from './batch-group.js';
import { errorJson, explained, Results } from './batch-results.js';
import { ApiError, type ErrorBody } from './errors.js';
import { idempotencyKey, isOutcome, sendStored } from './idempotency.js';
import { stringifyJson } from './json.js';
import type { Platform } from './platform.js';
import { Repeated } from './refusals.js';
import { send } from './answers.js';
import { responseOf, writer } from './resource-controller.js';

/** Many writes in one request. */
@Route('v1/batch')
@Tags('batch')
@Response<ErrorBody>('default', 'An error')
export class BatchController extends Controller {
  readonly #platform: Platform;

  constructor(platform: Platform) {
    super();
    this.#platform = platform;
  }

  /**
   * Carries out up to 1,000 writes of objects of any types. Each has a result of its own, or with `atomic: true` all are stored or
   * none is; then the answer to a failure is the error of the operation that failed, and its `details` begin with which one that
   * is.
   *
   * The answer has 32 MiB at most: objects that do not fit are left out, and `truncated` says so.
   *
   * With `Content-Type: application/x-ndjson` the body has one operation a line, as many as wanted, and the answer one line
   * `{"index", "status", "object" or "error"}` for each, sent while the body is still coming. Whoever sends a body larger than
   * the buffers on the way must read the answer at the same time.
   */
  @Post()
  @Response<BatchResults>(200, 'What became of each operation')
  async carryOutBatch(
    @Request() request: express.Request,
    @Body() body: BatchInput,
    @Queries() query: BatchQuery,
  ): Promise<void> {
    const dryRun = query.dryRun !== undefined;
    const key = dryRun ? undefined : idempotencyKey(request);
    const response = responseOf(request);
    if (key === undefined) {
      send(response, 200, await this.#carryOut(request, body, { dryRun }), undefined);
      return;
    }
    const { idempotency } = this.#platform;
    const release = await idempotency.take(key);
    try {
      const reference = idempotency.reference(key, -1, `POST /v1/batch\n${stringifyJson(body)}`);
      const stored = await idempotency.findWhole(reference);
      if (stored) sendStored(response, stored);
      else send(response, 200, await this.#keeping(request, body, reference), undefined);
    } finally {
      release();
    }
  }

  /** Carries a batch out and keeps its answer, refusals as a whole included. */
  async #keeping(request: express.Request, body: BatchInput, reference: AnswerReference): Promise<string> {
    const { idempotency } = this.#platform;
    try {
      const answer = await this.#carryOut(request, body, { reference });
      if (body.atomic !== true) await idempotency.keep([{ ...reference, status: 200, body: answer }]);
      return answer;
    } catch (error) {
      if (error instanceof ApiError && isOutcome(error.status) && !(error instanceof Repeated)) {
        const { status } = error;
        await idempotency.keep([
          { ...reference, status, body: JSON.stringify({ error: errorJson(error, request.id) }) },
        ]);
      }
      throw error;
    }
  }

  async #carryOut(
    request: express.Request,
    { atomic, operations }: BatchInput,
    { reference, dryRun = false }: { reference?: AnswerReference; dryRun?: boolean },
  ): Promise<string> {
    const platform = this.#platform;
    const context = { platform, writer: writer(request), dryRun };
    // Atomic: the answer as a whole is stored with the writes. Else each has its own line, in case this process dies halfway.
    const lines = atomic === true ? undefined : reference;
    const tried = operations.map((given, line): Attempt => {
      try {
        return readOperation(context, given, lines && { ...lines, line });
      } catch (error) {
        return explained(platform, error);
      }
    });
    if (atomic === true) return carryOutAll(platform, tried, { requestId: request.id, reference, dryRun });
    const results = new Results(request.id);
    const size = new GroupSize();
    let from = 0;
    while (from < tried.length) {
      const to = size.end(tried, from);
      const before = results.size;
      const kept = lines ? await this.#before(lines, from, to) : new Map<number, StoredAnswer>();
      const open: { line: number; attempt: Attempt }[] = [];
      tried.slice(from, to).forEach((attempt, at) => {
        const line = from + at;
        const repeated = kept.get(line);
        if (repeated) results.set(line, { status: repeated.status, repeated });
        else open.push({ line, attempt });
      });
      const done = await carryOutEach(
        platform,
        open.map(({ attempt }) => attempt),
      );
      open.forEach(({ line }, at) => {
        const result = done[at];
        if (!result) throw new Error(`operation ${line} has no result`);
        results.set(line, result);
      });
      size.learn(to - from, results.size - before);
      from = to;
    }
    return results.json(tried.length);
  }

  /** What a process that died halfway has done of some lines. */
  #before(reference: AnswerReference, from: number, to: number): Promise<Map<number, StoredAnswer>> {
    return this.#platform.idempotency.find([
      { ...reference, line: from },
      { ...reference, line: to - 1 },
    ]);
  }
}
