import http from 'node:http';
import https from 'node:https';
import tls from 'node:tls';
import { isMapping } from './document.js';
import { Exchange } from './exchange.js';
import { oneLine, reasonOfStatus, TargetFailure } from './failure.js';
import type { ClusterAccess } from './kubeconfig.js';

/** One question to a target. */
export interface TargetRequest {
  method: string;
  /**
   * Absolute path of the Kubernetes API, each segment already percent-encoded, without query: `/api/v1/nodes`. The path
   * of the kubeconfig's server comes before it.
   */
  path: string;
  query?: Record<string, string>;
  /** Default: `accept: application/json`. `authorization` is the target's own affair. */
  headers?: Record<string, string>;
  body?: string;
  /** Total time in ms, from looking up the name to the last byte (`stream`: to the headers). Default 10,000. */
  timeoutMs?: number;
  /** Closes the connection; the call then rejects with the signal's reason. */
  signal?: AbortSignal;
}

/** An answer in full, whatever its status. */
export interface TargetAnswer {
  status: number;
  headers: http.IncomingHttpHeaders;
  /** Decoded as UTF-8. */
  body: string;
}

/** An answer whose body is still to come. */
export interface TargetStream {
  status: number;
  headers: http.IncomingHttpHeaders;
  /** Throws a TargetFailure when the connection breaks. Leaving the loop early closes the connection. */
  body: AsyncIterable<Buffer>;
  /** Closes the connection; needed where `body` is not read to its end. */
  close: () => void;
}

/** An idle connection is closed after this long, in ms: sooner than firewalls and load balancers forget it silently. */
const idleMs = 30_000;

/** Default limit of an answer: a page of 500 large objects passes, an endless one does not fill the memory. */
const maxBytesDefault = 16 * 1024 * 1024;

/**
 * One cluster, as it is talked to: HTTP/1.1 over kept connections, with the credentials of its kubeconfig.
 *
 * Redirects are failures, answers are not decompressed (none is asked for), nothing is taken from the environment: no
 * proxy, no in-cluster account, no default kubeconfig. Its private fields keep the credentials out of logs and JSON.
 *
 * Names are looked up by getaddrinfo, in one of libuv's four threads: many targets with names that no server answers
 * for hold up each other's look-ups, but neither addresses nor open connections.
 */
export class Target {
  /** Host and port, for messages. */
  readonly address: string;

  readonly #access: ClusterAccess;
  readonly #agent: http.Agent;
  readonly #authorization: string | undefined;
  readonly #exchanges = new Set<Exchange>();
  #closed = false;

