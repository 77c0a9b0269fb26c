import { expect } from 'chai';
import express, { type NextFunction, type Request, type Response } from 'express';
import type { AddressInfo } from 'node:net';
import { RouteChecks } from './route-checks.js';
import { InvalidArguments } from './validation.js';

describe('the arguments of routes', () => {
  const app = express().set('query parser', 'simple').use(express.json());
  const checks = new RouteChecks();
  const handle = (name: string, place: string, ref: string) => (request: Request, response: Response) => {
    response.json(
      checks.getValidatedArgs({ args: { arg: { name, in: place, ref, required: true } }, request, response })[0],
    );
  };
  app.get('/', handle('query', 'queries', 'ListQuery'));
  app.delete('/', handle('query', 'queries', 'NoQuery'));
  app.post('/', handle('body', 'body', 'SelectorSyncSetInput'));
  app.use((error: unknown, _request: Request, response: Response, next: NextFunction) => {
    if (error instanceof InvalidArguments) response.status(400).json(error.errors);
    else next(error);
  });
  const server = app.listen(0, '127.0.0.1');
  const ask = async (query: string, init?: RequestInit): Promise<unknown> => {
    const { port } = server.address() as AddressInfo;
    return (await fetch(`http://127.0.0.1:${port}/${query}`, init)).json();
  };
  after(() => server.close());

  it('are read from the query as what they are', async () => {
    const query = '?limit=10&watch=true&namespace=foo&labelSelector=a%3Db&resourceVersion=17&continue=x';
    expect(await ask(query)).to.deep.equal({
      limit: 10,
      watch: true,
      namespace: 'foo',
      labelSelector: 'a=b',
      resourceVersion: '17',
      continue: 'x',
    });
    expect(await ask('?watch=0')).to.deep.equal({ watch: false });
    expect(await ask('')).to.deep.equal({});
  });

  it('are refused with the name of the query parameter and what is allowed', async () => {
    const wrong = await ask('?limit=0&watch=maybe&resourceVersion=abc&lables=x&namespace=a&namespace=b');
    expect(wrong).to.have.deep.members([
      { path: 'limit', message: 'must be at least 1', query: true },
      { path: 'watch', message: 'must be true or false, not a text', query: true },
      { path: 'resourceVersion', message: 'must be a version as the server gave it: decimal digits', query: true },
      { path: 'namespace', message: 'must be given only once', query: true },
      {
        path: 'lables',
        message:
          'is unknown; there are continue, fieldSelector, fields, labelSelector, limit, namespace, orderBy, resourceVersion, watch',
        unknown: true,
        query: true,
      },
    ]);
    for (const limit of ['1.5', '1e3', '', 'x', '99999999999999999999']) {
      expect(await ask(`?limit=${limit}`)).to.have.length(1);
    }
  });

  it('are refused where none are known', async () => {
    expect(await ask('?x=1', { method: 'DELETE' })).to.deep.equal([
      { path: 'x', message: 'is unknown; there are none', unknown: true, query: true },
    ]);
  });

  it('include the body, which is checked by the model of its type and what all objects carry', async () => {
    const post = (body: object) =>
      ask('', { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) });
    const set = { name: 'x', matchAll: true };
    expect(await post(set)).to.deep.equal(set);
    expect(await post({ matchAll: 1, labels: { a: 'not ok' } })).to.deep.equal([
      { path: 'matchAll', message: 'must be true or false, not a number' },
      { path: 'name', message: 'is required, or generateName with its beginning' },
      {
        path: 'labels.a',
        message: 'must be letters, digits, "-", "_" and ".", beginning and ending with a letter or digit',
      },
    ]);
  });
});
