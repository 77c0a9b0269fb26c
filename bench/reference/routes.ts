import { generateRoutes } from '@tsoa/cli';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { root } from '../processes.js';

/** Where the reference's routes are written: inside the project, because they import from its node_modules; ignored by git. */
const directory = join(root, 'build/bench');
export const routesFile = join(directory, 'routes.ts');

/** Generates the routes of things.ts with tsoa's own template. */
export async function writeRoutes(): Promise<void> {
  const controller = join(import.meta.dirname, 'things.ts');
  mkdirSync(directory, { recursive: true });
  await generateRoutes({
    entryFile: controller,
    controllerPathGlobs: [controller],
    noImplicitAdditionalProperties: 'throw-on-extras',
    bodyCoercion: false,
    routesDir: directory,
    middleware: 'express',
    esm: true,
  });
}
