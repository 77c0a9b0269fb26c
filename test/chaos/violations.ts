/** Milliseconds on the machine's monotonic clock (CLOCK_MONOTONIC), which all its processes share. */
export const now = (): number => Number(process.hrtime.bigint()) / 1e6;

export interface Violation {
  /** In a word: lost, doubled, reordered, overlap, … */
  kind: string;
  what: string;
  /** `type/namespace/name`, where it is about one object. */
  key?: string;
  version?: number;
  /** What happened to that object around it. */
  history: string[];
}

const remembered = 24;

/** What went wrong, and for each object what happened to it last, so that a violation is told with its surroundings. */
export class Violations {
  readonly found: Violation[] = [];
  readonly #histories = new Map<string, string[]>();
  readonly #since = now();

  /** Remembers something about an object; the last 24 are kept. */
  note(key: string, text: string): void {
    let history = this.#histories.get(key);
    if (!history) this.#histories.set(key, (history = []));
    history.push(`${this.time()} ${text}`);
    if (history.length > remembered) history.shift();
  }

  report(kind: string, what: string, place: { key?: string; version?: number } = {}): void {
    const history = place.key === undefined ? [] : [...(this.#histories.get(place.key) ?? [])];
    // A thousand of them say no more than twenty, and a broken product makes a million.
    if (this.found.length < 1_000) this.found.push({ kind, what: `${this.time()} ${what}`, ...place, history });
  }

  /** Seconds since the beginning. */
  time(at = now()): string {
    return ((at - this.#since) / 1000).toFixed(3).padStart(9);
  }

  /** As a person reads them: the first twenty in full, the others counted. */
  describe(): string[] {
    const counts = new Map<string, number>();
    for (const { kind } of this.found) counts.set(kind, (counts.get(kind) ?? 0) + 1);
    return [
      ...[...counts].map(([kind, count]) => `${count} x ${kind}`),
      ...this.found
        .slice(0, 20)
        .flatMap(({ kind, what, key, version, history }) => [
          `${kind}: ${what}${key === undefined ? '' : ` [${key}${version === undefined ? '' : ` @${version}`}]`}`,
          ...history.map(line => `      ${line}`),
        ]),
    ];
  }
}
