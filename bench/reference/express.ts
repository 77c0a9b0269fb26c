import express, { type Router } from 'express';
import type { AddressInfo } from 'node:net';
import { pathToFileURL } from 'node:url';

/**
 * The reference for requests over HTTP: express 5 and tsoa as their manuals show them, without a database: express.json(), the
 * routes that tsoa generated from things.ts (the file is the argument), its own checks and answers.
 */
const [routesFile = ''] = process.argv.slice(2);
// Generated with this one function, see routes.ts.
const { RegisterRoutes } = (await import(pathToFileURL(routesFile).href)) as { RegisterRoutes: (app: Router) => void };
const app = express();
app.use(express.json());
RegisterRoutes(app);
const server = app.listen(0, '127.0.0.1', () => {
  console.log(`ready: http://127.0.0.1:${(server.address() as AddressInfo).port}`);
});
process.once('SIGTERM', () => {
  server.close();
  server.closeAllConnections();
});
