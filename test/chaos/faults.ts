import { setTimeout as sleep } from 'node:timers/promises';
import type { Fleet } from './fleet.js';
import type { Part } from './processes.js';
import { cuts, type Cut, type Proxy } from './proxy.js';
import type { Random } from './random.js';
import { types, type Scale } from './scale.js';
import type { Violations } from './violations.js';

/** One thing that can happen to the fleet; `leader` is whoever leads the relay of a type when it happens. */
type Fault = { kind: 'kill' | 'freeze'; part: Part | 'leader' } | { kind: 'cut'; proxy: Proxy; cut: Cut };

/**
 * Lets faults happen to a fleet, one after the other at random times, each when the one before may still last. They are drawn
 * like cards, so that each part has had each kind before one comes again.
 */
export class Faults {
  readonly #fleet: Fleet;
  readonly #scale: Scale;
  readonly #random: Random;
  readonly #violations: Violations;
  readonly #say: (text: string) => void;
  readonly #stop = new AbortController();
  /** Parts and ways that something happens to now. */
  readonly #busy = new Map<Part | Proxy, Promise<void>>();
  readonly counts = { kill: 0, freeze: 0, cut: 0 };
  #running: Promise<void> = Promise.resolve();

  constructor(options: {
    fleet: Fleet;
    scale: Scale;
    random: Random;
    violations: Violations;
    say: (text: string) => void;
  }) {
    this.#fleet = options.fleet;
    this.#scale = options.scale;
    this.#random = options.random;
    this.#violations = options.violations;
    this.#say = options.say;
  }

  /** @returns when they are over: at once without any, after so many of `each` kind, else when they are stopped */
  start(): Promise<void> {
    this.#running = this.#run();
    return this.#running;
  }

  /** Lets no more happen and waits until all that is down is there again. */
  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#running;
    await Promise.all(this.#busy.values());
  }

  async #run(): Promise<void> {
    const { pause, each } = this.#scale;
    if (!pause) return;
    do {
      for (const fault of this.#deck()) {
        const wait = this.#random.between(pause);
        const length = this.#random.between(this.#scale.freeze);
        await sleep(wait, undefined, { signal: this.#stop.signal }).catch(() => undefined);
        if (this.#stop.signal.aborted) return;
        await this.#happen(fault, length);
      }
    } while (each === undefined);
  }

  #deck(): Fault[] {
    const parts = [...this.#fleet.parts, 'leader' as const];
    const { each = Infinity } = this.#scale;
    const left = { kill: each, freeze: each, cut: each };
    const deck = this.#random.shuffle<Fault>([
      ...parts.flatMap(part => (['kill', 'freeze'] as const).map(kind => ({ kind, part }))),
      ...this.#fleet.proxies.map(proxy => ({ kind: 'cut' as const, proxy, cut: this.#random.pick(cuts) })),
    ]);
    return deck.filter(({ kind }) => left[kind]-- > 0);
  }

  async #happen(fault: Fault, length: number): Promise<void> {
    if (fault.kind === 'cut') {
      const { proxy, cut } = fault;
      this.#begin(proxy, `cut ${proxy.name} (${cut}) for ${Math.round(length)} ms`, 'cut', async () => {
        proxy.cut(cut);
        await sleep(length);
        proxy.mend();
      });
      return;
    }
    const type = this.#random.pick(types);
    const part = fault.part === 'leader' ? await this.#fleet.leader(type) : fault.part;
    if (!part) return;
    const role = fault.part === 'leader' ? `, which leads ${type},` : '';
    if (fault.kind === 'kill') this.#begin(part, `kill ${part.name}${role}`, 'kill', () => part.kill());
    else
      this.#begin(part, `freeze ${part.name}${role} for ${Math.round(length)} ms`, 'freeze', () => part.freeze(length));
  }

  #begin(subject: Part | Proxy, text: string, kind: keyof Faults['counts'], act: () => Promise<void>): void {
    if (this.#busy.has(subject)) return;
    this.counts[kind]++;
    this.#say(text);
    this.#busy.set(
      subject,
      act()
        .catch((error: unknown) => this.#violations.report('not there again', `${text}: ${String(error)}`))
        .finally(() => this.#busy.delete(subject)),
    );
  }
}
