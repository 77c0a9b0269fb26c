import { expect } from 'chai';
import express from 'express';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { Socket, type AddressInfo } from 'node:net';
import { messageClasses } from './messages.js';

describe('the messages of the server', () => {
  it('are what express makes of them from the beginning, and stay so', async () => {
    const app = express().disable('etag').disable('x-powered-by');
    const classes = messageClasses(app);
    const request = new classes.IncomingMessage(new Socket());
    const shape = Object.getPrototypeOf(request) as object;
    const answerShape = Object.getPrototypeOf(new classes.ServerResponse(request)) as object;
    app.locals['name'] = 'this app';
    app.get('/', (request, response) => {
      response.location('/there').json({
        same: Object.getPrototypeOf(request) === shape && Object.getPrototypeOf(response) === answerShape,
        name: request.app.locals['name'] as unknown,
        accept: request.get('Accept'),
        answersTo: response.req === request && response.app === request.app,
      });
    });
    const server = createServer(classes, app).listen(0, '127.0.0.1');
    await once(server, 'listening');
    try {
      const { port } = server.address() as AddressInfo;
      const answer = await fetch(`http://127.0.0.1:${port}/`, { headers: { Accept: 'application/json' } });
      expect(answer.headers.get('location')).to.equal('/there');
      expect(await answer.json()).to.deep.equal({
        same: true,
        name: 'this app',
        accept: 'application/json',
        answersTo: true,
      });
    } finally {
      server.close();
    }
  });
});
