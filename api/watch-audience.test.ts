import { get } from 'node:http';
import { expect } from 'chai';
import { ClusterLog } from '../test/cluster-log.js';
import { until } from '../test/until.js';
import { readSelection } from './list.js';
import { Hall } from './watch-audience.js';
import { WatchStream } from './watch-stream.js';

describe('those who watch the same', () => {
  const log = () => undefined;
  let clusters: ClusterLog;

  before(async () => {
    clusters = await ClusterLog.create();
    const { database, tail, type } = clusters;
    const hall = new Hall({ database, type: 'clusters', tail });
    await clusters.serve((_, response) => {
      void hall.audience(readSelection(type, {}), false).serve(new WatchStream(response, false)).catch(log);
    });
  });
  after(() => clusters.stop());

  /** The versions that a client gets that has seen none. */
  const watch = () => {
    const versions: string[] = [];
    get(clusters.url, response =>
      response.setEncoding('utf8').on('data', (text: string) => {
        for (const [, version = ''] of text.matchAll(/^\{"type":"ADDED","resourceVersion":"(\d+)"/gm))
          versions.push(version);
      }),
    ).on('error', log);
    return versions;
  };

  it('are sent all that happened, also what came between one who read the log and one who was served from memory', async () => {
    await clusters.write('one');
    // As in a process that has just started: its tail has not looked yet.
    const early = watch();
    await until(() => early.length === 1, { what: 'the first event' });
    await clusters.write('two');
    await until(() => early.length === 2, { what: 'the second event' });
    clusters.tail.start();
    await until(() => clusters.tail.head === 2, { what: 'the tail to begin' });
    const late = watch();
    await until(() => late.length > 0, { what: 'events from memory' });
    expect(late).to.deep.equal(['1', '2']);
  });
});
