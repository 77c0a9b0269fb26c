import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createServer, get, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { expect } from 'chai';
import express from 'express';
import { types } from '../build/types.js';
import { Tail } from '../bus/tail.js';
import { Wakeups } from '../bus/wakeups.js';
import { Database, ensureTypes, ObjectStore } from '../db/index.js';
import { createDatabase, type TestDatabase } from '../test/postgres.js';
import { until } from '../test/until.js';
import { readSelection } from './list.js';
import { Hall } from './watch-audience.js';
import { WatchStream } from './watch-stream.js';

describe('those who watch the same', () => {
  const log = () => undefined;
  let own: TestDatabase;
  let database: Database;
  let tail: Tail;
  let hall: Hall;
  let server: Server;

  before(async () => {
    own = await createDatabase();
    database = new Database({ connection: { connectionString: own.url }, log });
    await ensureTypes(database, [{ type: 'clusters', namespaced: true }]);
    tail = new Tail({ database, type: 'clusters', wakeups: new Wakeups(database, log), log });
    hall = new Hall({ database, type: 'clusters', tail });
    const type = types.find(one => one.type === 'clusters');
    if (!type) throw new Error('no clusters');
    const app = express().get('/', (_, response) => {
      void hall.audience(readSelection(type, {}), false).serve(new WatchStream(response, false)).catch(log);
    });
    server = createServer(app).listen(0, '127.0.0.1');
    await once(server, 'listening');
  });
  after(async () => {
    server.closeAllConnections();
    server.close();
    await tail.stop();
    await database.stop();
    await own.drop();
  });

  const write = async (name: string) => {
    const uid = randomUUID();
    const result = await new ObjectStore(database, { committed: log }).write('clusters', {
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
    expect(result.outcome).to.equal('ok');
  };
  /** The versions that a client gets that has seen none. */
  const watch = () => {
    const versions: string[] = [];
    get(`http://127.0.0.1:${(server.address() as AddressInfo).port}`, response =>
      response.setEncoding('utf8').on('data', (text: string) => {
        for (const [, version = ''] of text.matchAll(/^\{"type":"ADDED","resourceVersion":"(\d+)"/gm))
          versions.push(version);
      }),
    ).on('error', log);
    return versions;
  };

  it('are sent all that happened, also what came between one who read the log and one who was served from memory', async () => {
    await write('one');
    // As in a process that has just started: its tail has not looked yet.
    const early = watch();
    await until(() => early.length === 1, { what: 'the first event' });
    await write('two');
    await until(() => early.length === 2, { what: 'the second event' });
    tail.start();
    await until(() => tail.head === 2, { what: 'the tail to begin' });
    const late = watch();
    await until(() => late.length > 0, { what: 'events from memory' });
    expect(late).to.deep.equal(['1', '2']);
  });
});
