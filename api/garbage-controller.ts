import { Body, Controller, Post, Queries, Request, Response, Route, Tags } from '@tsoa/runtime';
import type express from 'express';
import type { ErrorBody } from './errors.js';
import { typeOf, type Platform } from './platform.js';
import type { NoQuery } from './queries.js';
import { writer } from './resource-controller.js';

/** Which objects to look after, each with all objects that name it as an owner. */
export interface GarbageInput {
  /**
   * They may be gone.
   * @minItems 1 must not be empty
   * @maxItems 100 must be at most 100
   */
  objects: GarbageKey[];
}

/** Names an object that is an owner, or names owners itself. */
export interface GarbageKey {
  type: string;
  /**
   * Left out: `default`, or none for a cluster-wide type.
   * @maxLength 63 must have at most 63 characters
   */
  namespace?: string;
  /** @maxLength 253 must have at most 253 characters */
  name: string;
}

/** What was done. */
export interface GarbageResult {
  /**
   * Objects that were deleted, or marked with `deletedAt`, because none of their owners is left.
   * @isInt
   */
  deleted: number;
  /**
   * Objects that stay, and no longer name owners that are gone.
   * @isInt
   */
  released: number;
  /** For each of the objects asked for, whether it waits for dependents and is to be looked after again. */
  waiting: boolean[];
  /** For each of the objects asked for, why something could not be deleted or released; null if nothing stood in the way. */
  refused?: (string | null)[];
}

/** What owners leave behind. The controller `garbagecollector` asks for it; whoever else does, does no harm. */
@Route('v1/garbage')
@Tags('controllers')
export class GarbageController extends Controller {
  readonly #platform: Platform;

  constructor(platform: Platform) {
    super();
    this.#platform = platform;
  }

  /**
   * Looks after objects and their dependents of all types, in sets: dependents that no owner holds are deleted, owners that are
   * gone are taken from the others, and an owner in foreground or orphaning deletion goes once its dependents have gone or
   * lost it. An owner counts as gone when there is no object of its type and name, or one with another uid.
   */
  @Post()
  @Response<ErrorBody>(404, 'UnknownType')
  @Response<ErrorBody>(409, 'Fenced')
  async collectGarbage(
    @Request() request: express.Request,
    @Body() body: GarbageInput,
    @Queries() _query: NoQuery,
  ): Promise<GarbageResult> {
    const places = body.objects.map(({ type: name, namespace = 'default', name: object }) => {
      const type = typeOf(this.#platform, name);
      return { type, key: { namespace: type.namespaced ? namespace : '', name: object } };
    });
    return this.#platform.garbage.collect(places, writer(request));
  }
}
