import type { IncomingMessage } from 'node:http';
import { ConnectionError, interrupted } from './errors.js';

/**
 * The lines of a body that goes on. One that is silent for `longestSilence` milliseconds is destroyed; the time that the
 * consumer takes does not count.
 * @throws ConnectionError when the connection ends in the middle, or is silent
 */
export async function* linesOf(body: IncomingMessage, longestSilence: number): AsyncGenerator<string, void, undefined> {
  body.setEncoding('utf8');
  const chunks = body[Symbol.asyncIterator]() as AsyncIterator<string>;
  // A long line comes in many chunks; joined once, they cost linear time.
  let parts: string[] = [];
  try {
    for (;;) {
      const timer = setTimeout(() => {
        body.destroy(new ConnectionError('Silent', true, `The server was silent for ${longestSilence / 1000} s`));
      }, longestSilence);
      const chunk = await chunks.next().finally(() => clearTimeout(timer));
      if (chunk.done === true) return;
      let start = 0;
      for (let end = chunk.value.indexOf('\n'); end >= 0; end = chunk.value.indexOf('\n', start)) {
        parts.push(chunk.value.slice(start, end));
        const line = parts.join('');
        parts = [];
        start = end + 1;
        if (line !== '') yield line;
      }
      if (start < chunk.value.length) parts.push(chunk.value.slice(start));
    }
  } catch (error) {
    throw interrupted(error);
  } finally {
    body.destroy();
  }
}
