import { percentiles } from './clock.js';
import { createCluster } from './objects.js';
import type { Measure, Program, Reference } from './program.js';
import { queues } from './reference/queues.js';
import { ReconcileProcess } from './runtime.js';
import type { Stage } from './stage.js';

const rate = 500;
/**
 * Seconds at the rate that are not measured, for the queues beside it as well: an API process is as fast as it gets after some ten
 * thousand requests, when V8 has compiled what they run. The same process told 12 ms in its first 8 s and 6.6 to 7.8 ms from then on.
 */
const warmUp = 20;

/**
 * From a write to the reconcile that it wakes, at 500 writes a second, on both transports. A commit cannot be timed from outside: it
 * lies between the moment before the POST is sent and its answer, so both are measured. The queues beside it are told by their
 * own call, without any object.
 */
export const reaction: Program = {
  name: 'reaction',
  about: `from a write to its reconcile, ${rate} writes a second, on both transports`,
  async run(stage) {
    const { seconds } = stage;
    const references: Reference[] = [];
    for (const queue of queues) {
      stage.say(queue.name);
      references.push({
        name: queue.name,
        figure: await queue.react(await stage.database(), { rate, warmupSeconds: warmUp, seconds }),
      });
    }
    return [
      ...(await measure(stage, 'Postgres', undefined, references)),
      ...(await measure(stage, 'RabbitMQ', await stage.broker(), references)),
    ];
  },
};

async function measure(
  stage: Stage,
  transport: string,
  amqpUrl: string | undefined,
  references: Reference[],
): Promise<Measure[]> {
  stage.say(`ours, ${transport}`);
  const api = await stage.api(amqpUrl);
  const name = `reaction-${transport.toLowerCase()}`;
  const worker = await ReconcileProcess.start(stage, { name, url: api.url, amqpUrl, concurrency: 64, waits: 0 });
  const paced = {
    endpoint: api,
    template: createCluster,
    rate,
    prefix: `${name}-`,
    warmupSeconds: warmUp,
    seconds: stage.seconds,
  };
  const { times } = await stage.load().pace(paced);
  // Those of the other transport left objects behind, which this one heard of when it came.
  const began = new Map<string, number>();
  for (;;) {
    for (const [key, at] of await worker.take()) if (!began.has(key)) began.set(key, at);
    if (times.every(({ name: key }) => began.has(key))) break;
    await new Promise(resolve => setTimeout(resolve, 10));
  }
  await worker.stop();
  // Else each write of the next transport is queued for this one as well, for nobody.
  await stage.client(api).controllers.remove(name);
  await api.stop();
  const since = (begun: 'sent' | 'answered') =>
    percentiles(times.map(({ name: key, ...time }) => (began.get(key) ?? NaN) - time[begun]));
  const fromSent = since('sent');
  return [
    {
      what: `${transport}: answered to reconcile`,
      unit: 'ms',
      ours: since('answered'),
      target: { atMost: 3 },
      references: [],
    },
    { what: `${transport}: sent to reconcile`, unit: 'ms', ours: fromSent, references },
    {
      what: `${transport}: sent to reconcile, p99`,
      unit: 'ms',
      ours: { value: fromSent.p99 },
      target: { atMost: 20 },
      references: [],
    },
  ];
}
