/** How big a run is. Ranges are milliseconds. */
export interface Scale {
  seed: number;
  /** Answered writes, after which the writers end. */
  writes: number;
  /** Writes a second; 0: as many as there can be. */
  rate: number;
  objects: number;
  /** `random`: any object, created, changed and deleted. `rounds`: each object is created and then changed five times in a row. */
  pattern: 'random' | 'rounds';
  /** Clients that write at the same time. */
  lanes: number;
  /** Of these, how many send batches instead of one write at a time, and of up to how many writes; no object twice in one. */
  batching: number;
  batch: number;
  workers: number;
  watchers: number;
  claimSeconds: number;
  /** Between two faults; undefined: none. */
  pause: readonly [number, number] | undefined;
  /** Length of a freeze and of a cut. */
  freeze: readonly [number, number];
  /** How many faults of each kind there are; left out: as many as there can be while the writers write. */
  each?: number;
  /** How long followers and workers may take to come to the end of everything, afterwards. */
  settle: number;
}

export const types = ['clusters', 'syncsets', 'secrets'] as const;
export type Type = (typeof types)[number];

/** What `make chaos` does unless it is told otherwise. */
const long: Scale = {
  seed: 1,
  writes: 1_000_000,
  rate: 0,
  objects: 20_000,
  pattern: 'random',
  lanes: 24,
  batching: 8,
  batch: 100,
  workers: 3,
  watchers: 4,
  claimSeconds: 6,
  pause: [500, 6_000],
  freeze: [1_000, 20_000],
  settle: 300_000,
};

/**
 * The scale that variables such as `SEED=7 WRITES=50000 FAULTS=off` ask for.
 * @throws Error naming the variable that is no number
 */
export function readScale(env: Record<string, string | undefined>): Scale {
  const number = (name: string, fallback: number) => {
    const value = env[name] === undefined || env[name] === '' ? fallback : Number(env[name]);
    if (!Number.isFinite(value) || value < 0) throw new Error(`${name} is "${env[name] ?? ''}", which is no number`);
    return value;
  };
  return {
    ...long,
    seed: number('SEED', Math.floor(Math.random() * 1_000_000)),
    writes: number('WRITES', long.writes),
    rate: number('RATE', long.rate),
    objects: number('OBJECTS', long.objects),
    lanes: number('LANES', long.lanes),
    batching: number('BATCHING', long.batching),
    batch: number('BATCH', long.batch),
    workers: number('WORKERS', long.workers),
    watchers: number('WATCHERS', long.watchers),
    claimSeconds: number('CLAIM_SECONDS', long.claimSeconds),
    freeze: [Math.min(1_000, number('FREEZE', long.freeze[1])), number('FREEZE', long.freeze[1])],
    settle: number('SETTLE', long.settle),
    pattern: env.PATTERN === 'rounds' ? 'rounds' : 'random',
    pause: env.FAULTS === 'off' ? undefined : [500, Math.max(500, number('PAUSE', 6_000))],
  };
}
