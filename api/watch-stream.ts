import type { Socket } from 'node:net';
import type { Response } from 'express';
import { ClientGone, drained } from './list.js';
import { plainChunk, type Chunk } from './watch-lines.js';

/** What may wait for a client in memory of its own, in bytes, before it is left to catch up at its pace. */
const ahead = 256 * 1024;
/** A client that is this many bytes behind the others is closed; it resumes by version. */
const farBehind = 8 * 2 ** 20;

/**
 * One connection of a watch. What is sent is made elsewhere, framed, and goes to the socket as it is: `response.write` frames
 * each write anew, with three buffers and a cork for every connection, and reaches half the deliveries a second.
 */
export class WatchStream {
  static #count = 0;
  /** Numbers the connections of the process, for what is done to some of them in turn. */
  readonly serial = WatchStream.#count++;
  /** The client has been sent everything up to this version. */
  position = 0;
  readonly sse: boolean;
  /** Resolves when the connection is closed. */
  readonly ended: Promise<void>;
  readonly #response: Response;
  readonly #socket: Socket | undefined;
  #behind: number | undefined;
  #onLag: (() => void) | undefined;
  #closed = false;

  constructor(response: Response, sse: boolean) {
    this.#response = response;
    this.sse = sse;
    this.ended = new Promise(resolve => response.once('close', resolve));
    response.once('close', () => this.end());
    response.status(200);
    response.setHeader(
      'Content-Type',
      sse ? 'text/event-stream; charset=utf-8' : 'application/x-ndjson; charset=utf-8',
    );
    response.setHeader('Cache-Control', 'no-store');
    // Proxies that buffer answers would hold events back.
    response.setHeader('X-Accel-Buffering', 'no');
    response.flushHeaders();
    // An answer that waits for those of earlier requests on its connection has no socket yet; HTTP/1.0 knows no chunks.
    if (response.socket && response.chunkedEncoding) this.#socket = response.socket;
  }

  get isClosed(): boolean {
    return this.#closed;
  }

  /** Sends an object that was there before the watch began. */
  initial(object: string, version: number): void {
    // Without an id: a client that loses the stream among these begins again.
    this.#write(plainChunk(`{"type":"ADDED","resourceVersion":"${version}","object":${object}}`, this.sse, 0));
  }

  /** Sends what the client is to see next, at its own pace: wait for `drained` between calls. */
  send(chunks: readonly Chunk[], upTo: number): void {
    for (const chunk of chunks) this.#write(chunk);
    this.position = upTo;
  }

  /**
   * Sends what all of an audience are to see now; `position` must be where they were. A client that does not read as fast
   * gets the rest later: see `lagging`.
   */
  deliver(chunks: readonly Chunk[], upTo: number): void {
    for (const chunk of chunks) {
      if (this.#behind !== undefined) {
        this.#behind += chunk.bytes.length;
        if (this.#behind > farBehind) this.#response.destroy();
        continue;
      }
      this.#write(chunk);
      this.position = chunk.upTo;
      if (this.#response.writableLength <= ahead) continue;
      this.#behind = 0;
      this.#onLag?.();
    }
    if (this.#behind === undefined) this.position = upTo;
  }

  /** Resolves when the client reads more slowly than its audience hears, or is gone. */
  lagging(): Promise<void> {
    if (this.#closed || this.#behind !== undefined) return Promise.resolve();
    return new Promise(resolve => (this.#onLag = resolve));
  }

  /** The client is where its audience is again. */
  caughtUp(): void {
    this.#behind = undefined;
  }

  /** Waits until the client has read what was sent. Throws ClientGone. */
  async drained(): Promise<void> {
    if (this.#closed) throw new ClientGone();
    const socket = this.#socket;
    if (!socket) return drained(this.#response);
    if (socket.destroyed) throw new ClientGone();
    if (!socket.writableNeedDrain) return;
    await new Promise<void>((resolve, reject) => {
      const settle = () => {
        socket.off('drain', settle).off('close', settle);
        if (socket.destroyed) reject(new ClientGone());
        else resolve();
      };
      socket.on('drain', settle).on('close', settle);
    });
  }

  /** Tells a client how far it has come. One that is behind hears it with what comes. */
  bookmark(chunk: Chunk): void {
    if (this.#behind === undefined) this.#write(chunk);
  }

  /** Sends the last line of the stream. */
  end(last?: Chunk): void {
    if (this.#closed) return;
    if (last) this.#write(last);
    this.#closed = true;
    this.#onLag?.();
    this.#response.end();
  }

  #write({ bytes, head }: Chunk): void {
    if (this.#closed) return;
    if (this.#socket) this.#socket.write(bytes);
    else this.#response.write(bytes.subarray(head, -2));
  }
}
