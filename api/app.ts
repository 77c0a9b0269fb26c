import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import express, { Router, type Express, type RequestHandler } from 'express';
import { isDatabaseAway, type Log } from '../db/index.js';
import { RegisterRoutes } from '../build/routes.js';
import { routesByPath } from './routes-by-path.js';
import { refuseWebPages, requireToken } from './access.js';
import { answerErrors, noRoute } from './error-handler.js';
import { streamBatches } from './batch-stream.js';
import { ApiError } from './errors.js';
import { replayAnswers } from './idempotency.js';
import { inTurn } from './in-turn.js';
import type { Metrics } from './metrics.js';
import type { Platform } from './platform.js';
import { observe, readBody } from './requests.js';

/** What an app answers with, and whom. */
export interface AppOptions {
  platform: Platform;
  metrics: Metrics;
  /** undefined: open to local programs. */
  token: string | undefined;
  isLocalHost: (host: string) => boolean;
  /** False while the process stops: load balancers take it out. */
  accepting: () => boolean;
  /** Milliseconds for the body of a request to arrive. */
  body: number;
  /** Milliseconds without a byte read of an answer after which its client is given up. */
  stalled: number;
  log: Log;
}

/** The express app with everything that is answered. */
export function createApp(options: AppOptions): Express {
  const { platform, metrics, token, isLocalHost, accepting, body, stalled, log } = options;
  const app = express();
  app.disable('x-powered-by').disable('etag').set('query parser', 'simple');
  app.locals['platform'] = platform;
  app.use(
    inTurn(
      observe(log, metrics, stalled),
      probes(platform, accepting),
      token === undefined ? refuseWebPages(isLocalHost) : requireToken(token),
      streamBatches(platform),
      readBody(body),
      replayAnswers(platform.idempotency, log),
      routesByPath(RegisterRoutes),
    ),
  );
  app.get('/metrics', async (_request, response) => void response.type(metrics.contentType).send(await metrics.text()));
  documentation(app);
  app.use(noRoute(platform.types));
  app.use(answerErrors(log));
  return app;
}

/** `/healthz` and `/readyz`, which need no token; whatever is below `/v1` goes by without a look. */
function probes(platform: Platform, accepting: () => boolean): RequestHandler {
  const router = Router();
  router.get('/healthz', (_request, response) => void response.json({ status: 'ok' }));
  router.get('/readyz', async (_request, response) => {
    if (!accepting()) throw new ApiError('Unavailable', 'This process is stopping.');
    await platform.database.ping().catch((error: unknown) => {
      throw isDatabaseAway(error) ? new ApiError('Unavailable', 'The database does not answer.') : error;
    });
    const broker = platform.bus.broker;
    response.json({
      status: 'ok',
      database: 'ok',
      ...(broker === undefined ? {} : { broker: broker.state }),
    });
  });
  return (request, response, next) => {
    // OPTIONS is nothing that a probe sends; a router would answer it without a token.
    if (request.path.startsWith('/v1/') || request.method === 'OPTIONS') next();
    else router(request, response, next);
  };
}

/** `/openapi.json`, and `/docs` that renders it from files of the package: no outside host is asked. */
function documentation(app: Express): void {
  const document = readFileSync(fromRoot('build/openapi.json'));
  app.get('/openapi.json', (_request, response) => void response.type('application/json').send(document));
  const assets = dirname(createRequire(import.meta.url).resolve('swagger-ui-dist/package.json'));
  app.get('/docs', (request, response) => {
    // The page loads its files relative to /docs/.
    if (!request.path.endsWith('/')) response.redirect(301, '/docs/');
    else response.type('html').send(readFileSync(join(assets, 'index.html')));
  });
  app.get('/docs/swagger-initializer.js', (_request, response) => {
    response
      .type('js')
      .send(
        'window.ui = SwaggerUIBundle({ url: "/openapi.json", dom_id: "#swagger-ui", presets: [SwaggerUIBundle.presets.apis], validatorUrl: null });',
      );
  });
  app.use('/docs', express.static(assets, { index: false }));
}

/** A file of the package: beside the sources, or above `dist` when compiled. */
function fromRoot(path: string): string {
  const here = fileURLToPath(new URL('..', import.meta.url));
  return join(/[/\\]dist[/\\]$/.test(here) ? join(here, '..') : here, path);
}
