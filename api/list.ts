import type { Response } from 'express';
import { readPage, VersionGone, type Database, type Order, type Page, type Place, type Selector } from '../db/index.js';
import { ApiError, expired } from './errors.js';
import type { ListQuery } from './queries.js';
import type { Secrets } from './secrets.js';
import { parseSelector } from './selectors.js';
import { continueToken, readContinueToken } from './tokens.js';
import type { TypeDefinition } from './type-definition.js';

/** What a list or watch asks for, parsed. */
export interface Selection {
  type: TypeDefinition;
  namespace: string | undefined;
  selector: Selector;
  /** undefined: by namespace and name. */
  order?: Order;
  /** The paths to keep of each object; undefined: all. */
  fields?: string[][];
  /** The query as text: a continue token is good for the same one only. `fields` and `limit` may differ. */
  query: string;
}

/** Which page of a list is asked for, and in which state. */
export interface ListOptions {
  limit: number | undefined;
  continue: string | undefined;
  /** Not older than this version. */
  resourceVersion: number | undefined;
}

/** Objects are read and sent in pages of this many, so that memory stays flat however long the list is. */
const pageSize = 500;
const maxFields = 64;
/** These are always there: who reads a part of an object must know which one, and in which version. */
const keptFields = ['name', 'namespace', 'resourceVersion'];
const envelopeFields =
  'type,name,namespace,uid,labels,annotations,finalizers,owners,resourceVersion,generation,createdAt,updatedAt,deletedAt,status'.split(
    ',',
  );

/** Reads what a list or watch of a type is to show. Throws InvalidQuery, and Invalid for a secret field. */
export function readSelection(type: TypeDefinition, query: ListQuery): Selection {
  const { namespace, labelSelector, fieldSelector, orderBy, fields } = query;
  if (namespace !== undefined && !type.namespaced) {
    throw new ApiError('InvalidQuery', `namespace: ${type.type} are cluster-wide; leave it out.`);
  }
  if (query.watch === true && (orderBy !== undefined || fields !== undefined)) {
    throw new ApiError('InvalidQuery', 'orderBy, fields: a watch sends whole objects as they change; leave them out.');
  }
  return {
    type,
    namespace,
    selector: parseSelector(type, labelSelector, fieldSelector),
    ...(orderBy === undefined ? {} : { order: parseOrder(type, orderBy) }),
    ...(fields === undefined ? {} : { fields: parseFields(type, fields) }),
    query: JSON.stringify([type.type, namespace, labelSelector, fieldSelector, orderBy]),
  };
}

/** `verifySeconds`, `verifySeconds asc`, `verifySeconds desc`. Throws InvalidQuery for a field without an index. */
function parseOrder(type: TypeDefinition, text: string): Order {
  const [, field, direction] = /^\s*([A-Za-z0-9_]+)(?:\s+(asc|desc))?\s*$/.exec(text) ?? [];
  const index = type.indexes.find(one => one.field === field);
  if (index) return { index, descending: direction === 'desc' };
  const known = type.indexes.map(one => one.field).join(', ');
  throw new ApiError(
    'InvalidQuery',
    `orderBy: "${text}" is not one indexed field, with or without "asc" or "desc" behind it; ` +
      (known === ''
        ? `${type.type} have no indexed fields, leave it out.`
        : `${type.type} can be ordered by ${known}.`),
  );
}

/** `labels,status.conditions`. Secrets may be named: they are masked like everywhere. Throws InvalidQuery. */
function parseFields(type: TypeDefinition, text: string): string[][] {
  const known = [...envelopeFields, ...type.fields];
  const paths = text.split(',').map(path => path.trim().split('.'));
  if (paths.length > maxFields)
    throw new ApiError('InvalidQuery', `fields: ${paths.length} paths, the limit is ${maxFields}.`);
  for (const path of paths) {
    if (!path.includes('') && path.length <= 16 && known.includes(path[0] ?? '')) continue;
    throw new ApiError(
      'InvalidQuery',
      `fields: "${path.join('.')}" is no path into ${type.type}; it begins with one of ${known.join(', ')} and has at most 16 parts, joined by dots.`,
    );
  }
  return [...keptFields.map(field => [field]), ...paths];
}

/**
 * Calls `page` with the objects of a selection, all in the state of one version, until `limit` is reached or there are no
 * more. Between pages no connection to the database is held. Returns the version and where the list goes on.
 */
export async function readPages(
  database: Database,
  selection: Selection,
  options: { limit: number | undefined; from?: { version: number | undefined; after: Place } },
  page: (objects: Page['objects'], version: number) => Promise<void> | void,
): Promise<{ version: number; next: { version: number; after: Place } | undefined; count: number | undefined }> {
  const { type, namespace, selector, order, fields } = selection;
  let { from } = options;
  let left = options.limit ?? Infinity;
  let count: number | undefined;
  for (;;) {
    const result = await readPage(database, type.type, {
      selector,
      limit: Math.min(left, pageSize),
      ...(namespace === undefined ? {} : { namespace }),
      ...(order ? { order } : {}),
      ...(fields ? { fields } : {}),
      ...(from ? { after: from.after } : { count: options.limit !== undefined }),
      ...(from?.version === undefined ? {} : { at: from.version }),
    });
    count ??= result.count;
    await page(result.objects, result.version);
    left -= result.objects.length;
    const last = result.objects.at(-1);
    if (!last || !result.more) return { version: result.version, next: undefined, count };
    const { namespace: ofLast, name, value } = last;
    from = {
      version: result.version,
      after: { namespace: ofLast, name, ...(value === undefined ? {} : { value }) },
    };
    if (left <= 0) return { version: result.version, next: { ...from, version: result.version }, count };
  }
}

/** Answers a list: `{"resourceVersion", "items", "continue"?, "remainingItemCount"?}`, written as the pages come. */
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
  const { next, count } = await readPages(
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
    if (!begun && from && error instanceof VersionGone) throw pageGone(secrets, selection.query, from.after);
    throw error;
  });
  if (!next) {
    response.end(']}');
    return;
  }
  // All pages show one state, so what remained before this page is known from the page before.
  const before = from?.remaining ?? count;
  const remaining = before === undefined ? undefined : before - items;
  const shown = remaining === undefined ? '' : `,"remainingItemCount":${remaining}`;
  response.end(`],"continue":"${continueToken(secrets, selection.query, { ...next, remaining })}"${shown}}`);
}

function pageGone(secrets: Secrets, query: string, after: Place): ApiError {
  return new ApiError(
    'Expired',
    'The state that this list shows is no longer in the event log. List again from the start; or go on with the token in "continue", whose pages show the state of now, so that what changed before them is missed.',
    { continueToken: continueToken(secrets, query, { version: undefined, after }) },
  );
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
