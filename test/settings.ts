import { readFileSync } from 'node:fs';
import { join } from 'node:path';

/** The names of all variables that config.ts reads, in its own words. */
export function variables(): string[] {
  const source = readFileSync(join(import.meta.dirname, '..', 'config.ts'), 'utf8');
  const found = source.matchAll(/\b(?:text|port|oneOf|url|broker|file)\('([A-Z][A-Z_]+)'/g);
  return [...new Set([...found].map(([, name = '']) => name))];
}
