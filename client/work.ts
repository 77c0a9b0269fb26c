import type { IncomingMessage } from 'node:http';
import type { ControllerView, WorkList } from './generated/index.js';
import type {
  Claim,
  ClaimRequest,
  DoneAndClaimRequest,
  EnqueueRequest,
  MessageClaimRequest,
  RefusedMessage,
  Registration,
  Renewal,
  ResultState,
  WorkKey,
  WorkQuery,
  WorkResult,
} from './claims.js';
import { parse } from './answer.js';
import { PlatformError } from './errors.js';
import { linesOf } from './lines.js';
import type { Transport } from './transport.js';

/**
 * The work of controllers over HTTP, call by call, for workers that do not use the runtime. Calls that only read or that have
 * the same effect twice are repeated when the connection fails; `claim` is not, because its answer may hold claims.
 */
export class Controllers {
  readonly #transport: Transport;

  /** @internal */
  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /**
   * All registered controllers.
   *
   * @example
   * for (const { name, type } of await client.controllers.list()) console.log(name, type);
   */
  async list(): Promise<ControllerView[]> {
    const { items } = await this.#get<{ items: ControllerView[] }>('', { lists: ['items'] });
    return items;
  }

  /**
   * A controller; throws `NotFound`.
   *
   * @example
   * const { claimSeconds } = await client.controllers.read('hello');
   */
  async read(name: string, signal?: AbortSignal): Promise<ControllerView> {
    return this.#get(`/${encodeURIComponent(name)}`, { texts: ['name'] }, undefined, signal);
  }

  /**
   * Registers a controller or changes its registration. At the first time all existing objects are queued; of more than 10,000
   * the answer's `resyncing` tells that the rest follows. Throws `Conflict` when a registration with a higher revision is stored.
   *
   * @example
   * await client.controllers.register('hello', { type: 'clusters', on: ['spec'] });
   */
  async register(name: string, registration: Registration, signal?: AbortSignal): Promise<ControllerView> {
    const path = this.#path(name);
    const answer = await this.#transport.send({ method: 'PUT', path, body: registration, signal });
    return checked<ControllerView>(answer, { texts: ['name'] });
  }

  /**
   * Forgets a controller and its work.
   *
   * @example
   * await client.controllers.remove('hello');
   */
  async remove(name: string): Promise<void> {
    await this.#transport.send({ method: 'DELETE', path: this.#path(name) });
  }

  /**
   * One page of a controller's keys: what is queued, claimed, waiting, failing.
   *
   * @example
   * const { items } = await client.controllers.work('hello', { state: 'failing' });
   */
  async work(name: string, query: WorkQuery = {}): Promise<WorkList> {
    return this.#get(`/${encodeURIComponent(name)}/work`, { lists: ['items'] }, { ...query });
  }

