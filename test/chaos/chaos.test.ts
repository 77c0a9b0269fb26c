import { expect } from 'chai';
import { readScale, type Scale } from './scale.js';
import { describe as tell, storm } from './storm.js';

// Short runs of what `make chaos` does at length. A failure prints its seed, and with it the same writes and the same faults come again.

describe('the whole platform', function () {
  this.timeout(240_000);

  async function run(scale: Partial<Scale>) {
    const all = { ...readScale({}), settle: 100_000, ...scale };
    const lines: string[] = [];
    const verdict = await storm(all, line => lines.push(line));
    const { found } = verdict.violations;
    if (found.length > 0) console.error([`seed ${all.seed}`, ...lines, ...tell(verdict)].join('\n'));
    expect(found.map(({ kind, what }) => `${kind}: ${what}`)).to.deep.equal([]);
    return verdict;
  }

  it('takes writes of 32 clients, five in a row to each object: three watchers and two queues see each once and in order, four workers the last', async () => {
    const verdict = await run({
      pattern: 'rounds',
      pause: undefined,
      objects: 300,
      lanes: 32,
      workers: 4,
      watchers: 3,
    });
    expect(verdict.answered).to.equal(1_800);
    const [first, second] = verdict.followers;
    expect(first?.received).to.be.at.least(1_800);
    expect(second?.received).to.equal(first?.received);
    expect(verdict.runs.runs).to.be.at.least(300);
    expect(verdict.runs.certain / verdict.runs.runs).to.be.greaterThan(0.5);
  });

  it('loses, doubles and reorders nothing while each of its parts is killed, frozen and cut off', async () => {
    const verdict = await run({
      writes: 5_000,
      rate: 220,
      objects: 500,
      lanes: 32,
      claimSeconds: 3,
      once: true,
      pause: [200, 900],
      freeze: [500, 4_000],
    });
    const { kill, freeze, cut } = verdict.faults;
    expect(Math.min(kill, freeze, cut)).to.be.at.least(4);
    expect(verdict.runs.runs).to.be.greaterThan(100);
  });
});
