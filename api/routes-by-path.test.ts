import { expect } from 'chai';
import express, { Router, type Express, type NextFunction, type Request, type Response } from 'express';
import { once } from 'node:events';
import { request as send, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { inTurn } from './in-turn.js';
import { routesByPath } from './routes-by-path.js';

describe('routes by path', () => {
  const register = (router: Router) => {
    const tell = (route: string) => (request: Request, response: Response) =>
      void response.json({ route, params: request.params, path: request.route?.path as unknown });
    router.post('/v1/things', tell('create'));
    router.get('/v1/things', tell('list'));
    router.get('/v1/things/:namespace/:name', tell('read'));
    router.put('/v1/things/:namespace/:name', tell('replace'));
    router.put('/v1/things/:namespace/:name/status', tell('status'));
    router.get('/v1/workers/:name/claims/done', tell('done'));
    router.get('/v1/workers/:name/claims/:claim', tell('claim'));
    router.get('/v1/fails', () => Promise.reject(new Error('it failed')));
    router.get('/v1', tell('root'));
  };
  const appOf = (routes: express.RequestHandler): Express =>
    express()
      .use(routes)
      .use((_request, response) => void response.status(404).json('nowhere'))
      .use((error: Error & { status?: number }, _request: Request, response: Response, _next: NextFunction) => {
        response.status(error.status ?? 500).json(error.message);
      });
  const plain = Router();
  register(plain);
  const servers: Server[] = [appOf(routesByPath(register)), appOf(plain)].map(app => app.listen(0, '127.0.0.1'));
  before(() => Promise.all(servers.filter(one => !one.listening).map(one => once(one, 'listening'))));
  after(() => servers.forEach(server => server.close()));

  // fetch would put the path in order before it sends it.
  const ask = async (server: Server, method: string, path: string) => {
    const { port } = server.address() as AddressInfo;
    const [response] = (await once(send({ port, host: '127.0.0.1', method, path }).end(), 'response')) as [
      NodeJS.ReadableStream & { statusCode: number; headers: { allow?: string } },
    ];
    let text = '';
    for await (const chunk of response) text += String(chunk);
    return { status: response.statusCode, allow: response.headers.allow, text };
  };

  it('lead where the router of express would, however the path is spelled', async () => {
    const paths = [
      '/v1',
      '/v1/',
      '/V1/things',
      '/v1/things',
      '/v1/things/?limit=1',
      '/v1/things/a',
      '/v1/things/a/b',
      '/v1/things/a/b/',
      '/v1/things/a/b//',
      '/v1/things//b',
      '/v1//things',
      '/v1/things/a%2Fb/c',
      '/v1/things/%zz/c',
      '/v1/things/a/b/status',
      '/v1/things/a/b/STATUS',
      '/v1/things/a/b/other',
      '/v1/things/:namespace/:name',
      '/v1/things/__proto__/constructor',
      '/v1/workers/a/claims/done',
      '/v1/workers/a/claims/other',
      '/v1/fails',
      '/v1/nothing',
      '/',
    ];
    const [ours, theirs] = servers;
    if (!ours || !theirs) throw new Error('no servers');
    for (const path of paths) {
      for (const method of ['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'OPTIONS']) {
        expect(await ask(ours, method, path), `${method} ${path}`).to.deep.equal(await ask(theirs, method, path));
      }
    }
  });

  it('leave a type alone that is spelled otherwise: names of types are as they are stored', async () => {
    const [ours] = servers;
    if (!ours) throw new Error('no servers');
    expect((await ask(ours, 'GET', '/v1/Things')).status).to.equal(404);
  });
});

describe('steps in turn', () => {
  it('call one another, and hand what goes wrong to whoever comes after them', async () => {
    const seen: string[] = [];
    const app = express().use(
      inTurn(
        (request, _response, next) => {
          seen.push('first');
          if (request.path === '/refused') next(new Error('refused'));
          else setImmediate(next);
        },
        request => {
          seen.push('second');
          throw new Error(`thrown for ${request.path}`);
        },
        () => seen.push('third'),
      ),
    );
    app.use((error: Error, _request: Request, response: Response, _next: NextFunction) => {
      response.status(500).json(error.message);
    });
    const server = app.listen(0, '127.0.0.1');
    await once(server, 'listening');
    try {
      const { port } = server.address() as AddressInfo;
      const ask = async (path: string) => (await fetch(`http://127.0.0.1:${port}${path}`)).json();
      expect(await ask('/refused')).to.equal('refused');
      expect(await ask('/other')).to.equal('thrown for /other');
      expect(seen).to.deep.equal(['first', 'first', 'second']);
    } finally {
      server.close();
    }
  });
});
