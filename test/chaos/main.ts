import { churn } from './churn.js';
import { readScale } from './scale.js';
import { describe, Scene } from './storm.js';
import type { Violations } from './violations.js';

// `make chaos`: the whole platform under faults. Variables: SEED, WRITES, OBJECTS, LANES, BATCHING (how many of them send
// batches), BATCH (their most writes), WORKERS, WATCHERS, RATE (writes a second),
// FREEZE (longest one, ms), PAUSE (longest one between two faults, ms), CLAIM_SECONDS, SETTLE (ms), PATTERN=rounds, FAULTS=off.
// `make churn`: no faults and no end to the writes but by MINUTES (30) or WRITES. The same, and EVENT_LOG_MAX (16MiB).

async function main([mode = 'storm']: string[]): Promise<void> {
  const { env } = process;
  const scale = readScale(env);
  const say = (text: string) => console.log(text);
  say(`seed ${scale.seed}: ${JSON.stringify(scale)}`);
  if (mode === 'churn') {
    const options = { minutes: Number(env.MINUTES || 30), eventLogMax: env.EVENT_LOG_MAX || '16MiB' };
    const quiet = { ...scale, writes: Number(env.WRITES) || Infinity, pause: undefined };
    const { violations, answered } = await churn(quiet, options, say);
    say([`${answered} writes`, ...violations.describe()].join('\n'));
    conclude(violations, 'make churn');
    return;
  }
  const scene = await Scene.start(scale, say);
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.once(signal, () => void scene.stop().finally(() => process.exit(130)));
  try {
    const verdict = await scene.storm(scale);
    say(describe(verdict).join('\n'));
    conclude(verdict.violations, 'make chaos');
  } finally {
    await scene.stop();
  }

  function conclude({ found }: Violations, command: string): void {
    if (found.length === 0) return;
    process.exitCode = 1;
    say(`seed ${scale.seed} failed; again: ${command} SEED=${scale.seed} WRITES=${scale.writes}`);
  }
}

await main(process.argv.slice(2));
