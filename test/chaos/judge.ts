import { connect, type Client } from '../../client/index.js';
import { until } from '../until.js';
import type { Follower } from './follower.js';
import { readJournals, type Entry } from './journal.js';
import { types } from './scale.js';
import type { Violations } from './violations.js';
import { selector } from './watchers.js';
import type { Answered } from './writers.js';

/** The objects that the database has, by type and `namespace/name`: version and serial number. */
type Stored = Map<string, Map<string, { version: number; serial: string; selected: boolean }>>;

export interface Evidence {
  url: string;
  /** Those that follow a selection have `selective`. */
  followers: { follower: Follower; selective: boolean }[];
  answered: readonly Answered[];
  journals: string;
  /** Milliseconds that everybody has to come to the end. */
  settle: number;
}

/** What workers did, in numbers. */
export interface Runs {
  runs: number;
  /** Of these the worker held the claim for certain when they began. */
  certain: number;
  /** Took up to a later look at its claim. */
  watched: number;
  /** Statuses that were accepted and changed something. */
  wrote: number;
}

/** Judges what is left when nobody writes and nothing is broken any more; reports every violation. */
export async function judge(evidence: Evidence, violations: Violations): Promise<Runs> {
  const client = connect({ url: evidence.url, retrySeconds: 60 });
  try {
    const deadline = performance.now() + evidence.settle;
    const left = () => Math.max(1_000, deadline - performance.now());
    await idle(client, left()).catch((error: unknown) => violations.report('work left', String(error)));
    const stored = await read(client);
    for (const { follower, selective } of evidence.followers) {
      await until(() => differences(follower, stored, selective, 1).length === 0, {
        what: `${follower.name} to have the state of the database`,
        deadline: left(),
      }).catch(() => {
        for (const { what, ...place } of differences(follower, stored, selective, 20))
          violations.report('wrong state', `${follower.name} ${what}`, place);
      });
    }
    const [first] = evidence.followers;
    if (first) judgeAnswers(first.follower, evidence.answered, violations);
    return await judgeRuns(evidence, first?.follower, stored, violations);
  } finally {
    await client.close();
  }
}

/** Waits until no controller has anything to do. */
async function idle(client: Client, deadline: number): Promise<void> {
  for (const type of types) {
    await until(
      async () => {
        const { queued, claimed, waiting } = await client.controllers.read(`chaos-${type}`);
        return queued === 0 && claimed === 0 && waiting === 0
          ? true
          : Promise.reject(new Error(`${queued} queued, ${claimed} claimed, ${waiting} waiting`));
      },
      { what: `the work of chaos-${type} to be done`, deadline },
    );
  }
}

/** All objects by GET, and which of them the selector takes, by GET with it. */
async function read(client: Client): Promise<Stored> {
  const stored: Stored = new Map();
  for (const type of types) {
    const objects = new Map<string, { version: number; serial: string; selected: boolean }>();
    for await (const { namespace = '', name, resourceVersion, labels } of client.collection(type).all())
      objects.set(`${namespace}/${name}`, {
        version: Number(resourceVersion),
        serial: labels?.serial ?? '',
        selected: false,
      });
    for await (const { namespace = '', name } of client.collection(type).all({ labelSelector: selector })) {
      const object = objects.get(`${namespace}/${name}`);
      if (object) object.selected = true;
    }
    stored.set(type, objects);
  }
  return stored;
}

function differences(
  follower: Follower,
  stored: Stored,
  selective: boolean,
  most: number,
): { what: string; key: string; version?: number }[] {
  const found: { what: string; key: string; version?: number }[] = [];
  for (const [type, objects] of stored) {
    const state = follower.state.get(type) ?? new Map<string, number>();
    for (const [name, { version, selected }] of objects) {
      if (found.length >= most) return found;
      if (selective && !selected) continue;
      const has = state.get(name);
      if (has !== version) found.push({ what: `has ${has ?? 'nothing'}`, key: `${type}/${name}`, version });
    }
    for (const [name, version] of state) {
      if (found.length >= most) return found;
      const object = objects.get(name);
      if (!object || (selective && !object.selected))
        found.push({ what: `has ${version} of what is gone`, key: `${type}/${name}` });
    }
  }
  return found;
}

/** Every answered write is in the log, under its version. */
function judgeAnswers(follower: Follower, answered: readonly Answered[], violations: Violations): void {
  for (const { type, name, version } of answered) {
    const logged = follower.versions.get(type)?.get(version);
    if (logged !== name) {
      const what = `an answered write is not in the log; its version is of ${logged ?? 'nothing'}`;
      violations.report('lost', what, { key: `${type}/${name}`, version });
    }
  }
}

/** A run of a reconcile as its worker told it. */
interface Run {
  worker: string;
  begin: number;
  serial: string;
  /** Held the claim for certain when it began. */
  certain: boolean;
  /** When the worker last knew for certain that it held the claim. */
  held: number;
  /** When a status was sent that was accepted. */
  wrote: number[];
  /** The versions that they were answered with. */
  versions: number[];
  ended: boolean;
}

