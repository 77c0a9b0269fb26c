import {
  Body,
  Controller,
  Delete,
  Get,
  Path,
  Post,
  Put,
  Queries,
  Request,
  Response,
  Route,
  SuccessResponse,
  Tags,
} from '@tsoa/runtime';
import type express from 'express';
import {
  deleteController,
  enqueueKeys,
  listControllers,
  listWork,
  registerController,
  summarizeWork,
  type EnqueueTarget,
  type Registration,
} from '../db/index.js';
import { send } from './answers.js';
import { ApiError, notFound, type ErrorBody } from './errors.js';
import { typeOf, type Platform } from './platform.js';
import type { NoQuery } from './queries.js';
import { renewalOf, streamRenewals, type Renewal, type RenewInput, type RenewQuery } from './renewals.js';
import { responseOf } from './resource-controller.js';
import { readWorkToken, workToken } from './tokens.js';
import type { ClaimInput, ClaimList, RefusedMessage } from './work-claims.js';
import { keyOf, targetOf, type EnqueueCount, type EnqueueInput } from './work-keys.js';
import {
  registered,
  registrationOf,
  view,
  type ControllerInput,
  type ControllerList,
  type ControllerView,
} from './work-registration.js';
import { reportsOf, type DoneInput, type DoneList } from './work-results.js';
import type { WorkList, WorkQuery } from './work-views.js';

/**
 * Work of controllers over plain HTTP, for any language: register, claim keys, report what became of them. A key is with at
 * most one worker at a time; a claim lives as long as its worker's lease.
 */
@Route('v1/controllers')
@Tags('controllers')
export class WorkController extends Controller {
  readonly #platform: Platform;

  constructor(platform: Platform) {
    super();
    this.#platform = platform;
  }

  /** Lists the registered controllers with their work in numbers. */
  @Get()
  async listControllers(@Queries() _query: NoQuery): Promise<ControllerList> {
    const { database } = this.#platform;
    const [registrations, work] = await Promise.all([listControllers(database), summarizeWork(database)]);
    // One that is forgotten at this moment is among the registrations alone.
    const items = registrations.flatMap(one => {
      const summary = work.get(one.name);
      return summary ? [view(one, summary)] : [];
    });
    return { items };
  }

  /** Shows one controller. */
  @Get('{name}')
  @Response<ErrorBody>(404, 'NotFound')
  async readController(@Path() name: string, @Queries() _query: NoQuery): Promise<ControllerView> {
    const registration = await this.#platform.claims.find(name);
    if (!registration) throw notFound(`The controller ${name}`);
    return this.#view(registration);
  }

