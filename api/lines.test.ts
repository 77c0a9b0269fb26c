import { PassThrough } from 'node:stream';
import { expect } from 'chai';
import { Lines } from './lines.js';

const many = 1_000_000;

describe('the lines of a body', () => {
  it('gather while nobody wants them, and go together when somebody does', async () => {
    const body = new PassThrough();
    const lines = new Lines(body);
    let want: () => void = () => undefined;
    const wanted = new Promise<void>(resolve => (want = resolve));
    const taken = lines.take(500, many, wanted);
    for (const chunk of ['a\nb\n', 'c', '\nd\n']) {
      body.write(chunk);
      // Until it has been read, and long enough for what had come to be given up for the end.
      for (let turn = 0; turn < 10; turn++) await new Promise(resolve => setImmediate(resolve));
    }
    want();
    expect((await taken)?.map(({ text }) => text)).to.deep.equal(['a', 'b', 'c', 'd']);
  });

  it('go before somebody wants them when they are as many, or as large, as may go together', async () => {
    const never = new Promise<void>(() => undefined);
    const body = new PassThrough();
    const lines = new Lines(body);
    body.write('a\nb\nc\n');
    expect(await lines.take(2, many, never)).to.have.length(2);
    body.write(`${'d'.repeat(100)}\n`);
    expect((await lines.take(500, 100, never))?.map(({ index }) => index)).to.deep.equal([2, 3]);
  });

  it('end for whoever waits for more of them when what they are wanted for fails', async () => {
    const body = new PassThrough();
    const lines = new Lines(body);
    body.write('a\n');
    const error = await lines
      .take(500, many, Promise.reject(new Error('the database is away')))
      .catch((e: unknown) => e);
    expect(error).to.have.property('message', 'the database is away');
  });
});
