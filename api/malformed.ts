import { randomUUID } from 'node:crypto';
import { maxHeaderSize } from 'node:http';
import type { Duplex } from 'node:stream';
import { ApiError, type ErrorBody } from './errors.js';

/**
 * Answers what Node's parser refuses before there is a request, with a body as all errors have one; by itself Node answers a
 * bare status line. The connection ends.
 */
export function refuseMalformed(error: Error, socket: Duplex): void {
  // Node keeps the answer that is under way there. Into one that has begun nothing can be written.
  const answer: unknown = Reflect.get(socket, '_httpMessage');
  const begun = typeof answer === 'object' && answer !== null && Reflect.get(answer, 'headersSent') === true;
  if (begun || !socket.writable || codeOf(error) === 'ECONNRESET') {
    socket.destroy();
    return;
  }
  const { code, status, message } = meaningOf(codeOf(error));
  const requestId = randomUUID();
  const text = JSON.stringify({ error: { code, status, message, requestId } } satisfies ErrorBody);
  const head = [
    `HTTP/1.1 ${status} ${code}`,
    'Content-Type: application/json; charset=utf-8',
    `Content-Length: ${Buffer.byteLength(text)}`,
    `X-Request-Id: ${requestId}`,
    'Connection: close',
  ];
  // Ended and then given up: whoever sends without reading would keep the socket half open.
  const body = isHead(error) ? '' : text;
  socket.end(`${head.join('\r\n')}\r\n\r\n${body}`, () => socket.destroy());
}

function meaningOf(code: string): ApiError {
  if (code === 'HPE_HEADER_OVERFLOW')
    return new ApiError('TooLarge', `Path, query and headers are larger than the limit of ${maxHeaderSize} bytes.`);
  if (code === 'ERR_HTTP_REQUEST_TIMEOUT') return new ApiError('Timeout', 'The headers did not arrive in time.');
  return new ApiError('InvalidQuery', `The request is not well-formed HTTP (${code}).`);
}

// The parser gave up before it told the method. An answer to HEAD with a body would be taken for a second answer.
function isHead(error: Error): boolean {
  return (
    'rawPacket' in error && Buffer.isBuffer(error.rawPacket) && error.rawPacket.toString('latin1', 0, 5) === 'HEAD '
  );
}

function codeOf(error: Error): string {
  return 'code' in error && typeof error.code === 'string' ? error.code : 'unknown';
}
