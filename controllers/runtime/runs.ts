import { pause, type KeyClaim, type Resource, type WorkKey, type WorkResult } from '../../client/index.js';
import { TerminalError, type Controller, type Result } from './controller.js';
import { secondsOf } from './duration.js';
import { reconcile } from './finalizer.js';
import { messageOf } from './message.js';
import type { WorkerMetrics } from './metrics.js';
import { Room } from './room.js';
import { Run, type RunSurroundings } from './run.js';
import { beginSpan, type OpenSpan } from '../../tracing/index.js';
import { marked } from './uncaught.js';

/** Milliseconds between two looks at deadlines and the lease: one timer for all runs, not one for each. */
const sweepInterval = 250;
/** Milliseconds after which a key that was claimed ahead and has not begun is left to others: the runs before it are slower now. */
const longestAhead = 500;
/** Milliseconds in which a renewal must confirm what began after the end of a lease: its claim has begun another one. */
const unconfirmed = 1000;
/** Milliseconds that aborted runs get to end at a shutdown. */
const graceTime = 1000;

/** `slots`, `limit` and `ahead`: see `Room`. */
export interface RunsOptions<T extends Resource> {
  controller: Controller<T>;
  slots: number;
  surroundings: RunSurroundings;
  metrics: WorkerMetrics;
  report: (result: WorkResult) => void;
  limit?: () => number;
  ahead: boolean;
}

/** The keys that a worker works on at present, at most `slots` at a time. */
export class Runs<T extends Resource> {
  readonly #controller: Controller<T>;
  readonly #slots: number;
  /** Milliseconds; Infinity for long runs. */
  readonly #deadline: number;
  readonly #surroundings: RunSurroundings;
  readonly #metrics: WorkerMetrics;
  readonly #report: (result: WorkResult) => void;
  /** For keys, in slots and before them. */
  readonly room: Room;
  /** Over their deadline and not at an end: nothing can end a run that does not listen to its signal. */
  readonly #hung = new Set<Run>();
  /** By key, so that one process never runs an object twice at once either. */
  readonly #running = new Map<string, Run>();
  /** By token: claims that wait for a slot, or for the end of a run of the same object that lost its claim. */
  readonly #backlog = new Map<string, { claim: KeyClaim; since: number }>();
  #sweeper: NodeJS.Timeout | undefined;
  #onIdle: () => void = () => undefined;

