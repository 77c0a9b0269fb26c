import type { LogEvent } from '../db/index.js';
import { isObject, parseJson, stringifyJson, type JsonObject } from './json.js';
import type { Selection } from './list.js';
import { matches } from './selectors.js';

type Op = LogEvent['op'];

/** Chunks of about this many bytes are written at once; a longer line is one chunk. */
const chunkSize = 256 * 1024;

/** A stretch of a stream in HTTP's chunked encoding, made once for all connections that get it. */
export interface Chunk {
  bytes: Buffer;
  /** Where the stream's own bytes begin; they end two bytes before the end. */
  head: number;
  /** Who has this has seen everything up to here. */
  upTo: number;
}

/** One event in its forms on the wire, each made once for all connections, and its states before and after for selectors. */
export class WireEvent {
  readonly #lines = new Map<string, Buffer>();
  #states: { before: JsonObject | undefined; after: JsonObject | undefined } | undefined;

  constructor(readonly event: LogEvent) {}

  /** What a selection sees of the event, as a line of the stream; undefined: nothing. */
  lineFor(selection: Selection, sse: boolean): Buffer | undefined {
    const op = this.#opFor(selection);
    if (!op) return undefined;
    const form = `${op}${sse}`;
    let line = this.#lines.get(form);
    if (!line) {
      line = sse ? eventStreamLine(this.#line(op), this.event.version) : this.#line(op);
      this.#lines.set(form, line);
    }
    return line;
  }

  #opFor({ namespace, selector }: Selection): Op | undefined {
    const { event } = this;
    if (namespace !== undefined && event.namespace !== namespace) return undefined;
    if (selector.labels.length === 0 && selector.fields.length === 0) return event.op;
    const { before, after } = this.#both();
    const was = before !== undefined && matches(selector, before);
    const is = after !== undefined && matches(selector, after);
    if (is) return was ? 'MODIFIED' : 'ADDED';
    return was ? 'DELETED' : undefined;
  }

  /** A DELETED for an object that left the selection shows its previous state. */
  #line(op: Op): Buffer {
    const known = this.#lines.get(`${op}false`);
    if (known) return known;
    const { version, previous, object, op: own } = this.event;
    const shown =
      op === 'DELETED' && own !== 'DELETED'
        ? stringifyJson({ ...this.#both().before, resourceVersion: String(version) })
        : object;
    const line = Buffer.from(
      `{"type":"${op}","resourceVersion":"${version}","previousResourceVersion":"${previous}","object":${shown}}\n`,
    );
    this.#lines.set(`${op}false`, line);
    return line;
  }

  #both() {
    if (!this.#states) {
      const { op, object, before } = this.event;
      const newest = asObject(object);
      const former = op === 'ADDED' ? undefined : restore(newest, before);
      this.#states = { before: former, after: op === 'DELETED' ? undefined : newest };
    }
    return this.#states;
  }
}

/** What a selection sees of some events, ready to be sent. Without any line nothing is to be sent, and the list is empty. */
export function chunksOf(events: readonly WireEvent[], selection: Selection, sse: boolean): Chunk[] {
  const chunks: Chunk[] = [];
  let lines: Buffer[] = [];
  let length = 0;
  let upTo = 0;
  const close = () => {
    if (length > 0) chunks.push(chunkOf(lines, length, upTo));
    lines = [];
    length = 0;
  };
  for (const wire of events) {
    const line = wire.lineFor(selection, sse);
    if (line) {
      if (length > 0 && length + line.length > chunkSize) close();
      lines.push(line);
      length += line.length;
    }
    upTo = wire.event.version;
  }
  close();
  const last = chunks.at(-1);
  // What the selection does not see has been seen too.
  if (last) last.upTo = upTo;
  return chunks;
}

/** A line of our own, as both kinds of stream have it. `id`: what a client that lost the stream resumes after. */
export function plainChunk(text: string, sse: boolean, upTo: number, id?: number): Chunk {
  const line = Buffer.from(`${text}\n`);
  const framed = sse ? eventStreamLine(line, id) : line;
  return chunkOf([framed], framed.length, upTo);
}

function chunkOf(lines: Buffer[], length: number, upTo: number): Chunk {
  const head = Buffer.from(`${length.toString(16)}\r\n`, 'latin1');
  return { bytes: Buffer.concat([head, ...lines, crlf]), head: head.length, upTo };
}

const crlf = Buffer.from('\r\n', 'latin1');
const newline = Buffer.from('\n', 'latin1');

function eventStreamLine(line: Buffer, id: number | undefined): Buffer {
  const head = Buffer.from(`${id === undefined ? '' : `id: ${id}\n`}data: `, 'latin1');
  return Buffer.concat([head, line, newline]);
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
