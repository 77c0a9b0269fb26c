import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createServer, get, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { expect } from 'chai';
import express from 'express';
import type { QueryResultRow } from 'pg';
import { types } from '../build/types.js';
import { Tail } from '../bus/tail.js';
import { Wakeups } from '../bus/wakeups.js';
import { Database, ensureTypes, ObjectStore } from '../db/index.js';
import { createDatabase, type TestDatabase } from '../test/postgres.js';
import { until } from '../test/until.js';
import { ApiError } from './errors.js';
import { readSelection } from './list.js';
import { Watches } from './watch.js';

/** A database whose answers to one statement arrive late, as in a process that is busy or was frozen. */
class LateDatabase extends Database {
  late: string | undefined;
  held = 0;
  #release: () => void = () => undefined;

  override async query<Row extends QueryResultRow>(statement: {
    name?: string;
    text: string;
    values?: unknown[];
  }): Promise<Row[]> {
    const rows = await super.query<Row>(statement);
    if (statement.name !== undefined && statement.name === this.late) {
      this.held++;
      await new Promise<void>(resolve => (this.#release = resolve));
    }
    return rows;
  }

  release(): void {
    this.late = undefined;
    this.#release();
  }
}

describe('a watch whose look at the log takes its time', () => {
  const log = () => undefined;
  let own: TestDatabase;
  let database: Database;
  let late: LateDatabase;
  let tail: Tail;
  let watches: Watches;
  let server: Server;

  beforeEach(async () => {
    own = await createDatabase();
    const connection = { connectionString: own.url };
    database = new Database({ connection, log });
    late = new LateDatabase({ connection, log });
    await ensureTypes(database, [{ type: 'clusters', namespaced: true }]);
    tail = new Tail({ database, type: 'clusters', wakeups: new Wakeups(database, log), log });
    watches = new Watches({ database: late, tail: () => tail });
    const type = types.find(one => one.type === 'clusters');
    if (!type) throw new Error('no clusters');
    const app = express().get('/', (request, response) => {
      watches
        .serve(request, response, readSelection(type, {}), Number(request.query['since']))
        .catch((error: unknown) => response.status(error instanceof ApiError ? error.status : 500).end());
    });
    server = createServer(app).listen(0, '127.0.0.1');
    await once(server, 'listening');
  });
  afterEach(async () => {
    server.closeAllConnections();
    server.close();
    await watches.stop();
    await tail.stop();
    await late.stop();
    await database.stop();
    await own.drop();
  });

  const write = async (name: string) => {
    const uid = randomUUID();
    const { outcome } = await new ObjectStore(database, { committed: log }).write('clusters', {
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
  };
  /** The status, and what comes of the stream. */
  const watch = (since: number) => {
    const answer = { status: 0, body: '' };
    get(`http://127.0.0.1:${(server.address() as AddressInfo).port}/?since=${since}`, response => {
      answer.status = response.statusCode ?? 0;
      response.setEncoding('utf8').on('data', (part: string) => (answer.body += part));
      response.on('error', log);
    }).on('error', log);
    return answer;
  };

  it('takes a version for given that was given after another client asked for the newest', async () => {
    tail.start();
    await until(() => tail.head === 0, { what: 'the tail to begin' });
    late.late = 'log-range';
    const first = watch(0);
    await until(() => late.held === 1, { what: 'the first look' });
    await write('one');
    const second = watch(1);
    // It has come when a third one, sent after it on a connection of its own, is answered; the first is answered by then too.
    await (await fetch(`http://127.0.0.1:${(server.address() as AddressInfo).port}/none`)).text();
    late.release();
    await until(() => first.status !== 0 && second.status !== 0, { what: 'both answers' });
    expect([first.status, second.status]).to.deep.equal([200, 200]);
  });

  it('does not take the log for cut where an event came while it was read, before the tail of the process began', async () => {
    await write('one');
    late.late = 'read-events';
    const client = watch(1);
    await until(() => late.held === 1, { what: 'the look at the log' });
    await write('two');
    tail.start();
    await until(() => tail.head === 2, { what: 'the tail to begin' });
    late.release();
    await until(() => client.body.includes('\n'), { what: 'a line' });
    expect(client.body).to.match(/^\{"type":"ADDED","resourceVersion":"2"/);
  });
});
