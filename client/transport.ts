import { setMaxListeners } from 'node:events';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { baseOf, queryOf } from './address.js';
import { isSuccess, parse, retryAfterOf, textOf, warningsOf } from './answer.js';
import { Backoff, longestTimer, pause } from './backoff.js';
import { ConnectionError, PlatformError } from './errors.js';

/** Where requests go, and how long they are tried; in seconds. */
export interface TransportOptions {
  /** Where the API is, for example `https://syncsets.example.com`; a path in it is put before every request's. */
  url: string;
  /** Bearer token; sent with every request, never shown. */
  token?: string;
  /** PEM file of the authorities to trust instead of the system's. */
  caFile?: string;
  /** Longest time for one attempt, from the request to the end of the answer. Default 30; `Infinity` waits for ever. */
  timeoutSeconds?: number;
  /** How long a call that may be sent again is repeated. Default 10; 0 never repeats. */
  retrySeconds?: number;
  /** Ends every call. */
  signal?: AbortSignal;
  /** Told when the signal has ended them, for what else is to end with them. */
  onAbort?: () => void;
  /** Told what the server warns of though it did what was asked, and on which call. */
  onWarning?: (text: string, call: { method: string; path: string }) => void;
  /** Told of each attempt of a call, for those who count: its status, or `<error>` when no answer came. It must not throw. */
  onAnswer?: (attempt: { method: string; host: string; code: string }) => void;
}

/** One request. */
export interface Call {
  method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  /** Already encoded, such as `/v1/clusters/default/cluster1`. */
  path: string;
  query?: Record<string, string | number | boolean | undefined>;
  headers?: Record<string, string>;
  /** Sent as JSON. */
  body?: unknown;
  /** In place of a body: texts that are sent as they come, no faster than the server takes them. */
  lines?: AsyncIterable<string>;
  /** Default application/json. */
  contentType?: string;
  /** Token of a held claim: the write is refused (409 Fenced) once the claim is lost. */
  claim?: string;
  /** The trace that it belongs to (W3C trace context). */
  traceparent?: string;
  /**
   * Whether it may be sent again when its answer was lost or the server was unavailable: `true` if twice has the effect of
   * once. `never` leaves all repeating to the caller. Default: GET and PUT.
   */
  repeat?: boolean | 'never';
  /** Default: that of the transport. */
  timeoutSeconds?: number;
  signal?: AbortSignal;
}

/**
 * Carries requests over kept connections. A call is repeated when that is safe: after 429, when the connection was refused,
 * and, if twice has the effect of once, after 503 and a lost answer too. Pauses grow from 0.1 s to 2 s or follow
 * `Retry-After`.
 */
export class Transport {
  readonly #base: URL;
  readonly #options: TransportOptions;
  readonly #headers: Record<string, string>;
  readonly #secure: boolean;
  readonly #calls: http.Agent;
  // Watches and long polls hold their connections, so they must not count against the limit of calls.
  readonly #streams: http.Agent;
  readonly #active = new Set<(reason: Error) => void>();
  /** A signal may outlive many of these: what is closed listens to it no more. */
  readonly #listening = new AbortController();
  #ended: Error | undefined;

