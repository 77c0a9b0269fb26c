import { readFileSync } from 'node:fs';
import http from 'node:http';
import pg from 'pg';
import { parseConnection } from '../db/index.js';
import type { Endpoint, Load, Template, Throughput } from './load.js';
import { annotations, cluster, kubeconfig, labels } from './objects.js';
import { kubernetes } from './peers.js';
import type { Measure, Program, Reference } from './program.js';
import type { Stage } from './stage.js';

/** 100 objects have the label `few`, however many there are; every third has `third`. */
const few = 'labelSelector=bench-few%3Dyes';
const third = 'labelSelector=bench-third%3Dyes';
const sizes = { small: 10_000, full: 100_000, large: 1_000_000 };
const mask = '••••••';

/**
 * Lists of 1 KB objects by one client: by a label that 100 have and by one that a third have, first page of 500, among few and
 * among many; and one long answer of all, with what it adds to the memory of the API. Objects are stored by SQL.
 */
export const lists: Program = {
  name: 'lists',
  about: 'lists by label among 10k and 1M objects; all of 100k in one answer',
  async run(stage) {
    const load = stage.load();
    const api = await stage.api();
    const client = new pg.Client(parseConnection({ DATABASE_URL: await stage.database() }));
    await client.connect();
    const own = stage.own(() => ({ stop: () => client.end() }));

    await seed(stage, client, 0, sizes.small);
    const small = await byLabel(stage, load, 'ours, 10k', api, '/v1/clusters');
    await seed(stage, client, sizes.small, sizes.full);
    const full = await whole(stage, api);
    await seed(stage, client, sizes.full, sizes.large);
    const large = await byLabel(stage, load, 'ours, 1M', api, '/v1/clusters');
    stage.windows.push(large.few, large.third);
    await own.stop();
    await api.stop();

    const few: Reference[] = [];
    const third: Reference[] = [];
    for await (const { name, endpoint, create, list } of kubernetes(stage)) {
      stage.say(`${name}: storing ${sizes.small} objects`);
      const stored = { endpoint, clients: 64, warmupSeconds: 0, seconds: 600 };
      const store = (prefix: string, requests: number, more: object) =>
        load.throughput({ ...stored, template: labelled(create, more), names: { prefix }, requests });
      await store('few-', 100, { 'bench-few': 'yes' });
      await store('third-', Math.floor(sizes.small / 3), { 'bench-third': 'yes' });
      await store('other-', sizes.small - 100 - Math.floor(sizes.small / 3), {});
      const theirs = await byLabel(stage, load, `${name}, 10k`, endpoint, list);
      few.push({ name: `${name}, 10k objects`, figure: theirs.few.waits });
      third.push({ name: `${name}, 10k objects`, figure: theirs.third.waits });
    }
    const p99 = (what: string, { waits }: Throughput, target?: number): Measure => ({
      what: `${what}, p99`,
      unit: 'ms',
      ours: { value: waits.p99 },
      ...(target === undefined ? {} : { target: { atMost: target } }),
      references: [],
    });
    return [
      { what: '100 of 10k', unit: 'ms', ours: small.few.waits, references: few },
      { what: '100 of 1M', unit: 'ms', ours: large.few.waits, references: few },
      p99('100 of 1M', large.few, 5),
      { what: 'third of 10k, 500', unit: 'ms', ours: small.third.waits, references: third },
      { what: 'third of 1M, 500', unit: 'ms', ours: large.third.waits, references: third },
      p99('third of 1M, 500', large.third, 25),
      { what: 'all of 100k', unit: 's', ours: { value: full.seconds }, references: [] },
      { what: 'all of 100k, RSS', unit: 'MB', ours: { value: full.growth }, target: { atMost: 50 }, references: [] },
    ];
  },
};

async function byLabel(
  { seconds, warmupSeconds, say }: Stage,
  load: Load,
  who: string,
  endpoint: Endpoint,
  path: string,
): Promise<{ few: Throughput; third: Throughput }> {
  const measure = (selector: string) => {
    say(`${who}: ${selector}`);
    const template: Template = { method: 'GET', path: `${path}?limit=500&${selector}` };
    return load.throughput({ endpoint, template, names: { prefix: '' }, clients: 1, warmupSeconds, seconds });
  };
  return { few: await measure(few), third: await measure(third) };
}

/** One answer with all objects: its seconds, and by how many MB the API grew meanwhile. */
async function whole(
  stage: Stage,
  { url, pid }: { url: string; pid: number },
): Promise<{ seconds: number; growth: number }> {
  const read = () =>
    new Promise<number>((resolve, reject) => {
      let bytes = 0;
      http
        .get(`${url}/v1/clusters`, response => {
          response.on('data', (chunk: Buffer) => (bytes += chunk.length));
          response.on('end', () =>
            response.complete ? resolve(bytes) : reject(new Error('half a list was answered')),
          );
          response.on('error', reject);
        })
        .on('error', reject);
    });
  stage.say('ours, 100k: all in one answer');
  const before = residentMegabytes(pid);
  let most = before;
  const sampling = setInterval(() => (most = Math.max(most, residentMegabytes(pid))), 20);
  const began = performance.now();
  try {
    const bytes = await read();
    const seconds = (performance.now() - began) / 1000;
    stage.say(`${Math.round(bytes / 1e6)} MB in ${seconds.toFixed(1)} s`);
    return { seconds, growth: Math.max(0, most - before) };
  } finally {
    clearInterval(sampling);
  }
}

function residentMegabytes(pid: number): number {
  const kilobytes = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
  return Number(kilobytes) / 1024;
}

/** Stores objects as the API would, without events: nobody asks for what was before. */
async function seed({ say }: Stage, client: pg.Client, from: number, to: number): Promise<void> {
  say(`storing objects up to ${to}`);
  const shown = {
    ...cluster,
    kubeconfig: mask,
    type: 'clusters',
    generation: 1,
    annotations: { ...annotations, pad: kubeconfig },
  };
  await client.query(
    `insert into syncsets.objects (type, namespace, name, uid, version, labels, object)
      select 'clusters', 'bench-' || i % 100, s.name, s.uid, i, s.labels, $1::jsonb || jsonb_build_object('name', s.name,
        'namespace', 'bench-' || i % 100, 'uid', s.uid, 'resourceVersion', i::text, 'labels', s.labels,
        'createdAt', '2026-01-01T00:00:00.000Z', 'updatedAt', '2026-01-01T00:00:00.000Z')
      from generate_series($3::integer + 1, $4::integer) i
      cross join lateral (select 'c-' || lpad(i::text, 8, '0') as name, gen_random_uuid() as uid, $2::jsonb
        || case when i % 100 = 1 and i <= 10000 then '{"bench-few": "yes"}' else '{}' end::jsonb
        || case when i % 3 = 0 then '{"bench-third": "yes"}' else '{}' end::jsonb as labels) s`,
    [JSON.stringify(shown), JSON.stringify(labels), from, to],
  );
  await client.query(`update syncsets.types set version = $1, log_start = $1 where type = 'clusters'`, [to]);
  await client.query('vacuum analyze public.clusters');
}

/** The same request with further labels. */
function labelled(template: Template, more: object): Template {
  const labels = JSON.stringify(more).slice(1, -1);
  const body = template.body?.replace('"labels":{', `"labels":{${labels}${labels === '' ? '' : ','}`);
  return { ...template, ...(body === undefined ? {} : { body }) };
}
