import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/**
 * Takes tsoa's models out of `build/routes.ts` into `build/models.ts`, for checks without a route, and puts our checks in place
 * of tsoa's (see api/validation.ts).
 */
export function splitRoutes(root: string): void {
  const file = join(root, 'build/routes.ts');
  const text = readFileSync(file, 'utf8');
  const models = /^const models: TsoaRoute\.Models = \{\n[\s\S]*?^\};\n/m.exec(text)?.[0];
  const service = /^const templateService = new ExpressTemplateService\(models, .*\);$/m;
  if (models === undefined || !service.test(text))
    throw new Error('build/routes.ts does not look as tsoa 6.6.0 writes it');
  const imports = `import { RouteChecks } from '../api/route-checks.js';\n`;
  writeFileSync(
    file,
    text
      .replace(models, '')
      .replace(service, 'const templateService = new RouteChecks();')
      .replace(', ExpressTemplateService }', ' }')
      .replace(`import type { TsoaRoute } from '@tsoa/runtime';\n`, match => `${match}${imports}`),
  );
  writeFileSync(
    join(root, 'build/models.ts'),
    `// Written by \`make generate\`. Not to be edited.\nimport type { TsoaRoute } from '@tsoa/runtime';\n\nexport ${models}`,
  );
}
