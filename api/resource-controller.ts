import { Controller } from '@tsoa/runtime';
import type { Request, Response } from 'express';
import { isHeld, listNotices, recordNotice, type Key } from '../db/index.js';
import { removeCollection } from './collection-removal.js';
import { ApiError } from './errors.js';
import { send, sendOutcome } from './answers.js';
import { checkInput } from './input.js';
import { isObject, type JsonObject } from './json.js';
import { JsonPatch } from './json-patch.js';
import { readSelection, sendList } from './list.js';
import type { NoticeInput } from './notice.js';
import type { Change, Deletion, Writer } from './operation.js';
import { isTraceparent } from '../tracing/index.js';
import type { Platform } from './platform.js';
import type { Preconditions } from './preconditions.js';
import type { DeleteCollectionQuery, DeleteQuery, ListQuery, WriteQuery } from './queries.js';
import { lostClaim, refuse, refuseForeignKey } from './refusals.js';
import { parseSelector } from './selectors.js';
import { readClaimToken } from './tokens.js';
import type { TypeDefinition } from './type-definition.js';

/**
 * What every type's routes do. The generated controllers call these in one line each; answers are written here, because
 * an object's JSON text goes from the database to the client as it is.
 */
export abstract class ResourceController extends Controller {
  readonly #platform: Platform;
  readonly #type: TypeDefinition;

  protected constructor(platform: Platform, type: TypeDefinition) {
    super();
    this.#platform = platform;
    this.#type = type;
  }

  protected createObject(request: Request, body: object, query: WriteQuery): Promise<void> {
    return this.#create(request, fields(body), query);
  }

  protected async listObjects(request: Request, query: ListQuery): Promise<void> {
    const { limit, watch } = query;
    const selection = readSelection(this.#type, query);
    const version = query.resourceVersion === undefined ? undefined : parseVersion(query.resourceVersion);
    const response = responseOf(request);
    if (watch === true && request.method === 'HEAD') {
      throw new ApiError('InvalidQuery', 'watch: HEAD has no answer that could go on; send GET.');
    }
    if (watch !== true) {
      await sendList(this.#platform, response, selection, {
        // Nobody gets to see the objects; one tells as well as all whether the list can be had.
        limit: request.method === 'HEAD' ? 1 : limit,
        continue: query.continue,
        resourceVersion: version,
      });
      return;
    }
    if (limit !== undefined || query.continue !== undefined) {
      throw new ApiError('InvalidQuery', 'limit, continue: a watch sends everything; leave them out.');
    }
    const last = request.get('Last-Event-ID');
    await this.#platform.watches.serve(request, response, selection, last === undefined ? version : parseVersion(last));
  }

  protected async readObject(request: Request, key: Key): Promise<void> {
    const { object, version } = await this.#platform.objects.read(this.#type, key);
    const response = responseOf(request);
    const known = entityTags(request.get('If-None-Match'));
    if (known.includes(String(version)) || known.includes('*')) {
      response.status(304).set('ETag', `"${version}"`).end();
    } else send(response, 200, object, String(version));
  }

