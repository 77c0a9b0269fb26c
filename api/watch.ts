import type { Request, Response } from 'express';
import type { Tail } from '../bus/index.js';
import { logRange, type Database } from '../db/index.js';
import { expired } from './errors.js';
import { ClientGone, readPages, type Selection } from './list.js';
import { bookmarkChunk, errorChunk, Hall } from './watch-audience.js';
import { WatchStream } from './watch-stream.js';

/** Every client hears at least this often, in ms, how far it has come; not all at once, which took 10,000 of them 60 ms. */
const bookmarkInterval = 8_000;
const bookmarkTurns = 16;

/** All watch connections of a process. */
export class Watches {
  readonly #database: Database;
  readonly #tail: (type: string) => Tail;
  readonly #halls = new Map<string, Hall>();
  readonly #ranges = new Map<string, ReturnType<typeof logRange>>();
  readonly #streams = new Set<WatchStream>();
  #bookmarks: NodeJS.Timeout | undefined;
  #turn = 0;

  constructor(options: { database: Database; tail: (type: string) => Tail }) {
    this.#database = options.database;
    this.#tail = options.tail;
  }

  start(): void {
    this.#bookmarks ??= setInterval(() => {
      this.#turn = (this.#turn + 1) % bookmarkTurns;
      for (const hall of this.#halls.values()) hall.bookmark(this.#turn, bookmarkTurns);
    }, bookmarkInterval / bookmarkTurns);
  }

  /** Ends all streams; clients resume elsewhere. */
  stop(): Promise<void> {
    clearInterval(this.#bookmarks);
    for (const hall of this.#halls.values()) hall.flush();
    for (const stream of this.#streams) stream.end();
    return Promise.resolve();
  }

  get connections(): number {
    return this.#streams.size;
  }

  /**
   * Answers a watch until the client goes: every event after `since` once, in order. Without `since` the current objects
   * come first, as ADDED. Throws Expired before anything is sent when the log does not hold what follows `since`.
   */
  async serve(request: Request, response: Response, selection: Selection, since: number | undefined): Promise<void> {
    const hall = this.#hall(selection.type.type);
    if (since !== undefined) {
      let range = await this.#range(selection.type.type);
      // Others had asked before this version was given.
      if (since > range.head) range = await logRange(this.#database, selection.type.type);
      if (since > range.head || since < range.start) throw expired(since);
    }
    // The client may have gone during the look above: its close event has passed, a stream would wait for it for ever.
    if (response.destroyed) return;
    const sse =
      request.accepts(['application/json', 'application/x-ndjson', 'text/event-stream']) === 'text/event-stream';
    const stream = new WatchStream(response, sse);
    this.#streams.add(stream);
    try {
      stream.position = since ?? (await this.#sendCurrent(stream, selection));
      await hall.audience(selection, sse).serve(stream);
    } catch (error) {
      stream.end(error instanceof ClientGone ? undefined : errorChunk(error, sse));
    } finally {
      stream.end();
      this.#streams.delete(stream);
    }
  }

  async #sendCurrent(stream: WatchStream, selection: Selection): Promise<number> {
    const { version } = await readPages(this.#database, selection, { limit: undefined }, async objects => {
      for (const { version, object } of objects) stream.initial(object, version);
      await stream.drained();
    });
    stream.send([bookmarkChunk(version, stream.sse, true)], version);
    return version;
  }

  #hall(type: string): Hall {
    let hall = this.#halls.get(type);
    if (!hall) {
      hall = new Hall({ database: this.#database, type, tail: this.#tail(type) });
      this.#halls.set(type, hall);
    }
    return hall;
  }

  /** Asked once for all who come at the time: after a restart those are all clients of another process. */
  #range(type: string): ReturnType<typeof logRange> {
    let range = this.#ranges.get(type);
    if (!range) {
      range = logRange(this.#database, type).finally(() => this.#ranges.delete(type));
      this.#ranges.set(type, range);
    }
    return range;
  }
}
