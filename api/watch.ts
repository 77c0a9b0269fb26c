import type { Request, Response } from 'express';
import type { Tail } from '../bus/index.js';
import { logRange, readEvents, type Database, type LogEvent } from '../db/index.js';
import { expired, toApiError, ApiError } from './errors.js';
import { isObject, parseJson, stringifyJson, type JsonObject } from './json.js';
import { ClientGone, drained, readPages, type Selection } from './list.js';
import { matches } from './selectors.js';

/** A client that has this many bytes unread is closed; it resumes by version. */
const largestBacklog = 8 * 2 ** 20;
const bookmarkInterval = 8_000;
const catchUpBatch = 500;

type Op = LogEvent['op'];

/**
 * One event in its forms on the wire, made once for all connections that want it, and its states before and after for
 * selectors.
 */
class WireEvent {
  readonly #lines = new Map<string, Buffer>();
  #states: { before: JsonObject | undefined; after: JsonObject | undefined } | undefined;

  constructor(readonly event: LogEvent) {}

  get states() {
    if (!this.#states) {
      const { op, object, before } = this.event;
      const newest = asObject(object);
      const former = op === 'ADDED' ? undefined : restore(newest, before);
      this.#states = { before: former, after: op === 'DELETED' ? undefined : newest };
    }
    return this.#states;
  }

  /** A line of the stream; a DELETED for an object that left the selection shows its previous state. */
  line(op: Op, sse: boolean): Buffer {
    const form = `${op}${sse}`;
    let line = this.#lines.get(form);
    if (!line) {
      const { event } = this;
      const leaves = op === 'DELETED' && event.op !== 'DELETED';
      const object = leaves
        ? stringifyJson({ ...this.states.before, resourceVersion: String(event.version) })
        : event.object;
      const text = `{"type":"${op}","resourceVersion":"${event.version}","previousResourceVersion":"${event.previous}","object":${object}}`;
      line = frame(text, sse, event.version);
      this.#lines.set(form, line);
    }
    return line;
  }
}

/** All watch connections of a process. */
export class Watches {
  readonly #database: Database;
  readonly #tail: (type: string) => Tail;
  readonly #wire = new WeakMap<LogEvent, WireEvent>();
  readonly #streams = new Set<WatchStream>();
  #bookmarks: NodeJS.Timeout | undefined;

  constructor(options: { database: Database; tail: (type: string) => Tail }) {
    this.#database = options.database;
    this.#tail = options.tail;
  }

