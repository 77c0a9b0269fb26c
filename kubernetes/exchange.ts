import { setMaxListeners } from 'node:events';
import type { ClientRequest, IncomingMessage } from 'node:http';
import { TLSSocket } from 'node:tls';
import { connectionFailure, TargetFailure } from './failure.js';

/**
 * One question to a target and its answer. It owns what Node leaves to the caller: the total time-out, the signal, the
 * limit of bytes, and knowing why a connection ended (after `destroy` Node itself says no more than "aborted").
 */
export class Exchange {
  /** Resolves when status and headers are there. Rejects with a TargetFailure, or with what `stop` was given. */
  readonly head: Promise<IncomingMessage>;

  readonly #outgoing: ClientRequest;
  readonly #address: string;
  readonly #timer: NodeJS.Timeout;
  #missing = 'could not be connected to';
  #response: IncomingMessage | undefined;
  #stopped: Error | undefined;

  /**
   * @param outgoing not ended yet
   * @param address host and port, for messages
   * @param time limit in ms until the body's end, or until `relax`, counted from `since` (a value of performance.now)
   * @param signal ends the exchange with its own reason
   */
  constructor(outgoing: ClientRequest, address: string, time: { since: number; limit: number }, signal?: AbortSignal) {
    this.#outgoing = outgoing;
    this.#address = address;
    this.#timer = setTimeout(
      () => {
        this.stop(new TargetFailure('Timeout', `${address} ${this.#missing} within ${time.limit} ms`));
      },
      time.since + time.limit - performance.now(),
    );
    if (signal) setMaxListeners(0, signal); // one signal for many requests is usual, and all listeners leave again
    const onAbort = (): void => this.stop(asError(signal?.reason));
    signal?.addEventListener('abort', onAbort, { once: true });

    this.head = new Promise((resolve, reject) => {
      const fail = (error: unknown): void => reject(this.#failure(error));
      outgoing.once('response', response => {
        this.#response = response;
        this.#missing = 'did not finish its answer';
        resolve(response);
      });
      // Stays for good: a socket may fail once more after the answer, and an error that nobody hears ends the process.
      outgoing.on('error', fail);
      outgoing.once('close', () => {
        this.relax();
        signal?.removeEventListener('abort', onAbort);
        fail(connectionReset()); // without an answer and without an error: a 101, for one
      });
    });
    outgoing.once('socket', socket => {
      const secure = socket instanceof TLSSocket;
      const connected = (): void => {
        this.#missing = 'did not answer';
      };
      if (!socket.connecting) {
        connected();
        return;
      }
      socket.once('connect', () => {
        this.#missing = secure ? 'did not finish the TLS handshake' : 'did not answer';
      });
      if (secure) socket.once('secureConnect', connected);
    });
  }

  /** Takes the time-out away, for answers that are to last; the signal and `stop` still hold. */
  relax(): void {
    clearTimeout(this.#timer);
  }

  /** Closes the connection. Whoever waits for head or body gets `by`; the first call counts. */
  stop(by = new Error('This answer has been closed')): void {
    this.#stopped ??= by;
    this.#outgoing.destroy();
  }

  /** Whether the connection had been idle in the pool, and the other side had closed it meanwhile. */
  get lostIdleConnection(): boolean {
    return this.#outgoing.reusedSocket && this.#response === undefined && this.#stopped === undefined;
  }

  /**
   * The body, chunk by chunk. Leaving the loop early closes the connection.
   * @throws TargetFailure `TooLarge` beyond `maxBytes`, and whatever may end a connection
   */
  async *body(maxBytes = Infinity): AsyncGenerator<Buffer, void> {
    const response = await this.head;
    let left = maxBytes;
    try {
      for await (const chunk of response as AsyncIterable<Buffer>) {
        left -= chunk.length;
        if (left < 0) throw new TargetFailure('TooLarge', `${this.#address} answered with more than ${maxBytes} bytes`);
        yield chunk;
      }
      // Node drops what is buffered when it closes a connection; the rest must not pass for the whole.
      if (this.#stopped) throw this.#stopped;
    } catch (error) {
      throw this.#failure(error);
    } finally {
      if (!response.complete) this.stop();
    }
  }

  #failure(error: unknown): Error {
    return this.#stopped ?? connectionFailure(asError(error), this.#address);
  }
}

function connectionReset(): Error {
  return Object.assign(new Error('closed'), { code: 'ECONNRESET' });
}

function asError(reason: unknown): Error {
  return reason instanceof Error ? reason : new Error('The request has been cancelled', { cause: reason });
}
