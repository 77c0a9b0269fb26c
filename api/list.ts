import type { Response } from 'express';
import { readPage, type Database, type Key, type Page, type Selector } from '../db/index.js';
import { ApiError, expired } from './errors.js';
import type { Secrets } from './secrets.js';
import { continueToken, readContinueToken } from './tokens.js';
import type { TypeDefinition } from './type-definition.js';

/** What a list or watch asks for, parsed. */
export interface Selection {
  type: TypeDefinition;
  namespace: string | undefined;
  selector: Selector;
  /** The query as text: a continue token is good for the same one only. */
  query: string;
}

export interface ListOptions {
  limit: number | undefined;
  continue: string | undefined;
  /** Not older than this version. */
  resourceVersion: number | undefined;
}

/** Objects are read and sent in pages of this many, so that memory stays flat however long the list is. */
const pageSize = 500;

/**
 * Calls `page` with the objects of a selection, all in the state of one version, until `limit` is reached or there are no
 * more. Between pages no connection to the database is held. Returns the version and where the list goes on.
 */
export async function readPages(
  database: Database,
  selection: Selection,
  options: { limit: number | undefined; from?: { version: number; after: Key } },
  page: (objects: Page['objects'], version: number) => Promise<void> | void,
): Promise<{ version: number; next: { version: number; after: Key } | undefined }> {
  let from = options.from;
  let left = options.limit ?? Infinity;
  for (;;) {
    const result = await readPage(database, selection.type.type, {
      selector: selection.selector,
      limit: Math.min(left, pageSize),
      ...(selection.namespace === undefined ? {} : { namespace: selection.namespace }),
      ...(from ? { after: from.after, at: from.version } : {}),
    });
    await page(result.objects, result.version);
    left -= result.objects.length;
    const last = result.objects.at(-1);
    if (!last || !result.more) return { version: result.version, next: undefined };
    from = { version: result.version, after: { namespace: last.namespace, name: last.name } };
    if (left <= 0) return { version: result.version, next: from };
  }
}

/** Answers a list: `{"resourceVersion", "items", "continue"?}`, written as the pages come. */
export async function sendList(
  { database, secrets }: { database: Database; secrets: Secrets },
  response: Response,
  selection: Selection,
  options: ListOptions,
): Promise<void> {
  const from =
    options.continue === undefined ? undefined : readContinueToken(secrets, selection.query, options.continue);
  if (from && options.resourceVersion !== undefined) {
    throw new ApiError(
      'InvalidQuery',
      'resourceVersion: cannot be combined with continue, whose token holds the version.',
    );
  }
  let begun = false;
  let items = 0;
  const { next } = await readPages(
    database,
    selection,
    { limit: options.limit, ...(from ? { from } : {}) },
    async (objects, version) => {
      if (!begun) {
        if (options.resourceVersion !== undefined && options.resourceVersion > version)
          throw expired(options.resourceVersion);
        begun = true;
        response.status(200).setHeader('Content-Type', 'application/json; charset=utf-8');
        response.write(`{"resourceVersion":"${version}","items":[`);
      }
      if (objects.length === 0) return;
      const separator = items > 0 ? ',' : '';
      items += objects.length;
      if (!response.write(separator + objects.map(one => one.object).join(','))) await drained(response);
    },
  ).catch((error: unknown) => {
    // Half a list is sent: only a broken connection tells the client that it is not whole.
    if (begun) response.destroy();
    throw error;
  });
  response.end(next ? `],"continue":"${continueToken(secrets, selection.query, next)}"}` : ']}');
}

/** Waits until a client has read what was written. Throws when it goes away instead. */
export async function drained(response: Response): Promise<void> {
  if (response.destroyed) throw new ClientGone();
  if (!response.writableNeedDrain) return;
  await new Promise<void>((resolve, reject) => {
    const settle = () => {
      response.off('drain', settle).off('close', settle);
      if (response.destroyed) reject(new ClientGone());
      else resolve();
    };
    response.on('drain', settle).on('close', settle);
  });
}

/** The client closed its connection before the answer was complete: nobody is left to tell. */
export class ClientGone extends Error {
  constructor() {
    super('the client closed the connection');
  }
}
