import { request } from 'node:http';
import { now } from './clock.js';
import { cluster } from './objects.js';
import type { Program } from './program.js';

/** So many objects for each second that a measurement may take: a million take about a minute. */
const perSecond = 20_000;

/** One request with one operation a line, as long as the measurement may take; the last fifth beside the first shows whether it slows down. */
export const bulk: Program = {
  name: 'bulk',
  about: 'POST /v1/batch as a stream of creates of 1 KB objects',
  async run(stage) {
    const api = await stage.api();
    const count = perSecond * stage.seconds;
    stage.say(`${count} objects in one stream`);
    const begun = now();
    const marks = await stream(api.url, count);
    const ended = now();
    stage.windows.push({ from: begun, to: ended });
    await api.stop();
    stage.say('insert by pg, 64 at once');
    const databaseUrl = await stage.database();
    const { warmupSeconds, seconds } = stage;
    const body = JSON.stringify(cluster);
    const plain = await stage.load().insert({ databaseUrl, body, inFlight: 64, warmupSeconds, seconds });
    const references = [{ name: 'insert by pg, one each', figure: { value: plain.rate } }];
    const rate = (from: number, to: number) => {
      const took = (marks[to] ?? NaN) - (marks[from] ?? NaN);
      return (((to - from) * count) / 5 / took) * 1_000;
    };
    return [
      {
        what: 'objects',
        unit: '1/s',
        ours: { value: (count * 1_000) / (ended - begun) },
        target: { atLeast: 20_000 },
        references,
      },
      {
        what: 'objects, last fifth',
        unit: '1/s',
        ours: { value: rate(4, 5) },
        references: [{ name: 'ours, second fifth', figure: { value: rate(1, 2) } }],
      },
    ];
  },
};

/** Sends creates as fast as they are taken; returns when each fifth of the results was there. */
async function stream(url: string, count: number): Promise<number[]> {
  const [before = '', after = ''] = JSON.stringify({ op: 'create', type: 'clusters', object: cluster }).split('{name}');
  const marks = [now()];
  const sending = request(new URL('/v1/batch', url), {
    method: 'POST',
    headers: { 'Content-Type': 'application/x-ndjson' },
  });
  const answered = new Promise<void>((resolve, reject) => {
    sending.once('error', reject).once('response', response => {
      let heard = 0;
      response.on('data', (chunk: Buffer) => {
        for (let at = chunk.indexOf(10); at >= 0; at = chunk.indexOf(10, at + 1)) {
          if (++heard % (count / 5) === 0) marks.push(now());
        }
      });
      response.once('end', () => {
        if (heard === count) resolve();
        else reject(new Error(`${heard} of ${count} operations were answered`));
      });
      response.once('error', reject);
    });
  });
  for (let i = 0; i < count; i += 100) {
    const lines = Array.from({ length: 100 }, (_, j) => `${before}bulk-${i + j}${after}\n`).join('');
    if (!sending.write(lines)) await new Promise(resolve => sending.once('drain', resolve));
  }
  sending.end();
  await answered;
  return marks;
}