  start(): void {
    this.#bookmarks ??= setInterval(() => {
      for (const stream of this.#streams) stream.bookmark();
    }, bookmarkInterval);
  }

  /** Ends all streams; clients resume elsewhere. */
  stop(): Promise<void> {
    clearInterval(this.#bookmarks);
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
    const type = selection.type.type;
    if (since !== undefined) {
      const range = await logRange(this.#database, type);
      if (since > range.head || since < range.start) throw expired(since);
    }
    // The client may have gone during the look above: its close event has passed, a stream would wait for it for ever.
    if (response.destroyed) return;
    const tail = this.#tail(type);
    const stream = new WatchStream(
      response,
      selection,
      request.accepts(['application/json', 'application/x-ndjson', 'text/event-stream']) === 'text/event-stream',
      event => this.#wireEvent(event),
    );
    this.#streams.add(stream);
    try {
      const from = since ?? (await this.#sendCurrent(stream, selection));
      await this.#catchUp(stream, tail, type, from);
      await stream.ended;
    } catch (error) {
      if (!(error instanceof ClientGone)) stream.fail(error);
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
    stream.position = version;
    stream.bookmark(true);
    return version;
  }

  async #catchUp(stream: WatchStream, tail: Tail, type: string, from: number): Promise<void> {
    stream.position = from;
    let lastAt: number | undefined;
    for (;;) {
      const recent = tail.since(stream.position);
      if (recent && recent.length <= catchUpBatch) {
        // No wait between these: the tail cannot move in between.
        stream.deliver(recent);
        stream.follow(tail);
        return;
      }
      const events =
        recent?.slice(0, catchUpBatch) ??
        (await readEvents(this.#database, type, stream.position, catchUpBatch, lastAt));
      const first = events[0];
      if (first && first.previous > stream.position) throw expired(stream.position);
      stream.deliver(events);
      // Five minutes back, as the tail does, for clocks that were set back.
      const last = events.at(-1);
      lastAt = last && last.at - 300_000;
      await stream.drained();
      // The tail has not had its first look at the log yet.
      if (!first) await new Promise(resolve => setTimeout(resolve, 5));
    }
  }

  #wireEvent(event: LogEvent): WireEvent {
    let wire = this.#wire.get(event);
    if (!wire) {
      wire = new WireEvent(event);
      this.#wire.set(event, wire);
    }
    return wire;
  }
}

/** One connection: decides which events it sees and as what. */
class WatchStream {
  /** The version that the client has seen everything up to. */
  position = 0;
  readonly ended: Promise<void>;
  readonly #response: Response;
  readonly #selection: Selection;
  readonly #sse: boolean;
  readonly #wire: (event: LogEvent) => WireEvent;
  readonly #selective: boolean;
  #unfollow: (() => void) | undefined;
  #closed = false;

  constructor(response: Response, selection: Selection, sse: boolean, wire: (event: LogEvent) => WireEvent) {
    this.#response = response;
    this.#selection = selection;
    this.#sse = sse;
    this.#wire = wire;
    this.#selective = selection.selector.labels.length > 0 || selection.selector.fields.length > 0;
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
  }

  /** Sends an object that was there before the watch began. */
  initial(object: string, version: number): void {
    if (this.#closed) return;
    // Without an id: a client that loses the stream among these begins again.
    this.#response.write(
      frame(`{"type":"ADDED","resourceVersion":"${version}","object":${object}}`, this.#sse, undefined),
    );
  }

  deliver(events: readonly LogEvent[]): void {
    if (this.#closed) return;
    const chunks: Buffer[] = [];
    for (const event of events) {
      if (event.version <= this.position) continue;
      this.position = event.version;
      const op = this.#opFor(event);
      if (op) chunks.push(this.#wire(event).line(op, this.#sse));
    }
    const [first] = chunks;
    if (first) this.#response.write(chunks.length === 1 ? first : Buffer.concat(chunks));
  }

  follow(tail: Tail): void {
    if (this.#closed) return;
    this.#unfollow = tail.subscribe(events => {
      this.deliver(events);
      if (this.#response.writableLength > largestBacklog) this.#response.destroy();
    });
  }

  /** Tells a client without events how far it has come. */
  bookmark(initialEventsEnd = false): void {
    if (this.#closed || (!initialEventsEnd && !this.#unfollow)) return;
    const end = initialEventsEnd ? ',"initialEventsEnd":true' : '';
    this.#response.write(
      frame(`{"type":"BOOKMARK","resourceVersion":"${this.position}"${end}}`, this.#sse, this.position),
    );
  }

  async drained(): Promise<void> {
    if (this.#closed) throw new ClientGone();
    await drained(this.#response);
  }

  /** Ends the stream with an ERROR line. */
  fail(error: unknown): void {
    if (this.#closed) return;
    const known = toApiError(error) ?? new ApiError('Internal', 'The watch failed; resume from the last version.');
    const { code, status, message } = known;
    this.#response.write(
      frame(JSON.stringify({ type: 'ERROR', error: { code, status, message } }), this.#sse, undefined),
    );
  }

  end(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#unfollow?.();
    this.#response.end();
  }

  #opFor(event: LogEvent): Op | undefined {
    if (this.#selection.namespace !== undefined && event.namespace !== this.#selection.namespace) return undefined;
    if (!this.#selective) return event.op;
    const { before, after } = this.#wire(event).states;
    const was = before !== undefined && matches(this.#selection.selector, before);
    const is = after !== undefined && matches(this.#selection.selector, after);
    if (is) return was ? 'MODIFIED' : 'ADDED';
    return was ? 'DELETED' : undefined;
  }
}

function frame(text: string, sse: boolean, id: number | undefined): Buffer {
  if (!sse) return Buffer.from(`${text}\n`);
  return Buffer.from(`${id === undefined ? '' : `id: ${id}\n`}data: ${text}\n\n`);
}

/** The state before an event: its object with the old values of what changed; null there means that it was absent. */
function restore(object: JsonObject, before: string | null): JsonObject {
  const former = { ...object, ...(before === null ? {} : asObject(before)) };
  return Object.fromEntries(Object.entries(former).filter(([, value]) => value !== null));
}

function asObject(json: string): JsonObject {
  const value = parseJson(json);
  return isObject(value) ? value : {};
}