  constructor(access: ClusterAccess) {
    const { server, ca, cert, key, token, username, password = '' } = access;
    this.#access = access;
    const defaultPort = server.protocol === 'https:' ? '443' : '80';
    this.address = `${server.hostname}:${server.port || defaultPort}`;
    if (token !== undefined) this.#authorization = `Bearer ${token}`;
    else if (username !== undefined) {
      this.#authorization = `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`;
    }
    const kept = { keepAlive: true, timeout: idleMs };
    if (server.protocol === 'http:') this.#agent = new http.Agent(kept);
    else {
      const insecure = access.insecureSkipTlsVerify === true;
      this.#agent = new https.Agent({
        ...kept,
        // Made once: as plain options, CA and key would be parsed again for each connection (1 ms).
        secureContext: tls.createSecureContext({ ca: insecure ? [] : ca, cert, key }),
        rejectUnauthorized: !insecure, // said outright, since NODE_TLS_REJECT_UNAUTHORIZED could turn it off
        ...(access.tlsServerName !== undefined && { servername: access.tlsServerName }),
      });
    }
  }

  /**
   * Asks and waits for the whole answer. Any status but a redirect is an answer: see `refusal`.
   * @param request `maxBytes`: limit of the body, default 16 MiB
   * @throws TargetFailure when there is no answer, it is a redirect, or it is too large
   */
  async request(request: TargetRequest & { maxBytes?: number }): Promise<TargetAnswer> {
    const { exchange, status, headers } = await this.#ask(request);
    const chunks: Buffer[] = [];
    for await (const chunk of exchange.body(request.maxBytes ?? maxBytesDefault)) chunks.push(chunk);
    return { status, headers, body: Buffer.concat(chunks).toString('utf8') };
  }

  /**
   * Asks and waits for status and headers; the body follows for as long as it lasts.
   * @throws TargetFailure as `request`
   */
  async stream(request: TargetRequest): Promise<TargetStream> {
    const { exchange, status, headers } = await this.#ask(request);
    exchange.relax();
    return { status, headers, body: exchange.body(), close: () => exchange.stop() };
  }

  /**
   * Turns an answer that is not the one hoped for into a failure; its message has what the target says about it.
   * @param question what was asked, for the message: `GET /version`
   */
  refusal(question: string, { status, body }: TargetAnswer): TargetFailure {
    const said = messageOf(body);
    let message = `${this.address} answered ${status} to ${question}`;
    if (said !== undefined) message += `: ${this.quote(said)}`;
    if (status === 401 && this.#authorization === undefined) {
      message += ' (no token or password was sent: the kubeconfig has none, or its server is http:)';
    }
    return new TargetFailure(reasonOfStatus(status), message, status);
  }

  /**
   * Text from the target as it may stand in messages: one short line, without the credentials that were sent to it. A
   * gateway that echoes requests must not bring a token into a status.
   */
  quote(text: string): string {
    const { token, password } = this.#access;
    const sent = [token, password, this.#authorization?.replace(/^Basic /, '')].filter(secret => secret);
    return oneLine(sent.reduce<string>((line, secret) => line.replaceAll(secret ?? '', '***'), text));
  }

  /** Closes every connection; what is under way rejects. */
  close(): void {
    this.#closed = true;
    for (const exchange of this.#exchanges) exchange.stop(closed());
    this.#agent.destroy();
  }

  async #ask(
    request: TargetRequest,
  ): Promise<{ exchange: Exchange; status: number; headers: http.IncomingHttpHeaders }> {
    const { timeoutMs = 10_000, signal } = request;
    const time = { since: performance.now(), limit: timeoutMs };
    for (;;) {
      if (this.#closed) throw closed();
      signal?.throwIfAborted();
      const outgoing = this.#outgoing(request);
      const exchange = new Exchange(outgoing, this.address, time, signal);
      this.#exchanges.add(exchange);
      outgoing.once('close', () => this.#exchanges.delete(exchange));
      outgoing.end(request.body);
      try {
        const { statusCode: status = 0, headers } = await exchange.head;
        if (status >= 300 && status < 400 && status !== 304) {
          exchange.stop();
          throw new TargetFailure('Redirected', `${this.address} redirects${whereTo(headers.location)}`, status);
        }
        return { exchange, status, headers };
      } catch (error) {
        // The target may close an idle connection at the moment when it is taken again. A read can be asked again;
        // whether a write arrived is unknown, so that is the caller's decision.
        if (!exchange.lostIdleConnection || !['GET', 'HEAD'].includes(request.method)) throw error;
      }
    }
  }

  #outgoing({ method, path, query, headers }: TargetRequest): http.ClientRequest {
    // Names from untrusted objects end up here: they must not climb out of their path or begin a query.
    if (!/^\/[\w.~!$&'()*+,;=:@%/-]*$/.test(path) || /\/(\.|%2e){1,2}(\/|$)/i.test(path)) {
      throw new TypeError(`Not a path that may be asked for: ${JSON.stringify(path)}`);
    }
    const { server } = this.#access;
    const search = query ? `?${new URLSearchParams(query).toString()}` : '';
    const options: http.RequestOptions = {
      agent: this.#agent,
      method,
      path: server.pathname.replace(/\/+$/, '') + path + search,
      headers: {
        accept: 'application/json',
        'user-agent': 'syncsets',
        ...headers,
        ...(this.#authorization !== undefined && { authorization: this.#authorization }),
      },
    };
    return server.protocol === 'https:' ? https.request(server, options) : http.request(server, options);
  }
}

function closed(): Error {
  return new Error('This target has been closed');
}

/** The message of a Kubernetes Status, the one form in which API servers explain themselves. */
function messageOf(body: string): string | undefined {
  try {
    const status: unknown = JSON.parse(body);
    return isMapping(status) && status.kind === 'Status' && typeof status.message === 'string'
      ? status.message
      : undefined;
  } catch {
    return undefined;
  }
}

/** Only the origin: paths and queries of login pages carry tickets. */
function whereTo(location: string | undefined): string {
  const url = location !== undefined && URL.canParse(location) ? new URL(location) : undefined;
  return url && url.origin !== 'null' ? ` to ${url.origin}` : '';
}
