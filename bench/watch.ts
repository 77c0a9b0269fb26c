import type { Endpoint, Template } from './load.js';
import { createCluster } from './objects.js';
import { kubernetes } from './peers.js';
import type { Program, Reference } from './program.js';

const rate = 200;
/** For the watcher on another replica. */
const highRate = 1_000;

/**
 * From a commit to a watcher over HTTP, while one writer creates 200 objects a second. A commit cannot be timed from outside. It lies
 * between the moment before the POST is sent and its answer, so both are measured; the target is held against the longer
 * time, which has the whole request in it. Then 1,000 objects a second, and the watcher on another replica.
 */
export const watch: Program = {
  name: 'watch',
  about: 'from a write to the watcher that hears of it, 200 writes a second',
  async run(stage) {
    const load = stage.load();
    const measure = async (name: string, endpoint: Endpoint, template: Template, watch: string) => {
      stage.say(name);
      const { warmupSeconds, seconds } = stage;
      const job = { endpoint, template, watch, rate, warmupSeconds, seconds, prefix: 'watched-' };
      const { fromSent, fromAnswer } = await load.pace(job);
      if (!fromSent || !fromAnswer) throw new Error('the watcher was not measured');
      return { fromSent, fromAnswer };
    };
    const api = await stage.api();
    const ours = await measure('ours', api, createCluster, '/v1/clusters?watch=true');
    stage.say('ours, a watcher on another replica');
    const other = await stage.api();
    const { warmupSeconds, seconds } = stage;
    const far = await load.pace({
      endpoint: api,
      template: createCluster,
      watch: '/v1/clusters?watch=true',
      watchAt: other,
      rate: highRate,
      warmupSeconds,
      seconds,
      prefix: 'far-',
    });
    if (!far.fromSent || !far.fromAnswer) throw new Error('the watcher was not measured');
    await other.stop();
    await api.stop();
    stage.say('NOTIFY through Postgres');
    const notified = await load.notify({ databaseUrl: await stage.database(), rate, seconds: stage.seconds });

    const sent: Reference[] = [{ name: 'NOTIFY to LISTEN, no write', figure: notified }];
    const answered: Reference[] = [];
    for await (const { name, endpoint, create, watch } of kubernetes(stage)) {
      const { fromSent, fromAnswer } = await measure(name, endpoint, create, watch);
      sent.push({ name, figure: fromSent });
      answered.push({ name, figure: fromAnswer });
    }
    return [
      { what: 'POST sent to event', unit: 'ms', ours: ours.fromSent, target: { atMost: 3 }, references: sent },
      { what: `POST sent to event elsewhere, ${highRate}/s`, unit: 'ms', ours: far.fromSent, references: [] },
      {
        what: `POST answered to event elsewhere, ${highRate}/s`,
        unit: 'ms',
        ours: far.fromAnswer,
        target: { atMost: 2 },
        references: [],
      },
      { what: 'POST answered to event', unit: 'ms', ours: ours.fromAnswer, references: answered },
    ];
  },
};