  constructor({ controller, slots, surroundings, metrics, report, limit, ahead }: RunsOptions<T>) {
    this.#controller = controller;
    this.#slots = slots;
    this.#deadline = controller.longRunning ? Infinity : secondsOf(controller.deadline ?? '5m', 'deadline') * 1000;
    this.#surroundings = surroundings;
    this.#metrics = metrics;
    this.#report = report;
    this.room = new Room({ slots, limit, ahead, held: () => this.#running.size + this.#backlog.size });
  }

  get active(): number {
    return this.#running.size;
  }

  /** Runs over their deadline that have not ended: they hold no slot and no claim, but memory and whatever else they took. */
  get hung(): number {
    return this.#hung.size;
  }

  tokens(): string[] {
    return [...Array.from(this.#running.values(), run => run.token), ...this.#backlog.keys()];
  }

  /** Seconds of all runs together, and of the longest. */
  unfinished(): { total: number; longest: number } {
    const now = performance.now();
    const seconds = [...this.#running.values()].map(run => (now - run.startedAt) / 1000);
    return { total: seconds.reduce((sum, one) => sum + one, 0), longest: Math.max(0, ...seconds) };
  }

  start(): void {
    this.#sweeper ??= setInterval(() => this.#sweep(), sweepInterval);
  }

  /** Runs a claimed key, now or when a slot is free. */
  begin(claim: KeyClaim): void {
    this.#metrics.added();
    const key = keyOf(claim);
    const former = this.#running.get(key);
    // Whoever claims what is claimed already has it because the former claim is over.
    former?.lose();
    if (former || this.#running.size >= this.#slots) {
      this.#backlog.set(claim.token, { claim, since: performance.now() });
      return;
    }
    const run = new Run(claim, this.#surroundings);
    this.#running.set(key, run);
    void this.#execute(key, run);
  }

  /** These claims are no longer held: their runs are aborted and their results not reported. */
  lose(tokens: string[]): void {
    const runs = this.#find(tokens).filter(run => !run.lost);
    for (const run of runs) run.lose();
    const count = runs.length + tokens.filter(token => this.#backlog.delete(token)).length;
    if (count === 0) return;
    this.#metrics.lost(count);
    this.#surroundings.log.warn({ count }, 'claims were lost; others work on these keys');
  }

  /** Gives up some runs, those that began last, so that other replicas take their keys. */
  release(count: number): void {
    const newest = [...this.#running.values()].filter(run => !run.abandoned).slice(-count);
    for (const run of newest) run.abandon(new Error('another replica has room for it'));
  }

  /** The objects of these have changed. */
  change(tokens: string[]): void {
    for (const run of this.#find(tokens)) run.change();
  }

  /** Waits for what runs, at most some milliseconds; then aborts it. What has not begun is left to others. */
  async drain(milliseconds: number): Promise<void> {
    for (const token of this.#backlog.keys()) this.#report({ token, result: 'released' });
    this.#backlog.clear();
    // A long run never ends by itself.
    if (this.#controller.longRunning) this.#abandonAll(new Error('shutting down'));
    await this.#idle(milliseconds);
    this.#abandonAll(new Error('shutting down'));
    await this.#idle(graceTime);
    clearInterval(this.#sweeper);
    this.#sweeper = undefined;
  }

  async #execute(key: string, run: Run): Promise<void> {
    let result: WorkResult;
    const span = this.#trace(run);
    try {
      const work = () => reconcile(this.#controller, run);
      result = this.#success(run, await marked(run, () => (span ? span.within(work) : work())));
    } catch (error) {
      result = this.#failure(run, error);
    }
    span?.end({
      attributes: { 'syncsets.result': result.result },
      ...(result.message === undefined ? {} : { error: result.message }),
    });
    if (this.#hung.delete(run)) run.log.warn({ seconds: Math.round(seconds(run)) }, 'a hung reconcile has ended');
    this.#end(key, run, result);
  }

  /** A span for the run in the trace of the change that it is for; what it writes then belongs to the span. */
  #trace(run: Run): OpenSpan | undefined {
    const { type, namespace = '', name } = run.key;
    const controller = this.#controller.name;
    const span = beginSpan(`reconcile ${controller}`, {
      kind: 'consumer',
      parent: run.traceparent,
      attributes: {
        'syncsets.controller': controller,
        'syncsets.type': type,
        'syncsets.namespace': namespace,
        'syncsets.name': name,
        'syncsets.reason': run.reason,
        'syncsets.attempts': run.attempts,
      },
    });
    if (span) run.traceparent = span.traceparent;
    return span;
  }

  #success(run: Run, result: Result | undefined): WorkResult {
    // Counted when its deadline passed.
    if (this.#hung.has(run)) return { token: run.token, result: 'released' };
    const again = result?.requeueAfter;
    const requeueAfterSeconds = again === undefined ? undefined : secondsOf(again, 'requeueAfter');
    this.#metrics.result(again === undefined ? 'success' : 'requeue_after', seconds(run));
    return { token: run.token, result: 'done', ...(requeueAfterSeconds !== undefined && { requeueAfterSeconds }) };
  }

  #failure(run: Run, error: unknown): WorkResult {
    const { token, attempts } = run;
    const text = messageOf(error);
    if (run.abandoned) {
      run.log.info({ error: text, reason: run.abandoned.message }, 'run ended after it was given up');
      return { token, result: 'released' };
    }
    this.#metrics.result('error', seconds(run));
    const terminal = error instanceof TerminalError;
    if (terminal) this.#metrics.terminalError();
    else this.#metrics.retry();
    run.log.warn({ error: text, attempts }, terminal ? 'reconcile failed for good' : 'reconcile failed');
    if (error instanceof Error) run.log.debug({ stack: error.stack }, 'where it failed');
    return { token, result: terminal ? 'terminal' : 'error', message: text };
  }

  #end(key: string, run: Run, result: WorkResult): void {
    // Over its deadline: reported already, and another may have taken its place.
    if (this.#running.get(key) !== run) return;
    this.#running.delete(key);
    this.room.learn(performance.now() - run.startedAt);
    // What was found out without certainly holding the claim does not count, so the key runs again.
    if (!run.lost) this.#report(run.abandoned ? { token: run.token, result: 'released' } : result);
    this.#freed();
  }

  #freed(): void {
    for (const [token, { claim }] of this.#backlog) {
      if (this.#running.size >= this.#slots) break;
      if (this.#running.has(keyOf(claim))) continue;
      this.#backlog.delete(token);
      this.begin(claim);
    }
    this.room.look();
    if (this.#running.size === 0) this.#onIdle();
  }

  #sweep(): void {
    if (this.#running.size === 0 && this.#backlog.size === 0) return;
    const now = performance.now();
    const { left } = this.#surroundings.lease;
    if (left <= 0) this.#leaseEnded(now, now + left);
    for (const [token, { claim, since }] of this.#backlog) {
      if (now - since < longestAhead) break;
      if (this.#running.has(keyOf(claim))) continue;
      // No room is seen by this: the pace is that of runs which ended, and the same keys would be claimed again.
      this.#backlog.delete(token);
      this.#report({ token, result: 'released' });
    }
    const oldest = now - this.#deadline;
    for (const [key, run] of this.#running) {
      // In the order of their beginning, so the first that has time left ends the search.
      if (run.startedAt > oldest) break;
      this.#expire(key, run);
    }
  }

  /** Gives up what is of the lease that ended at this time; what came after it is given the time of a renewal. */
  #leaseEnded(now: number, end: number): void {
    const isOver = (since: number) => since <= end || now - since >= unconfirmed;
    const reason = new Error('the lease may have run out');
    for (const run of this.#running.values()) if (isOver(run.startedAt)) run.abandon(reason);
    for (const [token, { since }] of this.#backlog) {
      if (!isOver(since)) continue;
      this.#backlog.delete(token);
      this.#report({ token, result: 'released' });
    }
  }

  #expire(key: string, run: Run): void {
    const error = new Error(`not done within its deadline of ${this.#deadline / 1000} s`);
    this.#metrics.timeout();
    this.#hung.add(run);
    const result = this.#failure(run, error);
    this.#end(key, run, result);
    run.abandon(error);
  }

  #find(tokens: string[]): Run[] {
    const wanted = new Set(tokens);
    return [...this.#running.values()].filter(run => wanted.has(run.token));
  }

  #abandonAll(reason: Error): void {
    for (const run of this.#running.values()) run.abandon(reason);
  }

  /** Waits until nothing runs, at most some milliseconds; a timer of Node itself fires at once where those are 25 days or more. */
  async #idle(milliseconds: number): Promise<void> {
    if (this.#running.size === 0) return;
    const idle = new AbortController();
    this.#onIdle = () => idle.abort();
    await pause(milliseconds, idle.signal);
  }
}

function keyOf({ type, namespace = '', name }: WorkKey): string {
  return `${type}/${namespace}/${name}`;
}

function seconds(run: Run): number {
  return (performance.now() - run.startedAt) / 1000;
}
