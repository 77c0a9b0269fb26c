import { Controller, Get, Queries, Route, Tags } from '@tsoa/runtime';
import type { Platform } from './platform.js';
import type { NoQuery } from './queries.js';

/** A type of the API. */
export interface TypeView {
  /** Its name in URLs. */
  type: string;
  /** The name of its schema. */
  kind: string;
  namespaced: boolean;
  description: string;
  /** Where its objects are. */
  path: string;
}

/** All types of the API. */
export interface TypeList {
  items: TypeView[];
}

/** What the API offers. */
@Route('v1')
@Tags('platform')
export class PlatformController extends Controller {
  readonly #platform: Platform;

  constructor(platform: Platform) {
    super();
    this.#platform = platform;
  }

  /** Lists the types. */
  @Get()
  listTypes(@Queries() _query: NoQuery): Promise<TypeList> {
    const items = [...this.#platform.types.values()].map(({ type, kind, namespaced, description }) => ({
      type,
      kind,
      namespaced,
      description,
      path: `/v1/${type}`,
    }));
    return Promise.resolve({ items });
  }
}
