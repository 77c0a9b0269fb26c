import { get } from 'node:http';
import { expect } from 'chai';
import type { QueryResultRow } from 'pg';
import { Database } from '../db/index.js';
import { ClusterLog } from '../test/cluster-log.js';
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
  let clusters: ClusterLog;
  let late: LateDatabase;
  let watches: Watches;

  beforeEach(async () => {
    clusters = await ClusterLog.create();
    const { tail, type } = clusters;
    late = new LateDatabase({ connection: { connectionString: clusters.databaseUrl }, log });
    watches = new Watches({ database: late, tail: () => tail });
    await clusters.serve((request, response) => {
      watches
        .serve(request, response, readSelection(type, {}), Number(request.query['since']))
        .catch((error: unknown) => response.status(error instanceof ApiError ? error.status : 500).end());
    });
  });
  afterEach(() => clusters.stop(watches, late));

  /** The status, and what comes of the stream. */
  const watch = (since: number) => {
    const answer = { status: 0, body: '' };
    get(`${clusters.url}/?since=${since}`, response => {
      answer.status = response.statusCode ?? 0;
      response.setEncoding('utf8').on('data', (part: string) => (answer.body += part));
      response.on('error', log);
    }).on('error', log);
    return answer;
  };

  it('takes a version for given that was given after another client asked for the newest', async () => {
    clusters.tail.start();
    await until(() => clusters.tail.head === 0, { what: 'the tail to begin' });
    late.late = 'log-range';
    const first = watch(0);
    await until(() => late.held === 1, { what: 'the first look' });
    await clusters.write('one');
    const second = watch(1);
    // It has come when a third one, sent after it on a connection of its own, is answered; the first is answered by then too.
    await (await fetch(`${clusters.url}/none`)).text();
    late.release();
    await until(() => first.status !== 0 && second.status !== 0, { what: 'both answers' });
    expect([first.status, second.status]).to.deep.equal([200, 200]);
  });

  it('does not take the log for cut where an event came while it was read, before the tail of the process began', async () => {
    await clusters.write('one');
    late.late = 'read-events';
    const client = watch(1);
    await until(() => late.held === 1, { what: 'the look at the log' });
    await clusters.write('two');
    clusters.tail.start();
    await until(() => clusters.tail.head === 2, { what: 'the tail to begin' });
    late.release();
    await until(() => client.body.includes('\n'), { what: 'a line' });
    expect(client.body).to.match(/^\{"type":"ADDED","resourceVersion":"2"/);
  });
});
