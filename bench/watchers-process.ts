import { once } from 'node:events';
import net from 'node:net';
import { now } from './clock.js';
import { Connections } from './connections.js';
import type { Endpoint, Template } from './load.js';
import { serveJobs } from './processes.js';
import type { Delivered, WatchersJob } from './watchers.js';

// Many connections that each get every event, and whoever makes the events.

/** A connection that counts the lines of its answer and reads nothing of them, so that the server is what is measured. */
class Listener {
  lines = 0;
  bytes = 0;
  readonly #socket: net.Socket;
  #isBrace = false;

  constructor(socket: net.Socket) {
    this.#socket = socket;
    socket.on('data', chunk => this.#count(chunk));
  }

  static async open({ url }: Endpoint, path: string): Promise<Listener> {
    const { hostname, port, host } = new URL(url);
    const socket = net.connect({ host: hostname, port: Number(port) });
    socket.on('error', () => undefined);
    await once(socket, 'connect');
    socket.write(`GET ${path} HTTP/1.1\r\nhost: ${host}\r\naccept: application/json\r\n\r\n`);
    await once(socket, 'data');
    return new Listener(socket);
  }

  get isOpen(): boolean {
    return !this.#socket.destroyed;
  }

  close(): void {
    this.#socket.destroy();
  }

  /** Lines of JSON end with `}\n`; the framing of chunks has no brace before its line ends. */
  #count(chunk: Buffer): void {
    this.bytes += chunk.length;
    if (this.#isBrace && chunk[0] === 10) this.lines++;
    this.#isBrace = chunk.at(-1) === 125;
    for (let at = chunk.indexOf('}\n'); at >= 0; at = chunk.indexOf('}\n', at + 2)) this.lines++;
  }
}

const listeners: Listener[] = [];
let endpoint: Endpoint;

serveJobs(async (job: WatchersJob): Promise<unknown> => {
  if (job.kind === 'run') return run(job);
  endpoint = job.endpoint;
  // Sixteen at a time: a queue of ten thousand would overflow the listening socket.
  const open = async () => {
    while (listeners.length < job.count) {
      const place = listeners.length;
      listeners.length = place + 1;
      listeners[place] = await Listener.open(endpoint, job.path);
    }
  };
  await Promise.all(Array.from({ length: 16 }, open));
  return undefined;
});

async function run(job: Extract<WatchersJob, { kind: 'run' }>): Promise<Delivered> {
  const { template, eventsEach, inFlight, warmupSeconds, seconds } = job;
  const connections = new Connections(endpoint, inFlight);
  const first = listeners.map(({ lines }) => lines);
  const slowest = () => Math.min(...listeners.map(({ lines }, i) => lines - (first[i] ?? 0)));
  const total = () => listeners.reduce((sum, { lines }) => sum + lines, 0);
  const bytes = () => listeners.reduce((sum, one) => sum + one.bytes, 0);
  const from = now() + warmupSeconds * 1_000;
  const to = from + seconds * 1_000;
  let sent = 0;
  let begun: { at: number; lines: number; bytes: number } | undefined;
  try {
    while (now() < to) {
      if (!begun && now() >= from) begun = { at: now(), lines: total(), bytes: bytes() };
      // The next ones go when half of the last ones have reached everybody.
      const answers: Promise<void>[] = [];
      for (let i = 0; i < inFlight / 2; i += eventsEach) {
        answers.push(connections.send(named(template, sent)));
        sent += eventsEach;
      }
      await Promise.all(answers);
      for (const late = now() + 20_000; sent - slowest() > inFlight / 2;) {
        if (now() > late) {
          const open = listeners.filter(({ isOpen }) => isOpen).length;
          throw new Error(`of ${sent} events the slowest of ${open} open connections has ${slowest()}`);
        }
        await new Promise(resolve => setImmediate(resolve));
      }
    }
    if (!begun) throw new Error('nothing was measured');
    const lines = total() - begun.lines;
    return {
      rate: (lines * 1_000) / (now() - begun.at),
      lineBytes: Math.round((bytes() - begun.bytes) / lines),
    };
  } finally {
    connections.close();
    for (const one of listeners) one.close();
  }
}

function named({ method, path, body }: Template, number: number): Template {
  const name = `fan-${String(number).padStart(8, '0')}`;
  return { method, path, ...(body !== undefined && { body: body.replace('{name}', name) }) };
}
