// Promises of the compose file, the Containerfile and secrets.sh. No container engine is needed: the files are read as
// an engine reads them, the script is run.
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { parseEnv } from 'node:util';
import { expect } from 'chai';
import { parse } from 'yaml';
import { readSettings } from '../config.js';
import { base, container, root, type KubernetesObject } from './kubernetesObjects.js';

const text = (path: string) => readFileSync(join(root, path), 'utf8');

interface Service {
  image: string;
  user?: string;
  read_only: boolean;
  cap_drop: string[];
  security_opt: string[];
  environment: Record<string, string>;
  ports?: string[];
  networks: string[];
  healthcheck: { test: string[] };
}
let objects: KubernetesObject[];
const readBase = () => {
  objects = base();
};

describe('The compose file', () => {
  before(readBase);

  const { services } = parse(text('manifests/compose.yaml'), { merge: true }) as { services: Record<string, Service> };
  const service = (name: string): Service => services[name] ?? expect.fail(`no service ${name}`);

  it('starts what the Kubernetes base starts, from the same images, with the same settings', () => {
    expect(Object.keys(services)).to.have.members(['postgres', 'rabbitmq', 'api', 'controllers']);
    for (const name of ['postgres', 'rabbitmq']) expect(service(name).image).to.equal(container(objects, name).image);
    for (const name of ['api', 'controllers']) {
      expect(Object.keys(service(name).environment)).to.have.members(
        container(objects, name).env.map(each => each.name),
      );
    }
  });

  it('hardens every service as the base does, and asks each whether it is well', () => {
    for (const [name, each] of Object.entries(services)) {
      expect(each, name).to.deep.include({
        read_only: true,
        cap_drop: ['ALL'],
        security_opt: ['no-new-privileges:true'],
      });
      expect(each.user ?? '1000:1000', name).to.match(/^[1-9]\d*:[1-9]\d*$/);
      expect(each.healthcheck.test[0], name).to.equal('CMD');
    }
  });

  it('publishes the API on loopback and nothing else, so that controllers can be scaled', () => {
    const published = Object.entries(services).flatMap(([name, { ports = [] }]) => ports.map(port => [name, port]));
    expect(published).to.deep.equal([['api', '127.0.0.1:7070:7070']]);
    expect(services.controllers).to.not.have.property('container_name');
  });

  it('shows the database to the API alone', () => {
    const reach = Object.entries(services).filter(([, { networks }]) => networks.includes('database'));
    expect(reach.map(([name]) => name)).to.have.members(['postgres', 'api']);
  });

  it('holds no secret of its own, and with those of secrets.sh gives settings that the product accepts', () => {
    const folder = mkdtempSync(join(tmpdir(), 'compose-'));
    try {
      execFileSync('manifests/secrets.sh', ['compose', join(folder, 'env')], { cwd: root });
      const secrets = parseEnv(readFileSync(join(folder, 'env'), 'utf8'));
      for (const [name, { environment }] of Object.entries(services)) {
        const env: Record<string, string> = {};
        for (const [setting, value] of Object.entries(environment)) {
          if (/PASS|TOKEN|KEY|DATABASE_URL|AMQP_URL/.test(setting)) expect(value, setting).to.include('${');
          env[setting] = value.replace(/\$\{(\w+):\?[^}]*\}/g, (_, key: string) => secrets[key] ?? expect.fail(key));
        }
        if (name === 'api') {
          expect(readSettings(env)).to.include({
            host: '0.0.0.0',
            port: 7070,
            tls: undefined,
            databaseUrl: env.DATABASE_URL,
          });
        } else if (name === 'controllers') {
          expect(readSettings(env)).to.include({ apiUrl: 'http://api:7070', healthPort: 8081, databaseUrl: undefined });
        }
      }
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

describe('manifests/secrets.sh', () => {
  let folder: string;
  before(readBase);
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'secrets-'));
  });
  afterEach(() => {
    rmSync(folder, { recursive: true });
  });

  it('writes a file that only its owner reads, never twice, and never the same secrets', () => {
    const [first, second] = [join(folder, 'first'), join(folder, 'second')];
    const write = (file: string) =>
      execFileSync('manifests/secrets.sh', ['compose', file], { cwd: root, encoding: 'utf8' });
    const said = write(first);
    const content = readFileSync(first, 'utf8');
    expect(statSync(first).mode & 0o777).to.equal(0o600);
    write(first);
    write(second);
    expect(readFileSync(first, 'utf8')).to.equal(content);
    const other = Object.values(parseEnv(readFileSync(second, 'utf8')));
    for (const value of Object.values(parseEnv(content))) {
      expect(value).to.have.length.greaterThan(30);
      expect(said).to.not.include(value);
      expect(other).to.not.include(value);
    }
    expect(readdirSync(folder)).to.have.members(['first', 'second']);
  });

  /** An empty namespace, behind a kubectl that logs its commands and keeps the values that it is given as files. */
  const kubectl = `#!/usr/bin/env bash
    cd "$(dirname "$0")" && mkdir -p made && echo "$*" >> log
    case "$3 $4" in
      'get secrets') ls made | sed s,^,secret/, ;;
      'get secret') base64 "made/$5/password" ;;
      'create secret') cp -r "\${7#--from-file=}" "made/$6" ;;
    esac`;
  function makeSecrets(args: string[] = [], urls: Record<string, string> = {}) {
    writeFileSync(join(folder, 'kubectl'), kubectl, { mode: 0o755 });
    const env = { PATH: `${folder}:${process.env.PATH ?? ''}`, ...urls };
    return spawnSync('manifests/secrets.sh', ['kubernetes', ...args], { cwd: root, encoding: 'utf8', env });
  }
  const made = (name: string, key: string) => readFileSync(join(folder, 'made', name, key), 'utf8');

  it('makes every secret that a pod refers to, and passes none of them as an argument', () => {
    const run = makeSecrets();
    expect(run.stderr).to.equal('');
    const references = ['api', 'controllers', 'postgres', 'rabbitmq'].flatMap(name =>
      container(objects, name).env.flatMap(({ valueFrom }) => valueFrom?.secretKeyRef ?? []),
    );
    expect(references).to.not.be.empty;
    for (const { name, key } of references) {
      expect(made(name, key)).to.have.length.greaterThan(30);
      expect(readFileSync(join(folder, 'log'), 'utf8') + run.stdout).to.not.include(made(name, key));
    }
    expect(made('syncsets', 'database-url')).to.include(`:${made('postgres', 'password')}@postgres:5432/`);
    expect(made('syncsets', 'amqp-url')).to.include(`:${made('rabbitmq', 'password')}@rabbitmq:5672`);
  });

  it('leaves what is there, and gives a lost secret the passwords that the servers know', () => {
    makeSecrets();
    const [key, url] = [made('syncsets', 'encryption-key'), made('syncsets', 'database-url')];
    expect(makeSecrets().stdout).to.include('stays as it is');
    expect(made('syncsets', 'encryption-key')).to.equal(key);
    rmSync(join(folder, 'made', 'syncsets'), { recursive: true });
    makeSecrets();
    expect(made('syncsets', 'database-url')).to.equal(url);
  });

  it('takes the URLs of servers that live elsewhere, and refuses to guess them', () => {
    expect(makeSecrets(['external']).stderr).to.include('DATABASE_URL');
    const urls = { DATABASE_URL: 'postgres://u:p"w@db.example.com/x', AMQP_URL: 'amqps://mq.example.com' };
    expect(makeSecrets(['external'], urls).stderr).to.equal('');
    expect(made('syncsets', 'database-url')).to.equal(urls.DATABASE_URL);
    expect(readdirSync(join(folder, 'made'))).to.deep.equal(['syncsets']);
  });
});

