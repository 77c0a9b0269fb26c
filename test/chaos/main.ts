import { readScale } from './scale.js';
import { describe, storm } from './storm.js';

// `make chaos`: the whole platform under faults. Variables: SEED, WRITES, OBJECTS, LANES, WORKERS, WATCHERS, RATE (writes a second),
// FREEZE (longest one, ms), PAUSE (longest one between two faults, ms), CLAIM_SECONDS, SETTLE (ms), PATTERN=rounds, FAULTS=off.

async function main(): Promise<void> {
  const scale = readScale(process.env);
  console.log(`seed ${scale.seed}: ${JSON.stringify(scale)}`);
  const verdict = await storm(scale, text => console.log(text));
  console.log(describe(verdict).join('\n'));
  if (verdict.violations.found.length === 0) return;
  console.log(`seed ${scale.seed} failed; again: make chaos SEED=${scale.seed} WRITES=${scale.writes}`);
  process.exitCode = 1;
}

await main();
