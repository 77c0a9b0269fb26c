import { readEvents, type Database, type LogEvent } from '../db/index.js';
import type { Tail } from '../bus/index.js';
import { ApiError, expired, toApiError } from './errors.js';
import type { Selection } from './list.js';
import { chunksOf, plainChunk, WireEvent, type Chunk } from './watch-lines.js';
import type { WatchStream } from './watch-stream.js';

/** What a client that catches up gets at once. */
const step = { events: 500, bytes: 2 ** 20 };
/** Looks at the log under way at once: the database has its connections for others too. */
const mostReads = 2;

/** What a look at the log brought, and where the tail was before it: what came since is not missing. */
interface Look {
  events: LogEvent[];
  head: number | undefined;
}

/** The connections of a type: one subscription to its tail for all of them. */
export class Hall {
  readonly #database: Database;
  readonly #type: string;
  readonly #tail: Tail;
  readonly #audiences = new Map<string, Audience>();
  readonly #reads = new Map<number, Promise<Look>>();
  readonly #waiting: (() => void)[] = [];
  #reading = 0;
  #coming: LogEvent[] = [];
  #scheduled = false;
  #restUntil = 0;

  constructor(options: { database: Database; type: string; tail: Tail }) {
    this.#database = options.database;
    this.#type = options.type;
    this.#tail = options.tail;
    options.tail.subscribe({ events: events => this.#announce(events), lost: () => this.#lost() });
  }

  /** The audience of a selection: all connections with the same query and form. */
  audience(selection: Selection, sse: boolean): Audience {
    const key = `${sse ? 'sse' : 'lines'} ${selection.query}`;
    let audience = this.#audiences.get(key);
    if (!audience) {
      audience = new Audience(this, selection, sse, () => this.#audiences.delete(key));
      this.#audiences.set(key, audience);
    }
    return audience;
  }

  bookmark(turn: number, turns: number): void {
    this.flush();
    for (const audience of this.#audiences.values()) audience.bookmark(turn, turns);
  }

  /** Hands on what has come, so that every audience is where the tail is. */
  flush(): void {
    if (this.#coming.length === 0) return;
    const begun = performance.now();
    const events = this.#coming.map(event => new WireEvent(event));
    this.#coming = [];
    for (const audience of this.#audiences.values()) audience.hear(events);
    const ended = performance.now();
    this.#restUntil = ended + (ended - begun);
  }

  /**
   * The next events after a version from memory; undefined: they are in the log only. `last`: a client that has them is where
   * the tail is.
   */
  recent(version: number): { events: LogEvent[]; last: boolean } | undefined {
    // The client comes from a replica that has heard of more.
    if (this.#tail.head !== undefined && version > this.#tail.head) return { events: [], last: false };
    const events = this.#tail.since(version);
    return events && { events: events.slice(0, step.events), last: events.length <= step.events };
  }

  /**
   * The next events after a version from the log, read once for all who ask at the time. Throws Expired when the log does not
   * hold them any more.
   */
  async past(version: number): Promise<LogEvent[]> {
    let read = this.#reads.get(version);
    if (!read) {
      read = this.#read(version).finally(() => this.#reads.delete(version));
      this.#reads.set(version, read);
    }
    const { events, head } = await read;
    const first = events[0];
    // Dropped meanwhile; were it only that nothing has come, memory would have said so.
    const isGone = first ? first.previous > version : head !== undefined && head > version;
    if (isGone) throw expired(version);
    return events;
  }

  async #read(version: number): Promise<Look> {
    if (this.#reading >= mostReads) await new Promise<void>(resolve => this.#waiting.push(resolve));
    this.#reading++;
    const { head } = this.#tail;
    try {
      return { events: (await readEvents(this.#database, this.#type, version, step)).events, head };
    } finally {
      this.#reading--;
      this.#waiting.shift()?.();
    }
  }

  // After the answers to those who wrote, and with what other batches bring in the same turn. Telling a thousand takes some ms:
  // then as long again is for others, and more comes together, which costs a thousand connections no more than a single event.
  #announce(events: readonly LogEvent[]): void {
    if (this.#audiences.size === 0) return;
    this.#coming.push(...events);
    if (this.#scheduled) return;
    this.#scheduled = true;
    const flush = () => {
      this.#scheduled = false;
      this.flush();
    };
    const rest = this.#restUntil - performance.now();
    if (rest > 1) setTimeout(flush, rest);
    else setImmediate(flush);
  }

  #lost(): void {
    this.flush();
    for (const audience of this.#audiences.values()) audience.lose();
  }
}

/** Connections that see the same of a type: what they get is chosen and written down once for all of them. */
export class Audience {
  readonly #hall: Hall;
  readonly #selection: Selection;
  readonly #sse: boolean;
  readonly #onEmpty: () => void;
  /** All connections, and those of them that are where the tail is, or were until they began to lag. */
  readonly #guests = new Set<WatchStream>();
  readonly #members = new Set<WatchStream>();
  /** What those who came since the last events were given to catch up, by where they were, and up to where it goes. */
  readonly #catchUps = new Map<number, { upTo: number; chunks: Chunk[] }>();

  constructor(hall: Hall, selection: Selection, sse: boolean, onEmpty: () => void) {
    this.#hall = hall;
    this.#selection = selection;
    this.#sse = sse;
    this.#onEmpty = onEmpty;
  }

  /** Sends a stream all that follows its position until it ends. Throws ClientGone, and Expired. */
  async serve(stream: WatchStream): Promise<void> {
    this.#guests.add(stream);
    try {
      while (!stream.isClosed) {
        await this.#catchUp(stream);
        await stream.lagging();
        await stream.drained();
        this.#members.delete(stream);
      }
    } finally {
      this.#members.delete(stream);
      this.#guests.delete(stream);
      if (this.#guests.size === 0) this.#onEmpty();
    }
  }

  /** Tells its clients how far they have come: those whose turn it is, of so many turns. */
  bookmark(turn: number, turns: number): void {
    let chunk: Chunk | undefined;
    for (const stream of this.#members) {
      if (stream.serial % turns !== turn) continue;
      if (chunk?.upTo !== stream.position) chunk = bookmarkChunk(stream.position, this.#sse);
      stream.bookmark(chunk);
    }
  }

  hear(events: readonly WireEvent[]): void {
    this.#catchUps.clear();
    const last = events.at(-1);
    if (!last || this.#members.size === 0) return;
    const chunks = chunksOf(events, this.#selection, this.#sse);
    for (const stream of this.#members) stream.deliver(chunks, last.event.version);
  }

  /** What follows does not continue what the clients have seen. */
  lose(): void {
    this.#catchUps.clear();
    for (const stream of this.#guests) stream.end(errorChunk(expired(stream.position), this.#sse));
  }

  async #catchUp(stream: WatchStream): Promise<void> {
    for (;;) {
      const recent = this.#hall.recent(stream.position);
      if (recent?.last) {
        // No wait from here on: the tail cannot move, and what it has handed on goes to the members before this one is one.
        this.#hall.flush();
        stream.send(
          this.#chunksAfter(stream.position, recent.events),
          recent.events.at(-1)?.version ?? stream.position,
        );
        stream.caughtUp();
        this.#members.add(stream);
        return;
      }
      const events = recent?.events ?? (await this.#hall.past(stream.position));
      const last = events.at(-1);
      if (last) {
        const chunks = this.#chunksAfter(stream.position, events);
        // Selecting little of a day's log would be minutes of silence: clients take that for a dead stream, and begin again.
        stream.send(chunks.length > 0 ? chunks : [bookmarkChunk(last.version, this.#sse)], last.version);
      }
      await stream.drained();
      // The tail has yet to have its first look at the log, or to come to where the client is.
      if (!last) await new Promise(resolve => setTimeout(resolve, 5));
    }
  }

  #chunksAfter(version: number, events: readonly LogEvent[]): Chunk[] {
    const upTo = events.at(-1)?.version;
    if (upTo === undefined) return [];
    const known = this.#catchUps.get(version);
    // What the log gave to one may be less than memory has for the next.
    if (known?.upTo === upTo) return known.chunks;
    const chunks = chunksOf(
      events.map(event => new WireEvent(event)),
      this.#selection,
      this.#sse,
    );
    if (this.#catchUps.size < 16) this.#catchUps.set(version, { upTo, chunks });
    return chunks;
  }
}

/** Says that everything up to a version was sent; `initial`: the objects of now among it. */
export function bookmarkChunk(version: number, sse: boolean, initial = false): Chunk {
  const end = initial ? ',"initialEventsEnd":true' : '';
  return plainChunk(`{"type":"BOOKMARK","resourceVersion":"${version}"${end}}`, sse, version, version);
}

/** The line that ends a stream which failed. */
export function errorChunk(error: unknown, sse: boolean): Chunk {
  const known = toApiError(error) ?? new ApiError('Internal', 'The watch failed; resume from the last version.');
  const { code, status, message } = known;
  return plainChunk(JSON.stringify({ type: 'ERROR', error: { code, status, message } }), sse, 0);
}
