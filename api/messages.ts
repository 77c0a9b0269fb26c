import express, { type Express } from 'express';
import { IncomingMessage, ServerResponse } from 'node:http';

/**
 * The classes of which the server under an express app has to make its requests and answers: with the prototypes that the app
 * gives them. Express exchanges the prototype of every message that it gets, and an object to which that was done has a shape of
 * its own: each property that is set on it later costs 4 us and garbage (Node 20.20, express 5.3). An app that does nothing took
 * 45 us for a request; with messages that have its prototypes from the beginning it takes 3.5 us. Node 24.21 has mended nearly all
 * of it (10.7 against 8.9 us on a busy machine, where 20.20 took 90 and 7.3): without Node 20 this file can go.
 */
export function messageClasses(app: Express): {
  IncomingMessage: typeof IncomingMessage;
  ServerResponse: typeof ServerResponse;
} {
  class Request extends IncomingMessage {}
  class Answer<Of extends IncomingMessage> extends ServerResponse<Of> {}
  Object.setPrototypeOf(Request.prototype, express.request);
  Object.setPrototypeOf(Answer.prototype, express.response);
  for (const prototype of [Request.prototype, Answer.prototype]) Object.assign(prototype, { app });
  Object.assign(app, { request: Request.prototype, response: Answer.prototype });
  return { IncomingMessage: Request, ServerResponse: Answer };
}
