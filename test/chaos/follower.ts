import type { Violations } from './violations.js';

/** A change as any of the ways brings it. */
export interface Seen {
  op: 'ADDED' | 'MODIFIED' | 'DELETED';
  version: number;
  /** The type's version before it; undefined where the way does not say. */
  previous?: number;
  /** `namespace/name`. */
  name: string;
}

export interface FollowerOptions {
  name: string;
  violations: Violations;
  /** Whether it gets every version of the type, so that a gap is a loss. */
  complete: boolean;
  /** Whether a version may come again (at least once), to be dropped. */
  repeats: boolean;
  /** Whether it keeps which object each version is of. */
  remembers?: boolean;
}

/** Whoever follows changes: replays them into a state, and reports what comes twice, too late or never. */
export class Follower {
  readonly name: string;
  readonly #violations: Violations;
  readonly #complete: boolean;
  readonly #repeats: boolean;
  readonly #remembers: boolean;
  /** By type, by `namespace/name`: the version of the object. */
  readonly state = new Map<string, Map<string, number>>();
  /** By type: the version up to which everything was told. */
  readonly seen = new Map<string, number>();
  /** By type, where it remembers: the object that each version is of. The judge looks up what was answered to writers. */
  readonly versions = new Map<string, Map<number, string>>();
  repeated = 0;
  received = 0;

  constructor({ name, violations, complete, repeats, remembers = false }: FollowerOptions) {
    this.name = name;
    this.#violations = violations;
    this.#complete = complete;
    this.#repeats = repeats;
    this.#remembers = remembers;
  }

  take(type: string, { op, version, previous, name }: Seen): void {
    const seen = this.seen.get(type) ?? 0;
    const key = `${type}/${name}`;
    const place = { key, version };
    this.received++;
    if (version <= seen) {
      this.repeated++;
      this.#violations.note(key, `${this.name} ${op} ${version} again`);
      if (this.#repeats) return;
      // Who gets every version has had this one; a gap was told when it happened.
      const kind = this.#complete ? 'doubled' : 'doubled or reordered';
      this.#violations.report(kind, `${this.name} got ${op} ${version} after ${seen}`, place);
      return;
    }
    if (this.#complete) {
      if (previous !== undefined && previous !== seen)
        this.#violations.report('lost', `${this.name} got ${version} after ${previous}, but had seen ${seen}`, place);
    }
    if (this.#remembers) this.#remember(type, version, name);
    this.seen.set(type, version);
    this.#violations.note(key, `${this.name} ${op} ${version}`);
    this.#apply(type, op, version, name);
  }

  /** Everything up to this version was told. */
  passed(type: string, version: number): void {
    const seen = this.seen.get(type) ?? 0;
    if (this.#complete && version !== seen)
      this.#violations.report('lost', `${this.name} got a bookmark of ${type} at ${version}, but had seen ${seen}`);
    if (version < seen) this.#violations.report('reordered', `${this.name}: a bookmark at ${version} after ${seen}`);
    this.seen.set(type, Math.max(version, seen));
  }

  #remember(type: string, version: number, name: string): void {
    let versions = this.versions.get(type);
    if (!versions) this.versions.set(type, (versions = new Map()));
    versions.set(version, name);
  }

  #apply(type: string, op: Seen['op'], version: number, name: string): void {
    let state = this.state.get(type);
    if (!state) this.state.set(type, (state = new Map()));
    if (state.has(name) === (op === 'ADDED')) {
      const what = `${this.name} got ${op} ${version} of an object that it ${state.has(name) ? 'has' : 'has not'}`;
      this.#violations.report('wrong change', what, { key: `${type}/${name}`, version });
    }
    if (op === 'DELETED') state.delete(name);
    else state.set(name, version);
  }
}