  /**
   * @throws TypeError the URL is not http(s), the token cannot be sent, or a time is none; Error: the CA file cannot be read
   */
  constructor(options: TransportOptions) {
    this.#base = baseOf(options.url);
    this.#options = options;
    this.#secure = this.#base.protocol === 'https:';
    if (options.token !== undefined && !/^[\x21-\x7e]+$/.test(options.token)) {
      throw new TypeError('The token is empty or has characters that no HTTP header carries');
    }
    const { timeoutSeconds = 30, retrySeconds = 10 } = options;
    if (!(timeoutSeconds > 0)) throw new TypeError('timeoutSeconds must be a number above 0');
    if (!(retrySeconds >= 0)) throw new TypeError('retrySeconds must be a number from 0');
    this.#headers = {
      accept: 'application/json',
      'user-agent': 'syncsets-client',
      ...(options.token !== undefined && { authorization: `Bearer ${options.token}` }),
    };
    const ca = options.caFile === undefined ? {} : { ca: readFileSync(options.caFile) };
    const agent = (sockets: http.AgentOptions) =>
      this.#secure
        ? new https.Agent({ keepAlive: true, ...sockets, ...ca })
        : new http.Agent({ keepAlive: true, ...sockets });
    this.#calls = agent({ maxSockets: 256, maxFreeSockets: 64 });
    this.#streams = agent({ maxFreeSockets: 8 });
    const { signal, onAbort } = options;
    const onSignal = () => {
      this.close(asError(signal?.reason));
      onAbort?.();
    };
    if (signal?.aborted) onSignal();
    else signal?.addEventListener('abort', onSignal, { once: true, signal: this.#listening.signal });
  }

  /**
   * Sends a call and returns the answer's JSON (undefined when it is empty).
   * @throws PlatformError the server refused; ConnectionError no answer; the signal's reason when it aborts
   */
  async send(call: Call): Promise<unknown> {
    const { timeoutSeconds = this.#options.timeoutSeconds ?? 30 } = call;
    const until = performance.now() + (this.#options.retrySeconds ?? 10) * 1000;
    const backoff = new Backoff(100, 2000);
    for (;;) {
      try {
        return await this.#exchange(call, timeoutSeconds * 1000);
      } catch (error) {
        this.#check(call);
        if (!mayRepeat(call, error)) throw error;
        const asked = error instanceof PlatformError ? (error.retryAfter ?? 0) * 1000 : 0;
        const wait = backoff.next(asked);
        if (performance.now() + wait > until) throw error;
        await this.pause(wait, call.signal);
      }
    }
  }

  /**
   * Opens an answer that goes on: resolves with its body once the server has answered 2xx; never repeated. The caller
   * reads it, or destroys it.
   * @throws PlatformError, ConnectionError (no answer within the time-out), the signal's reason
   */
  async open(call: Call): Promise<http.IncomingMessage> {
    const { timeoutSeconds = this.#options.timeoutSeconds ?? 30 } = call;
    const deadline = new Deadline(timeoutSeconds * 1000);
    try {
      const response = await this.#request(call, this.#streams, deadline);
      if (isSuccess(response)) return response;
      throw PlatformError.of(response.statusCode ?? 0, await textOf(response), retryAfterOf(response));
    } finally {
      deadline.end();
    }
  }

  /** Waits for some milliseconds, or until `signal` aborts or this is closed; never rejects. */
  async pause(milliseconds: number, signal?: AbortSignal): Promise<void> {
    if (this.#ended || signal?.aborted) return;
    const ended = new AbortController();
    const end = () => ended.abort();
    this.#active.add(end);
    signal?.addEventListener('abort', end, { once: true });
    await pause(milliseconds, ended.signal);
    signal?.removeEventListener('abort', end);
    this.#active.delete(end);
  }

  /** Ends all calls and closes all connections. */
  close(reason = new Error('The client is closed')): void {
    this.#ended ??= reason;
    this.#listening.abort();
    for (const abort of this.#active) abort(this.#ended);
    this.#calls.destroy();
    this.#streams.destroy();
  }

  #warn({ method, path }: Call, { headers }: http.IncomingMessage): void {
    const { onWarning } = this.#options;
    if (onWarning) for (const text of warningsOf(headers.warning)) onWarning(text, { method, path });
  }

  #check({ signal }: Call): void {
    if (this.#ended) throw this.#ended;
    signal?.throwIfAborted();
  }

  async #exchange(call: Call, timeout: number): Promise<unknown> {
    const deadline = new Deadline(timeout);
    try {
      // A call that the server holds open for longer than usual is a long poll.
      const response = await this.#request(call, timeout > 30_000 ? this.#streams : this.#calls, deadline);
      const text = await textOf(response);
      const status = response.statusCode ?? 0;
      // What was asked for has not changed.
      if (status === 304) return undefined;
      if (!isSuccess(response)) throw PlatformError.of(status, text, retryAfterOf(response));
      this.#warn(call, response);
      return text === '' ? undefined : parse(text, status);
    } finally {
      deadline.end();
    }
  }

  #request(call: Call, agent: http.Agent, deadline: Deadline): Promise<http.IncomingMessage> {
    this.#check(call);
    const { signal } = call;
    // One signal may stand over hundreds of calls at once; Node would call that a leak.
    if (signal) setMaxListeners(0, signal);
    const body = call.body === undefined ? undefined : Buffer.from(JSON.stringify(call.body));
    const options: http.RequestOptions = {
      protocol: this.#base.protocol,
      hostname: this.#base.hostname.replace(/^\[|\]$/g, ''),
      port: this.#base.port,
      path: this.#base.pathname + call.path.slice(1) + queryOf(call),
      method: call.method,
      agent,
      headers: {
        ...this.#headers,
        ...call.headers,
        ...(body && { 'content-length': body.length }),
        ...((body ?? call.lines) && { 'content-type': call.contentType ?? 'application/json' }),
        ...(call.claim !== undefined && { claim: call.claim }),
        ...(call.traceparent !== undefined && { traceparent: call.traceparent }),
      },
    };
    return new Promise((resolve, reject) => {
      const request = (this.#secure ? https : http).request(options);
      let connected = false;
      let answer: http.IncomingMessage | undefined;
      let failed = false;
      const fail = (error: Error) => {
        failed = true;
        // Destroying a request whose answer has begun does not reach whoever reads the answer.
        answer?.destroy(error);
        request.destroy(error);
      };
      const told = (code: string) => this.#options.onAnswer?.({ method: call.method, host: this.#base.host, code });
      const onAbort = () => fail(asError(signal?.reason));
      signal?.addEventListener('abort', onAbort, { once: true });
      this.#active.add(fail);
      deadline.onPassed(() => fail(new ConnectionError('Timeout', connected, `${this.#describe(call)} took too long`)));
      request.once('socket', socket => {
        connected = !socket.connecting;
        // A socket that is used again has connected long ago and would gather these.
        if (!connected) socket.once(this.#secure ? 'secureConnect' : 'connect', () => (connected = true));
      });
      request.once('close', () => {
        signal?.removeEventListener('abort', onAbort);
        this.#active.delete(fail);
      });
      request.once('response', response => {
        answer = response;
        told(String(response.statusCode));
        resolve(response);
      });
      request.on('error', error => {
        if (!answer) told('<error>');
        reject(failed ? error : this.#connectionError(call, connected, error));
      });
      if (call.lines) {
        // Node keeps them for the first line, which may come later than the answer is waited for.
        request.flushHeaders();
        // Ends the source as well, whichever side ends. An answer that is there in full has said why.
        pipeline(Readable.from(call.lines), request).catch((error: unknown) => {
          if (answer?.complete !== true) fail(asError(error));
        });
      } else request.end(body);
    });
  }

  #connectionError(call: Call, connected: boolean, error: Error): ConnectionError {
    const code = 'code' in error && typeof error.code === 'string' ? error.code : 'Unknown';
    return new ConnectionError(code, connected, `${this.#describe(call)} got no answer: ${error.message || code}`, {
      cause: error,
    });
  }

  #describe(call: Call): string {
    return `${call.method} ${this.#base.origin}${call.path}`;
  }
}

/** A time-out that covers a request and the reading of its answer. */
class Deadline {
  readonly #timer: NodeJS.Timeout;
  #passed: () => void = () => undefined;

  constructor(milliseconds: number) {
    this.#timer = setTimeout(() => this.#passed(), Math.min(milliseconds, longestTimer));
  }

  onPassed(passed: () => void): void {
    this.#passed = passed;
  }

  end(): void {
    clearTimeout(this.#timer);
  }
}

function mayRepeat(call: Call, error: unknown): boolean {
  if (call.repeat === 'never') return false;
  const harmless = call.repeat ?? ['GET', 'PUT'].includes(call.method);
  if (error instanceof PlatformError) {
    // 409 with Retry-After: the first one with this Idempotency-Key is still under way.
    const passes = error.status === 503 || (error.status === 409 && error.retryAfter !== undefined);
    return error.status === 429 || (passes && harmless);
  }
  return error instanceof ConnectionError && passing.has(error.code) && (harmless || !error.sent);
}

/** Troubles that go away by themselves, unlike a certificate that is not trusted. */
const passing = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'ECONNABORTED',
  'EPIPE',
  'ETIMEDOUT',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ENOTFOUND',
  'EAI_AGAIN',
]);

function asError(reason: unknown): Error {
  return reason instanceof Error ? reason : new Error(String(reason));
}
