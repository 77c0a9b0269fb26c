import { randomUUID } from 'node:crypto';
import type { CallOptions, JsonPatchOperation, MergePatch, PropagationPolicy } from './calls.js';
import type { Collections, Kinds } from './connect.js';
import { PlatformError, readError } from './errors.js';
import { linesOf } from './lines.js';
import type { Key, Resource } from './resource.js';
import type { Transport } from './transport.js';

interface Common<Type> {
  /** The type, as in URLs. */
  type: Type;
  /** The version that the object must still have, else 409. */
  resourceVersion?: string;
  /** The uid that the object must have, else 409. */
  uid?: string;
  /** The token of a claim that must still be held. */
  claim?: string;
}

type InputOf<Type extends keyof Kinds> = Parameters<Collections[Type]['create']>[0];

type OperationOn<Type extends keyof Kinds> =
  | (Common<Type> & { op: 'create' | 'replace'; object: InputOf<Type> & Partial<Key>; subresource?: undefined })
  | (Common<Type> & { op: 'upsert'; object: InputOf<Type>; unlessNewer?: string })
  | (Common<Type> & Key & { op: 'replace'; object: object; subresource: 'metadata' | 'status' })
  | (Common<Type> &
      Key & {
        op: 'patch';
        patch: MergePatch<Kinds[Type]>;
        patchType?: 'merge';
        subresource?: 'metadata' | 'status';
      })
  | (Common<Type> &
      Key & { op: 'patch'; patch: JsonPatchOperation[]; patchType: 'json'; subresource?: 'metadata' | 'status' })
  | (Common<Type> & Key & { op: 'delete'; propagationPolicy?: PropagationPolicy });

/** One write of a batch; `upsert` creates the object or replaces it, with `unlessNewer` only if the stored one is not newer. */
export type BatchWrite = { [Type in keyof Kinds]: OperationOn<Type> }[keyof Kinds];

/**
 * What became of a write: the object as stored (of a deletion, as it was last), or why it was refused. `truncated`: it is done,
 * and the object was left out, since the server answers a batch with 32 MiB at most; `load` has no such limit.
 */
export type BatchOutcome<T = Resource> =
  | { status: number; object: T; truncated?: undefined; warnings?: string[]; error?: undefined }
  | { status: number; object?: undefined; truncated: true; warnings?: string[]; error?: undefined }
  | { status: number; object?: undefined; truncated?: undefined; warnings?: undefined; error: PlatformError };

/** The outcomes of writes, each with the type of its object, in their order. */
export type BatchOutcomes<Writes extends readonly BatchWrite[]> = {
  -readonly [I in keyof Writes]: BatchOutcome<Kinds[Writes[I]['type']]>;
};

/**
 * How a batch is carried out; its `claim` is that of all writes which have none of their own.
 *
 * @example
 * await client.batch(operations, { atomic: true, idempotencyKey: 'import-2027-01-31' });
 */
export interface BatchOptions extends Pick<
  CallOptions,
  'claim' | 'dryRun' | 'idempotencyKey' | 'signal' | 'traceparent'
> {
  /** All or nothing, in one transaction; when one write fails, the call throws its error, and `details` begin with which. */
  atomic?: boolean;
}

/** Carries out up to 1,000 writes in one request; see `Client.batch`. */
export async function batch<const Writes extends readonly BatchWrite[]>(
  transport: Transport,
  operations: Writes,
  { atomic, claim, dryRun, idempotencyKey = randomUUID(), signal, traceparent }: BatchOptions,
): Promise<BatchOutcomes<Writes>> {
  const answer = await transport.send({
    method: 'POST',
    path: '/v1/batch',
    query: rehearsal(dryRun),
    body: { ...(atomic === undefined ? {} : { atomic }), operations },
    headers: { 'idempotency-key': idempotencyKey },
    repeat: true,
    claim,
    signal,
    traceparent,
  });
  const results = isRecord(answer) && Array.isArray(answer['results']) ? (answer['results'] as unknown[]) : [];
  if (results.length !== operations.length) throw new TypeError('The server sent another number of results');
  // The server answers in the order of the operations, with objects of their types.
  return results.map(outcomeOf) as BatchOutcomes<Writes>;
}

/** Carries out any number of writes over one stream; see `Client.load`. */
export async function* load(
  transport: Transport,
  operations: Iterable<BatchWrite> | AsyncIterable<BatchWrite>,
  { claim, dryRun, idempotencyKey, signal, traceparent }: Omit<BatchOptions, 'atomic'>,
): AsyncGenerator<BatchOutcome & { index: number }, void, undefined> {
  const source: { error?: unknown } = {};
  try {
    const body = await transport.open({
      method: 'POST',
      path: '/v1/batch',
      query: rehearsal(dryRun),
      lines: linesFrom(operations, source),
      contentType: 'application/x-ndjson',
      headers: { accept: 'application/x-ndjson', ...(idempotencyKey && { 'idempotency-key': idempotencyKey }) },
      claim,
      signal,
      traceparent,
    });
    for await (const line of linesOf(body, longestSilence)) {
      const result: unknown = JSON.parse(line);
      if (!isRecord(result) || typeof result['index'] !== 'number')
        throw new TypeError('The server sent a line without index');
      yield { index: result['index'], ...outcomeOf(result) };
    }
  } catch (error) {
    // What the connection says of a request that its source broke off is no news.
    throw source.error ?? error;
  }
}

/** The operations of one stream may come slowly; the server itself gives up after two minutes, in ms. */
const longestSilence = 130_000;

async function* linesFrom(
  operations: Iterable<BatchWrite> | AsyncIterable<BatchWrite>,
  source: { error?: unknown },
): AsyncGenerator<string> {
  let handed = false;
  try {
    for await (const operation of operations) {
      const line = `${JSON.stringify(operation)}\n`;
      handed = true;
      yield line;
      handed = false;
    }
  } catch (error) {
    // What is thrown in while a line is handed over is the connection's trouble.
    if (!handed) source.error = error;
    throw error;
  }
}

function rehearsal(dryRun: boolean | undefined): { dryRun?: 'All' } {
  return dryRun === true ? { dryRun: 'All' } : {};
}

function outcomeOf(result: unknown): BatchOutcome {
  const { status, object, truncated, warnings, error } = isRecord(result) ? result : {};
  if (typeof status !== 'number') throw new TypeError('The server sent a result without status');
  const read = readError(error);
  if (read) return { status, error: new PlatformError(status, read) };
  const more = Array.isArray(warnings) ? { warnings: warnings as string[] } : {};
  if (truncated === true) return { status, truncated, ...more };
  // The server validates what it sends.
  return { status, object: object as Resource, ...more };
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}
