import { generateSpecAndRoutes } from '@tsoa/cli';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { writeClient } from './generate/client.js';
import type { Document } from './generate/document.js';
import { completeDocument } from './generate/openapi.js';
import { publish } from './generate/publish.js';
import { readTypes } from './generate/read-types.js';
import { splitRoutes } from './generate/split-routes.js';
import { writeSources } from './generate/write-sources.js';

// From the files in api/types to controllers, routes, models, OpenAPI document and client; see docs/decisions/generated-code.md.

const root = join(import.meta.dirname, '..');
const began = performance.now();
try {
  const types = readTypes(root);
  writeSources(root, types);
  await generateSpecAndRoutes({ configuration: join(root, 'tsoa.json') });
  splitRoutes(root);
  const file = join(root, 'build/openapi.json');
  const document = JSON.parse(readFileSync(file, 'utf8')) as Document;
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string };
  completeDocument(document, types, version);
  writeFileSync(file, `${JSON.stringify(publish(document), undefined, 2)}\n`);
  await writeClient(root, document, types);
  console.log(`${types.length} types generated in ${((performance.now() - began) / 1000).toFixed(1)} s`);
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
}
