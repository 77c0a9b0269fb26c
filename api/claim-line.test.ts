import { expect } from 'chai';
import { Line } from './claim-line.js';
import type { ClaimRequest, Taken } from './claims.js';

describe('the line of waiting workers', () => {
  let wake: (here: boolean) => void;
  let line: Line;
  /** Who was looked for, and that all was taken which was kept for the line, in order. */
  let happened: string[];
  /** Keys that are queued. */
  let keys: string[];
  let beforeAnswer: () => void;
  let take: (request: ClaimRequest) => Promise<Taken>;
  let end: AbortController;

  beforeEach(() => {
    happened = [];
    keys = [];
    beforeAnswer = () => undefined;
    end = new AbortController();
    take = ({ worker, max }) => {
      happened.push(worker);
      const claims = keys.splice(0, max);
      beforeAnswer();
      return Promise.resolve({ claims, complete: claims.length < max });
    };
    line = new Line({
      take: request => take(request),
      listen: listener => {
        wake = listener;
        return () => undefined;
      },
      taken: all => happened.push(all ? 'taken' : 'taken until then'),
      lost: () => Promise.resolve(),
      onEmpty: () => undefined,
    });
  });

  /** A worker that waits in the line until it got something. */
  async function wait(worker: string, { hears = false, max = 2 } = {}): Promise<string[]> {
    const since = line.enter();
    try {
      return await line.wait({ worker, max, waitSeconds: 30 }, { signal: end.signal, since, hears });
    } finally {
      line.leave();
    }
  }

  it('leaves keys that others have queued to the messages, as far as its workers hear these', async () => {
    const hearing = wait('hearing', { hears: true });
    const unheard = wait('unheard');
    keys = ['theirs'];
    wake(false);
    expect(await unheard).to.deep.equal(['theirs']);
    keys = ['ours'];
    wake(true);
    expect(await hearing).to.deep.equal(['ours']);
    expect(happened).to.deep.equal(['unheard', 'taken', 'hearing', 'taken']);
  });

  it('has a worker that hears messages look for keys of others all the same, when these have had their time', async () => {
    const hearing = wait('hearing', { hears: true });
    keys = ['theirs'];
    const begun = performance.now();
    wake(false);
    expect(await hearing).to.deep.equal(['theirs']);
    // The look of each second would find them too.
    expect(performance.now() - begun).to.be.within(45, 900);
  });

  it('says that all is taken when a look has left nothing, not when it found as much as it asked for', async () => {
    const [one, two] = [wait('one'), wait('two')];
    keys = ['a', 'b', 'c'];
    wake(true);
    expect(await one).to.deep.equal(['a', 'b']);
    expect(await two).to.deep.equal(['c']);
    expect(happened).to.deep.equal(['one', 'two', 'taken']);
  });

  it('does not call that taken which came during the look', async () => {
    const [one, two] = [wait('one'), wait('two')];
    keys = ['a'];
    beforeAnswer = () => {
      beforeAnswer = () => undefined;
      keys.push('b');
      wake(true);
    };
    wake(true);
    expect(await one).to.deep.equal(['a']);
    expect(await two).to.deep.equal(['b']);
    expect(happened).to.deep.equal(['one', 'taken until then', 'two', 'taken']);
  });

  it('counts the look of a worker before its wait, for what was there when it began', () => {
    const since = line.enter();
    line.looked(since);
    expect(happened).to.deep.equal(['taken']);
    wake(true);
    line.looked(since);
    line.leave();
    expect(happened).to.deep.equal(['taken', 'taken until then']);
  });

  it('calls nothing taken that came when all had left, of which it does not hear', async () => {
    const gone = wait('gone');
    let answer: () => void = () => undefined;
    const asked = new Promise<void>(resolve => (answer = resolve));
    take = () => asked.then(() => ({ claims: [], complete: true }));
    wake(true);
    end.abort();
    expect(await gone).to.deep.equal([]);
    answer();
    await asked;
    // What follows the answer has happened by then.
    await new Promise(resolve => setImmediate(resolve));
    expect(happened).to.deep.equal([]);
  });
});
