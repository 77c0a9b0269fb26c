import { expect } from 'chai';
import { Results } from './batch-results.js';
import { ApiError } from './errors.js';

describe('the results of a batch', () => {
  it('leave objects out that do not fit into 32 MiB, by their bytes, and never an error', () => {
    const results = new Results('r1');
    const object = JSON.stringify({ text: 'ü'.repeat(500_000) });
    const stored = { request: '', status: 201, body: object };
    for (let i = 0; i < 40; i++)
      results.set(i, i % 2 === 0 ? { status: 200, object } : { status: 201, repeated: stored });
    results.set(40, { status: 200, object: '{"small":true}', warnings: ['careful'] });
    results.set(41, { status: 404, error: new ApiError('NotFound', 'It does not exist.') });
    expect(results.size).to.be.greaterThan(40_000_000);
    const text = results.json(42);
    expect(Buffer.byteLength(text)).to.be.within(32_000_000, 32 * 2 ** 20 + 10_000);
    const answer = JSON.parse(text) as { results: object[] };
    expect(answer.results.filter(one => 'truncated' in one)).to.have.length(7);
    expect(answer.results[38]).to.deep.equal({ status: 200, truncated: true });
    expect(answer.results[39]).to.deep.equal({ status: 201, truncated: true });
    expect(answer.results[40]).to.deep.equal({ status: 200, object: { small: true }, warnings: ['careful'] });
    expect(answer.results[41]).to.have.nested.property('error.code', 'NotFound');
  });
});