async function judgeRuns(
  { journals, answered }: Evidence,
  follower: Follower | undefined,
  stored: Stored,
  violations: Violations,
): Promise<Runs> {
  const byKey = new Map<string, Run[]>();
  const open = new Map<string, Run>();
  for await (const entry of readJournals(journals)) addEntry(entry, byKey, open);
  const counts: Runs = { runs: 0, certain: 0, watched: 0, wrote: 0 };
  const written = new Set<number>();
  for (const [key, runs] of byKey) {
    runs.sort((a, b) => a.begin - b.begin);
    for (const run of runs) {
      counts.runs++;
      if (run.certain) counts.certain++;
      if (run.held > run.begin) counts.watched++;
      for (const version of run.versions) written.add(version);
      if (follower) judgeStatuses(follower, key, run, violations);
    }
    judgeClaims(
      key,
      runs.filter(run => run.certain),
      violations,
    );
  }
  // A status that changed nothing was answered with the version that the object had, and that may be its writer's.
  for (const { type, version } of answered) if (type === 'clusters') written.delete(version);
  counts.wrote = written.size;
  for (const type of types) {
    const names = new Set([...(follower?.versions.get(type)?.values() ?? []), ...(stored.get(type)?.keys() ?? [])]);
    for (const name of names) {
      // A run that a frozen worker ends late, without a claim that it knows of, may have seen something older.
      const key = `${type}/${name}`;
      const serial = stored.get(type)?.get(name)?.serial ?? 'gone';
      const last = byKey.get(key)?.findLast(run => run.ended && (run.certain || run.serial === serial));
      if (last?.serial === serial) continue;
      tell(key, byKey.get(key) ?? [], violations);
      violations.report('stale', `the last reconcile saw ${last?.serial ?? 'nothing'}, the last version is ${serial}`, {
        key,
      });
    }
  }
  return counts;
}

/** Every status that a worker wrote is in the log, under its version. */
function judgeStatuses(follower: Follower, key: string, { worker, versions }: Run, violations: Violations): void {
  for (const version of versions) {
    const logged = follower.versions.get('clusters')?.get(version);
    if (logged === key.slice('clusters/'.length)) continue;
    const what = `a status that ${worker} wrote is not in the log; its version is of ${logged ?? 'nothing'}`;
    violations.report('lost', what, { key, version });
  }
}

function addEntry(entry: Entry, byKey: Map<string, Run[]>, open: Map<string, Run>): void {
  const { at, what, worker, key, certain } = entry;
  const id = `${worker} ${entry.run}`;
  if (what === 'begin') {
    const run: Run = {
      worker,
      begin: at,
      serial: entry.serial ?? '',
      certain,
      held: at,
      wrote: [],
      versions: [],
      ended: false,
    };
    open.set(id, run);
    const runs = byKey.get(key);
    if (runs) runs.push(run);
    else byKey.set(key, [run]);
    return;
  }
  const run = open.get(id);
  if (!run) return;
  if (what === 'wrote') run.wrote.push(at);
  if (entry.version !== undefined) run.versions.push(entry.version);
  if (what !== 'wrote' && certain) run.held = at;
  if (what === 'end') run.ended = true;
  if (what === 'end' || what === 'failed') open.delete(id);
}

/**
 * No two workers hold a key at once: between two moments at which a worker knew that it holds the claim nobody else begins with
 * a claim. And a write that was sent after another's claim began is never accepted. Between its last look and its end a run may
 * lose its claim (that is what fencing is for), so that time proves nothing.
 */
function judgeClaims(key: string, runs: readonly Run[], violations: Violations): void {
  for (const [i, run] of runs.entries()) {
    const next = runs[i + 1];
    if (!next) return;
    const late = run.wrote.find(at => at > next.begin);
    if (next.begin >= run.held && late === undefined) continue;
    tell(key, runs.slice(Math.max(0, i - 2), i + 3), violations);
    if (next.begin < run.held) {
      const what = `${run.worker} held the claim until ${violations.time(run.held)}, ${next.worker} began at ${violations.time(next.begin)}`;
      violations.report('overlap', what, { key });
    }
    if (late !== undefined) {
      const what = `${run.worker} wrote at ${violations.time(late)}, ${next.worker} had begun at ${violations.time(next.begin)}`;
      violations.report('late write', what, { key });
    }
  }
}

/** Puts runs into a key's history. */
function tell(key: string, runs: readonly Run[], violations: Violations): void {
  for (const { worker, begin, held, serial, certain, ended, wrote } of runs.slice(-8)) {
    const facts = [`saw ${serial}`, certain ? 'certain' : 'uncertain', ended ? 'ended' : 'not ended'];
    if (wrote.length > 0) facts.push(`wrote at ${wrote.map(at => violations.time(at).trim()).join(', ')}`);
    violations.note(
      key,
      `run of ${worker} ${violations.time(begin).trim()} to ${violations.time(held).trim()}: ${facts.join(', ')}`,
    );
  }
}
