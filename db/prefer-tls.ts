import { connect as connectPlain, isIP, type Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { connect as connectTls } from 'node:tls';

/** The PostgreSQL message SSLRequest: its length and its code (protocol documentation, "Message Formats"). */
const SSL_REQUEST = Buffer.from([0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]);

/**
 * libpq's `sslmode=prefer` as a stream for node-postgres, which by itself knows only TLS or no TLS: encrypted when the
 * server can, plain when it says that it cannot or when the handshake fails. The certificate is not checked, as in libpq:
 * this keeps out those who listen, not those who stand in between.
 *
 * Made fresh for each connection; node-postgres calls `connect` and waits for the event `connect`.
 */
export class PreferTls extends Duplex {
  #socket: Socket | undefined;

  constructor() {
    super({ allowHalfOpen: false });
  }

  connect(port: number, host: string): this {
    this.#negotiate(port, host).then(
      socket => this.#adopt(socket),
      (error: unknown) => this.destroy(error instanceof Error ? error : new Error(String(error))),
    );
    return this;
  }

  /** Nagle's delay is always off: the one caller asks for nothing else, and asks before there is a socket. */
  setNoDelay(): this {
    return this;
  }

  setKeepAlive(enable: boolean, initialDelay: number): this {
    this.#socket?.setKeepAlive(enable, initialDelay);
    return this;
  }

  ref(): this {
    this.#socket?.ref();
    return this;
  }

  unref(): this {
    this.#socket?.unref();
    return this;
  }

  override _read(): void {
    this.#socket?.resume();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    if (this.#socket) this.#socket.write(chunk, done);
    else done(new Error('written before it was connected'));
  }

  override _final(done: () => void): void {
    if (this.#socket) this.#socket.end(done);
    else done();
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#socket?.destroy();
    done(error);
  }

  async #negotiate(port: number, host: string): Promise<Socket> {
    const plain = await this.#open(port, host);
    plain.write(SSL_REQUEST);
    const answer = await firstByte(plain);
    if (answer === 'N') return plain;
    if (answer === 'S') {
      const encrypted = connectTls({
        socket: plain,
        rejectUnauthorized: false,
        // A server name must not be an IP address (RFC 6066, section 3).
        ...(isIP(host) ? {} : { servername: host }),
      });
      this.#socket = encrypted;
      const handshake = await settled(encrypted, 'secureConnect').then(
        () => true,
        () => false,
      );
      if (handshake) return encrypted;
    }
    plain.destroy();
    return this.#open(port, host);
  }

  async #open(port: number, host: string): Promise<Socket> {
    if (this.destroyed) throw new Error('closed while connecting');
    const socket = connectPlain({ port, host, noDelay: true });
    this.#socket = socket;
    await settled(socket, 'connect');
    return socket;
  }

  #adopt(socket: Socket): void {
    this.#socket = socket;
    socket.on('data', (chunk: Buffer) => {
      if (!this.push(chunk)) socket.pause();
    });
    socket.on('end', () => this.push(null));
    socket.on('error', error => this.destroy(error));
    socket.on('close', () => this.destroy());
    this.emit('connect');
  }
}

/** Waits for an event of a socket; rejects when the socket fails or closes first. */
function settled(socket: Socket, event: 'connect' | 'secureConnect' | 'readable'): Promise<void> {
  return new Promise((resolve, reject) => {
    const forget = () => {
      socket.off(event, good).off('error', bad).off('close', closed);
    };
    const good = () => {
      forget();
      resolve();
    };
    const bad = (error: Error) => {
      forget();
      reject(error);
    };
    const closed = () => bad(new Error('the server closed the connection while TLS was negotiated'));
    socket.on(event, good).on('error', bad).on('close', closed);
  });
}

/**
 * The one byte that answers SSLRequest. Anything that arrives with it was put there by someone in between, to be read as if
 * it had come encrypted (CVE-2021-23222), so it is refused.
 */
async function firstByte(socket: Socket): Promise<string> {
  for (;;) {
    const data: unknown = socket.read();
    if (Buffer.isBuffer(data)) {
      if (data.length > 1 && data[0] === 0x53) throw new Error('the server sent data before the TLS handshake');
      return data.toString('latin1', 0, 1);
    }
    await settled(socket, 'readable');
  }
}