  protected async replaceObject(request: Request, key: Key, body: object, query: WriteQuery): Promise<void> {
    const given = fields(body);
    if (request.get('If-None-Match')?.trim() !== '*') {
      await this.#change(request, { verb: 'replace', key, body: given }, query);
      return;
    }
    refuseForeignKey(key, given);
    const { name, namespace } = key;
    const input = { ...given, name, ...(namespace === '' ? {} : { namespace }) };
    // The route could not check it: its body is that of a new object only with this header.
    refuse(checkInput(this.#type, input));
    await this.#create(request, input, query);
  }

  protected patchObject(request: Request, key: Key, body: object, query: WriteQuery): Promise<void> {
    return this.#change(request, { verb: 'patch', key, body: patchOf(body) }, query);
  }

  protected async deleteObject(request: Request, key: Key, query: DeleteQuery): Promise<void> {
    const { uid, resourceVersion = preconditionsOf(request).resourceVersion, propagationPolicy: propagation } = query;
    const preconditions = { uid, resourceVersion };
    const how = propagation ? { propagation } : {};
    await this.#carryOut(request, { verb: 'delete', key, preconditions, ...how }, query);
  }

  protected async deleteObjects(request: Request, query: DeleteCollectionQuery): Promise<void> {
    const { namespace, labelSelector, fieldSelector, ownerUid, all, propagationPolicy: propagation } = query;
    if (namespace !== undefined && !this.#type.namespaced) {
      throw new ApiError('InvalidQuery', `namespace: ${this.#type.type} are cluster-wide; leave it out.`);
    }
    const selector = parseSelector(this.#type, labelSelector, fieldSelector);
    // An empty selector selects everything: a variable that was not set must not delete all there is.
    const selects = selector.labels.length + selector.fields.length > 0 || (ownerUid !== undefined && ownerUid !== '');
    if (selects === (all === true)) {
      throw new ApiError(
        'InvalidQuery',
        selects
          ? 'all: is for everything; leave it out, or the selectors.'
          : 'Say what to delete: labelSelector, fieldSelector or ownerUid, or all=true for everything.',
      );
    }
    const count = await removeCollection(this.#platform, {
      type: this.#type,
      ...(namespace === undefined ? {} : { namespace }),
      selector,
      ...(ownerUid === undefined ? {} : { ownerUid }),
      ...(propagation ? { propagation } : {}),
      writer: writer(request),
      dryRun: query.dryRun === 'All',
    });
    send(responseOf(request), 200, JSON.stringify({ count }), undefined);
  }

  protected replaceStatus(request: Request, key: Key, body: object, query: WriteQuery): Promise<void> {
    return this.#change(request, { verb: 'replace', key, body: fields(body), subresource: 'status' }, query);
  }

  protected patchStatus(request: Request, key: Key, body: object, query: WriteQuery): Promise<void> {
    return this.#change(request, { verb: 'patch', key, body: patchOf(body), subresource: 'status' }, query);
  }

  protected replaceMetadata(request: Request, key: Key, body: object, query: WriteQuery): Promise<void> {
    return this.#change(request, { verb: 'replace', key, body: fields(body), subresource: 'metadata' }, query);
  }

  protected patchMetadata(request: Request, key: Key, body: object, query: WriteQuery): Promise<void> {
    return this.#change(request, { verb: 'patch', key, body: patchOf(body), subresource: 'metadata' }, query);
  }

  /** Secret values leave only to a controller that was registered for it and holds a claim. */
  protected async revealObject(request: Request, key: Key): Promise<void> {
    const { claim } = writer(request);
    const { database, objects, claims, log } = this.#platform;
    if (!claim)
      throw new ApiError(
        'Forbidden',
        'Secret values are revealed only to a controller that sends its claim in the header Claim.',
      );
    const registration = await claims.find(claim.controller);
    if (!registration?.reveal.includes(this.#type.type)) {
      throw new ApiError(
        'Forbidden',
        `The controller ${claim.controller} is not registered with reveal: ["${this.#type.type}"].`,
      );
    }
    if (!(await isHeld(database, claim))) throw lostClaim();
    const stored = await objects.read(this.#type, key);
    const revealed = objects.reveal(this.#type, stored);
    log('info', 'secret revealed', {
      audit: true,
      type: this.#type.type,
      namespace: key.namespace,
      name: key.name,
      fields: Object.keys(revealed),
      controller: claim.controller,
      requestId: request.id,
    });
    const response = responseOf(request).set('Cache-Control', 'no-store');
    send(response, 200, JSON.stringify({ resourceVersion: String(stored.version), fields: revealed }), undefined);
  }

  protected async listNotices(request: Request, key: Key): Promise<void> {
    const items = await listNotices(this.#platform.database, this.#type.type, key);
    send(responseOf(request), 200, JSON.stringify({ items }), undefined);
  }

  protected async recordNotice(request: Request, key: Key, body: NoticeInput): Promise<void> {
    const { database, objects } = this.#platform;
    await objects.read(this.#type, key);
    const { claim } = writer(request);
    if (claim && !(await isHeld(database, claim))) throw lostClaim();
    const actor = claim?.controller ?? 'client';
    const notice = await recordNotice(database, this.#type.type, key, {
      actor,
      reason: body.reason,
      message: body.message,
    });
    send(responseOf(request), 201, JSON.stringify(notice), undefined);
  }

  async #create(request: Request, input: JsonObject, query: WriteQuery): Promise<void> {
    const outcome = await this.#platform.objects.carryOut({
      verb: 'create',
      type: this.#type,
      input,
      writer: writer(request),
      dryRun: query.dryRun !== undefined,
    });
    const { namespace, name } = outcome.key;
    const path = [this.#type.type, ...(namespace === '' ? [] : [namespace]), name].map(encodeURIComponent).join('/');
    sendOutcome(request, responseOf(request), { status: 201, outcome, query, location: `/v1/${path}` });
  }

  #change(
    request: Request,
    change: Pick<Change, 'body' | 'key' | 'subresource' | 'verb'>,
    query: WriteQuery,
  ): Promise<void> {
    return this.#carryOut(request, { ...change, preconditions: preconditionsOf(request) }, query);
  }

  async #carryOut(
    request: Request,
    operation: Omit<Change, 'type' | 'writer'> | Omit<Deletion, 'type' | 'writer'>,
    query: WriteQuery,
  ): Promise<void> {
    const more = { type: this.#type, writer: writer(request), dryRun: query.dryRun !== undefined };
    const outcome = await this.#platform.objects.carryOut({ ...operation, ...more });
    sendOutcome(request, responseOf(request), { status: 200, outcome, query });
  }
}

/** The writer of a request by its headers Claim and traceparent. Throws Fenced for a token that is none of ours. */
export function writer(request: Request): Writer {
  const token = request.get('Claim');
  const claim = token === undefined ? undefined : readClaimToken(token);
  if (token !== undefined && (!claim || 'map' in claim)) {
    throw new ApiError(
      'Fenced',
      'The header Claim does not hold the token of a claimed key; send the token as the claim answered it.',
    );
  }
  const traceparent = request.get('traceparent');
  return {
    ...(request.answer ? { answer: request.answer } : {}),
    ...(claim && !('map' in claim) ? { claim } : {}),
    ...(traceparent !== undefined && isTraceparent(traceparent) ? { traceparent } : {}),
  };
}

/** The express response of a request; the app sets it before the routes. */
export function responseOf(request: Request): Response {
  if (!request.res) throw new Error(`request ${describeRequest(request)} has no response`);
  return request.res;
}

function patchOf(body: object): JsonObject | JsonPatch {
  return body instanceof JsonPatch ? body : fields(body);
}

function preconditionsOf(request: Request): Preconditions {
  const match = request.get('If-Match');
  if (match === undefined || match.trim() === '*') return {};
  const [version, ...more] = entityTags(match);
  if (version === undefined || more.length > 0)
    throw new ApiError('InvalidQuery', 'If-Match: must be one version, as the header ETag answered it.');
  return { resourceVersion: version };
}

function entityTags(header: string | undefined): string[] {
  // Trimmed first: blanks that two parts of the expression could take would cost cubic time.
  return (header ?? '').split(',').flatMap(tag => /^(?:W\/)?"?([^"]+)"?$/.exec(tag.trim())?.[1] ?? []);
}

function parseVersion(text: string): number {
  if (!/^\d{1,19}$/.test(text)) {
    throw new ApiError(
      'InvalidQuery',
      `resourceVersion: "${text}" is not a version; send a decimal number as the server answered it.`,
    );
  }
  return Number(text);
}

/** A body that is an object, as the route has checked; nobody changes it. */
function fields(body: object): JsonObject {
  if (!isObject(body)) throw new Error('the route took a body that is no object');
  return body;
}

function describeRequest(request: Request): string {
  return `${request.method} ${request.path}`;
}
