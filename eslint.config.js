import js from '@eslint/js';
import tseslint from 'typescript-eslint';

// Imports go one way: controllers -> client -> HTTP/AMQP; api -> bus -> db. A controller must run on another machine
// with two URLs, so nothing on its side may reach into the server's rooms.
const rooms = {
  api: ['api', 'bus', 'db', 'kubernetes', 'rendering', 'tracing'],
  bus: ['bus', 'db'],
  db: ['db'],
  client: ['client'],
  controllers: ['controllers', 'client', 'kubernetes', 'rendering', 'tracing'],
  cli: ['cli', 'client'],
  kubernetes: ['kubernetes'],
  rendering: ['rendering'],
  roles: ['roles', 'api', 'bus', 'db', 'client', 'controllers', 'tracing'],
  tracing: ['tracing'],
};
const all = Object.keys(rooms);
const statements = '^\\s*(select|insert into|update|delete from|with|create|alter|drop|listen|notify)\\s';

const roomRules = Object.entries(rooms).map(([room, allowed]) => ({
  files: [`${room}/**/*.ts`],
  ignores: ['**/*.test.ts'],
  rules: {
    'no-restricted-imports': [
      'error',
      {
        patterns: [
          ...all
            .filter(other => !allowed.includes(other))
            .map(other => ({
              regex: `^(\\.\\./)+${other}/`,
              message: `${room}/ must not import ${other}/ (see docs/architecture.md)`,
            })),
          {
            // A role is started by what the settings say; nobody else knows of them.
            regex: room === 'roles' ? '^(\\.\\./)+(logging|main)\\.js$' : '^(\\.\\./)+(config|logging|main)\\.js$',
            message: `${room}/ is given what it needs: main.ts reads settings and makes the log`,
          },
          ...allowed
            .filter(other => other !== room)
            .map(other => ({
              regex: `^(\\.\\./)+${other}/(?!index\\.js$)`,
              message: `Import ${other}/ through its one door, ${other}/index.js`,
            })),
        ],
      },
    ],
  },
}));

export default tseslint.config(
  { ignores: ['node_modules/', 'dist/', 'build/', 'client/generated/', '.data/'] },
  js.configs.recommended,
  ...tseslint.configs.strictTypeChecked,
  {
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true, allowBoolean: true }],
      '@typescript-eslint/no-confusing-void-expression': ['error', { ignoreArrowShorthand: true }],
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_' }],
      '@typescript-eslint/no-misused-promises': ['error', { checksVoidReturn: { arguments: false } }],
      'no-restricted-properties': [
        'error',
        { object: 'process', property: 'env', message: 'Only config.ts reads the environment' },
      ],
      'no-restricted-syntax': [
        'error',
        { selector: `TemplateElement[value.raw=/${statements}/i]`, message: 'SQL belongs in db/' },
        { selector: `Literal[value=/${statements}/]`, message: 'SQL belongs in db/' },
        // The rules of the rooms see static imports alone.
        {
          selector: 'ImportExpression[source.value=/^\\.\\.\\u002f/]',
          message: 'Import other rooms at the top of the file',
        },
      ],
    },
  },
  { files: ['db/**/*.ts'], rules: { 'no-restricted-syntax': 'off' } },
  { files: ['config.ts'], rules: { 'no-restricted-properties': 'off' } },
  ...roomRules,
  {
    files: ['**/*.test.ts', 'test/**/*.ts', 'bench/**/*.ts'],
    rules: {
      'no-restricted-syntax': 'off',
      'no-restricted-properties': 'off',
      '@typescript-eslint/no-unused-expressions': 'off',
      // Tests look into JSON answers whose shape is what they assert.
      '@typescript-eslint/no-unsafe-member-access': 'off',
      '@typescript-eslint/no-unsafe-assignment': 'off',
      '@typescript-eslint/no-unsafe-call': 'off',
      '@typescript-eslint/no-unsafe-return': 'off',
      '@typescript-eslint/no-unsafe-argument': 'off',
      '@typescript-eslint/no-non-null-assertion': 'off',
      '@typescript-eslint/require-await': 'off',
    },
  },
  { files: ['*.js', '**/*.mjs'], ...tseslint.configs.disableTypeChecked },
);
