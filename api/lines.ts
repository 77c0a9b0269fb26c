import { isUtf8 } from 'node:buffer';
import type { Readable } from 'node:stream';
import { ApiError } from './errors.js';

/** A line of a body, or why it cannot be read. */
export interface Line {
  /** Counted from 0, empty lines left out. */
  index: number;
  text: string | ApiError;
}

const maxLineBytes = 3 * 2 ** 20;
const newline = 10;

/** Reads a stream line by line, in groups, and no faster than they are taken. */
export class Lines {
  readonly #chunks: AsyncIterator<Buffer>;
  #ready: Line[] = [];
  #readyBytes = 0;
  #partial: Buffer[] = [];
  #partialBytes = 0;
  #count = 0;
  #ended = false;
  #coming: Promise<IteratorResult<Buffer>> | undefined;

  constructor(stream: Readable) {
    this.#chunks = (stream as AsyncIterable<Buffer>)[Symbol.asyncIterator]();
  }

  /**
   * The next lines: what has arrived when `wanted` is fulfilled, at least one, at most so many and about so many bytes; undefined
   * at the end. Throws InvalidJson when the body breaks off, and what `wanted` is rejected with.
   *
   * @param wanted somebody has time for the lines. Until then they gather: a read brings 64 KB, which is 60 lines of 1 KB, and
   * hundreds in a statement cost less each.
   */
  async take(count: number, bytes: number, wanted: Promise<void>): Promise<Line[] | undefined> {
    while (!this.#ended && this.#ready.length < count && this.#readyBytes < bytes) {
      this.#coming ??= this.#next();
      // What is there goes at once; a stream that has more to give gives it within a turn of the loop.
      const next =
        this.#ready.length === 0 ? await this.#coming : await Promise.race([this.#coming, wanted.then(turn)]);
      if (next === undefined) break;
      this.#coming = undefined;
      if (next.done === true) this.#end();
      else this.#split(next.value);
    }
    const taken = this.#ready.splice(0, count);
    this.#readyBytes = this.#ready.reduce((sum, { text }) => sum + sizeOf(text), 0);
    return taken.length > 0 ? taken : undefined;
  }

  async #next(): Promise<IteratorResult<Buffer>> {
    try {
      return await this.#chunks.next();
    } catch {
      throw new ApiError('InvalidJson', 'The body could not be read; it ended early or its encoding is broken.');
    }
  }

  #split(chunk: Buffer): void {
    let from = 0;
    for (let at = chunk.indexOf(newline); at >= 0; at = chunk.indexOf(newline, from)) {
      this.#add(chunk.subarray(from, at));
      this.#finish();
      from = at + 1;
    }
    this.#add(chunk.subarray(from));
  }

  // What is beyond the limit is counted, not kept.
  #add(part: Buffer): void {
    this.#partialBytes += part.length;
    if (this.#partialBytes <= maxLineBytes) this.#partial.push(part);
    else this.#partial = [];
  }

  #finish(): void {
    const size = this.#partialBytes;
    const [first = Buffer.alloc(0), ...more] = this.#partial;
    const bytes = more.length === 0 ? first : Buffer.concat(this.#partial);
    this.#partial = [];
    this.#partialBytes = 0;
    if (size > maxLineBytes) {
      this.#push(new ApiError('TooLarge', `The line has ${size} bytes, the limit is ${maxLineBytes}.`));
    } else if (!isUtf8(bytes)) {
      this.#push(new ApiError('InvalidJson', 'The line is not UTF-8.'));
    } else {
      const text = bytes.toString('utf8');
      if (text.trim() !== '') this.#push(text);
    }
  }

  #push(text: string | ApiError): void {
    this.#ready.push({ index: this.#count++, text });
    this.#readyBytes += sizeOf(text);
  }

  #end(): void {
    this.#finish();
    this.#ended = true;
  }
}

function sizeOf(text: string | ApiError): number {
  return typeof text === 'string' ? text.length : 0;
}

function turn(): Promise<undefined> {
  return new Promise(resolve => setImmediate(() => resolve(undefined)));
}
