import { expect } from 'chai';
import { readScale, type Scale } from './scale.js';
import { describe as tell, Scene, type Verdict } from './storm.js';

// Short runs of what `make chaos` does at length. A failure prints its seed, and with it the same writes and faults come again.

describe('the whole platform', function () {
  this.timeout(300_000);
  const base: Scale = { ...readScale({}), lanes: 32, workers: 4, claimSeconds: 3, settle: 120_000 };
  const lines: string[] = [];
  let scene: Scene;
  before(async () => {
    scene = await Scene.start(base, line => lines.push(line));
  });
  after(() => scene.stop());

  async function storm(scale: Partial<Scale>): Promise<Verdict> {
    const verdict = await scene.storm({ ...base, ...scale });
    const { found } = verdict.violations;
    if (found.length > 0) console.error([`seed ${base.seed}`, ...lines, ...tell(verdict)].join('\n'));
    expect(found.map(({ kind, what }) => `${kind}: ${what}`)).to.deep.equal([]);
    return verdict;
  }

  it('takes six writes in a row to each object: watchers and queues see each once and in order, workers the last', async () => {
    const { answered, followers, runs } = await storm({ pattern: 'rounds', objects: 250, pause: undefined });
    expect(answered).to.equal(1_500);
    const complete = followers.filter(({ name }) => !name.includes('selector'));
    expect(complete).to.have.length(5);
    // And the statuses; one that was stored although its worker did not wait for the answer is in no journal.
    const [first = 0, ...others] = complete.map(({ received, repeated }) => received - repeated);
    expect(first).to.be.at.least(1_500 + runs.wrote);
    for (const other of others) expect(other).to.equal(first);
    expect(runs.certain / runs.runs).to.be.greaterThan(0.5);
  });

  it('loses, doubles and reorders nothing while its parts are killed, frozen and cut off', async () => {
    const { faults, runs } = await storm({
      writes: 2_500,
      rate: 150,
      objects: 300,
      each: 5,
      pause: [300, 1_300],
      freeze: [500, 5_000],
    });
    expect(Math.min(faults.kill, faults.freeze, faults.cut)).to.be.at.least(3);
    expect(runs.runs).to.be.greaterThan(100);
  });
});
