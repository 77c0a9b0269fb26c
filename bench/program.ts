import type { Stage } from './stage.js';

/** A measured value, in the unit of its measure; p99 where single waits were measured and `value` is their median. */
export interface Figure {
  value: number;
  p99?: number;
}

/** One promise: what was measured of ours, and of others in the same run. */
export interface Measure {
  what: string;
  unit: '1/s' | 'ms' | 's' | 'MB';
  ours: Figure;
  /** What `ours.value` has to reach; left out: measured for information. */
  target?: { atLeast: number } | { atMost: number };
  references: Reference[];
}

/** The same work done by others. */
export interface Reference {
  name: string;
  figure: Figure;
  /** How many times better ours has to be; left out: shown for information. */
  atLeast?: number;
}

/** One file of this room: measures what it promises on a stage of its own, which is cleared afterwards. */
export interface Program {
  name: string;
  /** One line for `make bench` to show while it runs. */
  about: string;
  run(stage: Stage): Promise<Measure[]>;
}

/** How many times better ours is than a reference: more for rates, less for times. */
export function ratio({ unit, ours }: Measure, reference: Figure): number {
  return unit === '1/s' ? ours.value / reference.value : reference.value / ours.value;
}

/** Whether the target is met; undefined: there is none. */
export function isMet({ ours, target }: Measure): boolean | undefined {
  if (!target) return undefined;
  return 'atLeast' in target ? ours.value >= target.atLeast : ours.value <= target.atMost;
}