describe('The Containerfile', () => {
  const stages = text('manifests/Containerfile')
    .split(/^FROM /m)
    .slice(1);
  const last = stages.at(-1) ?? '';

  it('runs as a number that is not root, through Node itself, so that signals arrive', () => {
    expect(last).to.match(/^USER [1-9]\d*:[1-9]\d*$/m);
    expect(last).to.include('ENTRYPOINT ["node", "--enable-source-maps", "dist/main.js"]');
  });

  it('keeps of the build what was compiled, and installs for running neither tools nor the embedded Postgres', () => {
    expect(last.match(/^COPY .*/gm)).to.deep.equal([
      'COPY --from=dependencies /app/node_modules ./node_modules',
      'COPY --from=build /app/package.json ./',
      'COPY --from=build /app/dist ./dist',
      'COPY --from=build /app/build/openapi.json ./build/',
    ]);
    expect(stages[0]).to.include('make generate build');
    expect(stages[1]).to.include('npm ci --ignore-scripts --omit=dev --omit=optional');
  });

  it('has one Node in all stages, which package.json allows and the README calls tested', () => {
    const versions = stages.map(stage => /^docker\.io\/library\/node:(\d+\.\d+)\.\d+-bookworm/.exec(stage)?.[1]);
    const [version = 'none', ...others] = new Set(versions);
    expect(others).to.deep.equal([]);
    const { engines } = JSON.parse(text('package.json')) as { engines: { node: string } };
    const least = engines.node.replace(/^>=/, '');
    expect(version.localeCompare(least, 'en', { numeric: true }), `${version} >= ${least}`).to.be.at.least(0);
    expect(text('README.md')).to.include(`Node.js ${least} or newer`).and.include(`${version}, which the image has`);
  });

  it('sees of the tree its sources, and nothing that may hold a secret', () => {
    const rules = text('.dockerignore')
      .split('\n')
      .filter(line => line && !line.startsWith('#'));
    for (const path of [
      'package.json',
      'package-lock.json',
      '.npmrc',
      'tsconfig.json',
      'tsconfig.build.json',
      'Makefile',
      'config.ts',
      'api/types/clusters.ts',
      'db/migrations/1.sql',
    ]) {
      expect(ignored(path, rules), path).to.equal(false);
    }
    for (const path of [
      '.env',
      'manifests/.env',
      'kubeconfig',
      'ca.pem',
      '.data/postgres/PG_VERSION',
      '.git/config',
      'node_modules/a/b.ts',
      'client/generated/index.ts',
      'db/objects.test.ts',
    ]) {
      expect(ignored(path, rules), path).to.equal(true);
    }
  });
});

/** As container engines read the file: the last rule that fits the path or a folder above it decides. */
function ignored(path: string, rules: string[]): boolean {
  const folders = [path];
  while (dirname(folders[0] ?? '') !== '.') folders.unshift(dirname(folders[0] ?? ''));
  return rules.reduce((decided, rule) => {
    const pattern = rule
      .replace(/^!/, '')
      .replace(/[.+]/g, '\\$&')
      .replace(/(\*\*\/)|\*/g, (_, any: string | undefined) => (any ? '(.*/)?' : '[^/]*'));
    return folders.some(each => new RegExp(`^${pattern}$`).test(each)) ? !rule.startsWith('!') : decided;
  }, false);
}