  /**
   * Queues keys, or all objects that a selector matches; returns how many.
   *
   * @example
   * await client.controllers.enqueue('hello', { type: 'clusters', labelSelector: 'env=prod', priority: 10 });
   */
  async enqueue(name: string, request: EnqueueRequest, signal?: AbortSignal): Promise<number> {
    return (await this.#post<{ count: number }>(name, 'enqueue', { numbers: ['count'] }, request, { signal })).count;
  }

  /**
   * Claims work; an empty answer is normal. If it throws after the request was sent, the worker may hold claims that it does
   * not know: `renew` tells them (`held`), `done` with `released` gives them back.
   *
   * @example
   * const claims = await client.controllers.claim('hello', { worker: 'host1-4711', max: 16, waitSeconds: 25 });
   */
  async claim(name: string, request: ClaimRequest): Promise<Claim[]> {
    return (await this.#claim(name, request)).claims;
  }

  /**
   * Claims the most urgent keys for messages that came from the controller's queue, which are used up by this: what they named
   * and is still queued is sent again. `refused` are messages by foreign hands. Without any message and with `waitSeconds` it waits
   * for keys that come without one: those which the replica that is asked queues while somebody waits there.
   *
   * @example
   * const { claims } = await client.controllers.claimForMessages('hello', { worker, max: keys.length, messages: keys });
   */
  async claimForMessages(
    name: string,
    request: MessageClaimRequest,
  ): Promise<{ claims: Claim[]; refused: RefusedMessage[] }> {
    const { claims, refused } = await this.#claim(name, request);
    return { claims, refused };
  }

  /**
   * Reports results and claims in one call, for half the cost of two. If it throws after the request was sent, repeat the results
   * with `done`, and do as after `claim`.
   *
   * @example
   * const results = [{ token, result: 'done' as const }];
   * const { claims } = await client.controllers.doneAndClaim('hello', { worker, max: 16, results, waitSeconds: 25 });
   */
  doneAndClaim(
    name: string,
    request: DoneAndClaimRequest,
  ): Promise<{ claims: Claim[]; refused: RefusedMessage[]; results: ResultState[] }> {
    return this.#claim(name, request);
  }

  /**
   * Reports results; `fenced` means that the claim was lost before. Not repeated by itself, but harmless to repeat.
   *
   * @example
   * await client.controllers.done('hello', [{ token, result: 'done', requeueAfterSeconds: 120 }]);
   */
  async done(name: string, results: WorkResult[], signal?: AbortSignal): Promise<ResultState[]> {
    return (
      await this.#post<{ results: ResultState[] }>(
        name,
        'claims/done',
        { lists: ['results'] },
        { results },
        { repeat: 'never', signal },
      )
    ).results;
  }

  /**
   * Extends a worker's lease and says which of `tokens` it has lost. Count the lease from before the call: what the answer
   * says is true of the moment when the server wrote it.
   *
   * @example
   * const { lost } = await client.controllers.renew('hello', { worker: 'host1-4711', tokens: [token] });
   */
  async renew(name: string, request: { worker: string; tokens?: string[] }, signal?: AbortSignal): Promise<Renewal> {
    return this.#post(name, 'claims/renew', renewal, request, { signal, timeoutSeconds: 5, repeat: 'never' });
  }

  /**
   * Tells every 0.7 s what a worker holds, has lost and what has changed. It does not extend the lease, which takes `renew`,
   * but ends it: when the connection breaks, within 1.5 s, unless the worker renews it. So keep one open while claims are held;
   * what a killed worker held is then free within 2 s.
   *
   * @example
   * for await (const { lost } of client.controllers.renewStream('hello', 'host1-4711')) abandon(lost);
   */
  async *renewStream(name: string, worker: string, signal?: AbortSignal): AsyncGenerator<Renewal, void, undefined> {
    const body: IncomingMessage = await this.#transport.open({
      method: 'POST',
      path: `${this.#path(name)}/claims/renew`,
      query: { stream: true },
      body: { worker },
      signal,
    });
    for await (const line of linesOf(body, 5000)) yield checked<Renewal>(parse(line, 200), renewal);
  }

  /**
   * Says goodbye: all that the worker holds is released at once. Not repeated: where it fails, the lease ends by itself.
   *
   * @example
   * await client.controllers.leave('hello', 'host1-4711');
   */
  async leave(name: string, worker: string): Promise<void> {
    const path = `${this.#path(name)}/workers/${encodeURIComponent(worker)}`;
    await this.#transport.send({ method: 'DELETE', path, timeoutSeconds: 5, repeat: 'never' });
  }

  async #claim(
    name: string,
    { signal, ...request }: ClaimRequest & { messages?: WorkKey[]; results?: WorkResult[] },
  ): Promise<{ claims: Claim[]; refused: RefusedMessage[]; results: ResultState[] }> {
    type Answer = { claims: Claim[]; refused?: RefusedMessage[]; results?: ResultState[] };
    const timeoutSeconds = (request.waitSeconds ?? 0) + 30;
    const options = { signal, timeoutSeconds, repeat: 'never' as const };
    const {
      claims,
      refused = [],
      results = [],
    } = await this.#post<Answer>(name, 'claims', { lists: ['claims'] }, request, options);
    return { claims, refused, results };
  }

  #path(name: string): string {
    return `/v1/controllers/${encodeURIComponent(name)}`;
  }

  async #get<T>(
    path: string,
    shape: Shape<T>,
    query?: Record<string, string | number | undefined>,
    signal?: AbortSignal,
  ): Promise<T> {
    return checked<T>(
      await this.#transport.send({ method: 'GET', path: `/v1/controllers${path}`, query, signal }),
      shape,
    );
  }

  async #post<T>(
    name: string,
    verb: string,
    shape: Shape<T>,
    body: object,
    options: { signal?: AbortSignal; timeoutSeconds?: number; repeat?: 'never' },
  ): Promise<T> {
    const path = `${this.#path(name)}/${verb}`;
    return checked<T>(await this.#transport.send({ method: 'POST', path, body, repeat: true, ...options }), shape);
  }
}

/** Fields that an answer must have, by what they hold. What is within them is the server's word. */
interface Shape<T> {
  lists?: (keyof T & string)[];
  numbers?: (keyof T & string)[];
  texts?: (keyof T & string)[];
}

const renewal: Shape<Renewal> = { numbers: ['expiresInSeconds'], lists: ['lost', 'changed', 'held'] };

/** @throws PlatformError (NotJson) something else than the API has answered, such as a proxy */
function checked<T>(answer: unknown, { lists = [], numbers = [], texts = [] }: Shape<T>): T {
  const field = (name: string): unknown =>
    typeof answer === 'object' && answer !== null ? Reflect.get(answer, name) : undefined;
  const fits =
    lists.every(name => Array.isArray(field(name))) &&
    numbers.every(name => typeof field(name) === 'number') &&
    texts.every(name => typeof field(name) === 'string');
  if (fits) return answer as T;
  throw new PlatformError(200, { code: 'NotJson', message: 'The answer is not of the API; is the URL right?' });
}
