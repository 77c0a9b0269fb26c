import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { expect } from 'chai';
import express, { type RequestHandler } from 'express';
import type { TypeDefinition } from '../api/type-definition.js';
import { types } from '../build/types.js';
import { Tail } from '../bus/tail.js';
import { Wakeups } from '../bus/wakeups.js';
import { Database, ensureTypes, ObjectStore } from '../db/index.js';
import { createDatabase, type TestDatabase } from './postgres.js';

const log = () => undefined;

/** The log of clusters in a database of its own, with a tail that the test starts, and a server for whoever watches it. */
export class ClusterLog {
  readonly #own: TestDatabase;
  readonly database: Database;
  readonly tail: Tail;
  #server: Server | undefined;

  private constructor(own: TestDatabase) {
    this.#own = own;
    this.database = new Database({ connection: { connectionString: own.url }, log });
    this.tail = new Tail({
      database: this.database,
      type: 'clusters',
      wakeups: new Wakeups(this.database, log),
      log,
    });
  }

  static async create(): Promise<ClusterLog> {
    const created = new ClusterLog(await createDatabase());
    await ensureTypes(created.database, [{ type: 'clusters', namespaced: true }]);
    return created;
  }

  /** Of the database, for a connection of another kind. */
  get databaseUrl(): string {
    return this.#own.url;
  }

  get type(): TypeDefinition {
    const type = types.find(one => one.type === 'clusters');
    if (!type) throw new Error('no clusters');
    return type;
  }

  /** Lets `handler` answer at `url`. */
  async serve(handler: RequestHandler): Promise<void> {
    this.#server = createServer(express().get('/', handler)).listen(0, '127.0.0.1');
    await once(this.#server, 'listening');
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server?.address() as AddressInfo).port}`;
  }

  /** Stores a new cluster. */
  async write(name: string): Promise<void> {
    const uid = randomUUID();
    const { outcome } = await new ObjectStore(this.database, { committed: log }).write('clusters', {
      op: 'create',
      namespace: 'a',
      name,
      uid,
      object: JSON.stringify({ name, uid }),
      labels: {},
      changed: ['spec'],
      actor: 'client',
      own: false,
    });
    expect(outcome).to.equal('ok');
  }

  /** Ends connections first, then what the test gave it to stop, then all else. */
  async stop(...others: { stop(): Promise<unknown> }[]): Promise<void> {
    this.#server?.closeAllConnections();
    this.#server?.close();
    for (const other of others) await other.stop();
    await this.tail.stop();
    await this.database.stop();
    await this.#own.drop();
  }
}