  /**
   * Registers a controller or changes it; repeating it changes nothing. Of two that differ the higher `revision` wins. At the
   * first registration, and when a watch or a part of a change is added, every existing object is enqueued: the first 10,000
   * before the answer, the others right after it, page by page. Types that have more to come are in `resyncing`.
   */
  @Put('{name}')
  @Response<ErrorBody>(409, 'Conflict: another registration with this or a higher revision is stored')
  async registerController(
    @Path() name: string,
    @Body() body: ControllerInput,
    @Queries() _query: NoQuery,
  ): Promise<ControllerView> {
    const { bus, claims, database } = this.#platform;
    if (!/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/.test(name)) {
      throw new ApiError(
        'Invalid',
        `The name "${name}" must be a DNS-1123 label: lower-case letters, digits and dashes, at most 63.`,
      );
    }
    for (const type of [
      ...(['*', '-'].includes(body.type) ? [] : [body.type]),
      ...(body.watches ?? []),
      ...(body.reveal ?? []),
    ])
      typeOf(this.#platform, type);
    const { stored, woken, refused } = await registerController(database, registrationOf(name, body));
    claims.forget(name);
    for (const controller of woken) bus.queued(controller);
    bus.registered();
    if (refused) {
      throw new ApiError(
        'Conflict',
        `The controller ${name} is registered differently with revision ${stored.revision}; raise the revision above it to change it, or start the newer release.`,
        { details: [{ path: 'revision', message: JSON.stringify(registered(stored)) }] },
      );
    }
    return this.#view(stored);
  }

  /** Forgets a controller with all its keys. */
  @Delete('{name}')
  @SuccessResponse(204, 'Forgotten')
  @Response<ErrorBody>(404, 'NotFound')
  async deleteController(@Path() name: string, @Queries() _query: NoQuery): Promise<void> {
    const { bus, claims, database, log } = this.#platform;
    const found = await deleteController(database, name);
    claims.forget(name);
    if (!found) throw notFound(`The controller ${name}`);
    bus.registered();
    await bus.forget(name).catch((error: unknown) => {
      log('warn', 'queue of a forgotten controller is removed from the broker later', {
        controller: name,
        reason: String(error),
      });
    });
  }

  /**
   * Claims keys for a worker, the most urgent first, with their objects as they are now. Waits up to `waitSeconds`; an empty
   * list is a normal answer.
   */
  @Post('{name}/claims')
  @Response<ClaimList>(200, 'What the worker holds now')
  @Response<ErrorBody>(404, 'NotFound')
  async claimWork(
    @Request() request: express.Request,
    @Path() name: string,
    @Body() body: ClaimInput,
    @Queries() _query: NoQuery,
  ): Promise<void> {
    const registration = await this.#registration(name);
    if (body.keys && body.messages) throw new ApiError('Invalid', 'Send either keys or messages, not both.');
    const keys = body.keys?.map((key, i) => keyOf(this.#platform, registration, key, `keys[${i}]`));
    const refused: RefusedMessage[] = [];
    const messages = body.messages?.flatMap((message, index) => {
      try {
        return [keyOf(this.#platform, registration, message, `messages[${index}]`)];
      } catch (error) {
        if (!(error instanceof ApiError)) throw error;
        // One by a foreign hand must not cost the others that came with it.
        refused.push({ index, reason: error.message });
        return [];
      }
    });
    const response = responseOf(request);
    const gone = new AbortController();
    response.once('close', () => gone.abort());
    if (response.destroyed) gone.abort();
    const { reports, states } = reportsOf(this.#platform, registration, body.results ?? []);
    const { claims, held } = await this.#platform.claims.claim(
      name,
      {
        worker: body.worker,
        max: body.max,
        waitSeconds: body.waitSeconds ?? 0,
        ...(keys ? { keys } : {}),
        ...(messages ? { messages } : {}),
        reports,
      },
      { signal: gone.signal, onWait: () => (request.waits = true) },
    );
    const strange = refused.length > 0 ? `,"refused":${JSON.stringify(refused)}` : '';
    const results = body.results ? `,"results":${JSON.stringify(states(held))}` : '';
    send(response, 200, `{"claims":[${claims.join(',')}]${strange}${results}}`, undefined);
  }

  /**
   * Renews a worker's lease and tells what it holds, what it lost and what changed. With `stream=true` the connection stays open
   * and tells the same every 0.7 s without renewing anything: when it breaks, the server knows that the worker is gone and
   * ends its lease within 1.5 s, unless it renews again.
   */
  @Post('{name}/claims/renew')
  @Response<Renewal>(200, 'The lease; with stream=true a line of this every 0.7 s')
  @Response<ErrorBody>(404, 'NotFound')
  async renewWork(
    @Request() request: express.Request,
    @Path() name: string,
    @Body() body: RenewInput,
    @Queries() query: RenewQuery,
  ): Promise<void> {
    const { claims, log } = this.#platform;
    await this.#registration(name);
    const response = responseOf(request);
    if (query.stream === true) {
      await streamRenewals({ claims, log, response, controller: name, worker: body.worker });
      return;
    }
    const { seconds, held } = await claims.renew(name, body.worker);
    const renewal = renewalOf(seconds, held, body.tokens ?? []);
    send(response, 200, JSON.stringify(renewal), undefined);
  }

  /** Reports what became of claims. A claim that was lost meanwhile is answered as `fenced`: its result does nothing. */
  @Post('{name}/claims/done')
  @Response<ErrorBody>(404, 'NotFound')
  async finishWork(@Path() name: string, @Body() body: DoneInput, @Queries() _query: NoQuery): Promise<DoneList> {
    const { claims } = this.#platform;
    const registration = await this.#registration(name);
    const { reports, states } = reportsOf(this.#platform, registration, body.results);
    return { results: states(await claims.done(name, reports)) };
  }

  /** A worker says goodbye: what it holds is queued again at once. */
  @Delete('{name}/workers/{worker}')
  @SuccessResponse(204, 'Released')
  @Response<ErrorBody>(404, 'NotFound')
  async leaveWork(@Path() name: string, @Path() worker: string, @Queries() _query: NoQuery): Promise<void> {
    await this.#registration(name);
    await this.#platform.claims.leave(name, worker);
  }

  /** Enqueues keys: named ones, or all that a selector matches, in one statement. */
  @Post('{name}/enqueue')
  @Response<ErrorBody>(404, 'NotFound')
  async enqueueWork(
    @Path() name: string,
    @Body() body: EnqueueInput,
    @Queries() _query: NoQuery,
  ): Promise<EnqueueCount> {
    const { bus, database } = this.#platform;
    const registration = await this.#registration(name);
    const { keys, priority = 0, afterSeconds, ...selection } = body;
    const selects = Object.keys(selection).length > 0;
    if ((keys !== undefined) === selects) {
      throw new ApiError('Invalid', 'Send either keys, or type with labelSelector or all: true.');
    }
    const targets: EnqueueTarget[] = keys?.map((key, i) => keyOf(this.#platform, registration, key, `keys[${i}]`)) ?? [
      targetOf(this.#platform, registration, selection, ''),
    ];
    const { count, woken } = await enqueueKeys(database, name, targets, {
      priority,
      reason: 'enqueued',
      ...(afterSeconds === undefined ? {} : { afterSeconds }),
    });
    if (woken) bus.queued(name);
    return { count };
  }

  /** Shows the keys of a controller: queued, claimed, waiting, failing with their last error and next try. */
  @Get('{name}/work')
  @Response<ErrorBody>(404, 'NotFound')
  async listWork(@Path() name: string, @Queries() query: WorkQuery): Promise<WorkList> {
    const { database, secrets } = this.#platform;
    await this.#registration(name);
    const limit = query.limit ?? 100;
    const signed = `work ${name} ${query.state ?? ''}`;
    const after = query.continue === undefined ? undefined : readWorkToken(secrets, signed, query.continue);
    const items = await listWork(database, name, {
      limit: limit + 1,
      ...(query.state ? { state: query.state } : {}),
      ...(after ? { after } : {}),
    });
    const page = items.slice(0, limit);
    const last = page.at(-1);
    if (items.length <= limit || !last) return { items: page };
    return { items: page, continue: workToken(secrets, signed, last) };
  }

  /** Throws NotFound when the controller is forgotten at this moment. */
  async #view(registration: Registration): Promise<ControllerView> {
    const { name } = registration;
    const work = (await summarizeWork(this.#platform.database, { controller: name })).get(name);
    if (!work) throw notFound(`The controller ${name}`);
    return view(registration, work);
  }

  async #registration(name: string): Promise<Registration> {
    const registration = await this.#platform.claims.find(name);
    if (!registration) throw notFound(`The controller ${name}, which registers with PUT /v1/controllers/${name},`);
    return registration;
  }
}
