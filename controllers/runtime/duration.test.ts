import { expect } from 'chai';
import { secondsOf, type Duration } from './duration.js';

describe('duration', () => {
  it('reads seconds and units', () => {
    const read = (duration: Duration) => secondsOf(duration, 'requeueAfter');
    expect([read(0), read(1.5), read('30s'), read('5m'), read('2h'), read('1.5d')]).to.deep.equal([
      0, 1.5, 30, 300, 7200, 129_600,
    ]);
  });

  it('refuses what is none, and says what it may be', () => {
    for (const bad of [-1, NaN, Infinity, '2 hours', '', 'h', '-5s', '1e3s', '400d'] as Duration[]) {
      expect(() => secondsOf(bad, 'requeueAfter')).to.throw(TypeError, 'requeueAfter: ');
    }
  });
});
