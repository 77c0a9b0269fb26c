import http from 'node:http';

/** A request as it goes over the wire: path and query already encoded, well or badly. */
export interface Wire {
  method: string;
  target: string;
  headers: Record<string, string>;
  body?: Buffer;
}

/** What came back. */
export interface Received {
  status: number;
  headers: http.IncomingHttpHeaders;
  /** The body as text; of a stream, what came at first. */
  text: string;
  /** The server had not ended it when it was left. */
  cut: boolean;
}

/** How long a stream is listened to, and a common answer waited for, in ms. */
const patience = { stream: 60, answer: 40_000 };

const agent = new http.Agent({ keepAlive: true, maxSockets: 8 });

/** Closes the connections that were kept. */
export function hangUp(): void {
  agent.destroy();
}

/** Sends a request. Streams of lines are left once they have said something and fall silent. */
export function exchange(url: string, { method, target, headers, body }: Wire): Promise<Received> {
  const { hostname, port } = new URL(url);
  const length = body === undefined ? {} : { 'content-length': String(body.length) };
  return new Promise((resolve, reject) => {
    const request = http.request({ hostname, port, method, path: target, agent, headers: { ...length, ...headers } });
    const late = setTimeout(
      () => request.destroy(new Error(`no answer to ${method} ${target} in ${patience.answer} ms`)),
      patience.answer,
    );
    request.once('error', reject);
    request.once('close', () => clearTimeout(late));
    request.once('response', response => {
      const chunks: Buffer[] = [];
      const done = (cut: boolean) => {
        resolve({
          status: response.statusCode ?? 0,
          headers: response.headers,
          text: Buffer.concat(chunks).toString('utf8'),
          cut,
        });
        if (cut) request.destroy();
      };
      const stream = /ndjson|event-stream/.test(response.headers['content-type'] ?? '');
      let silence: NodeJS.Timeout | undefined;
      response.on('data', (chunk: Buffer) => {
        chunks.push(chunk);
        clearTimeout(silence);
        if (stream) silence = setTimeout(() => done(true), patience.stream);
      });
      response.once('end', () => {
        clearTimeout(silence);
        done(false);
      });
      response.once('error', reject);
    });
    request.end(body);
  });
}
