// The objects of manifests/ as kubectl would send them to a cluster, and ways to find something in them.
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { parse, parseAllDocuments } from 'yaml';
import { objectMismatches } from './kubernetesShapes.js';

/** The folder that holds manifests/. */
export const root = join(import.meta.dirname, '..');

export interface Labels {
  [label: string]: string;
}
export interface Selector {
  matchLabels?: Labels;
  matchExpressions?: { key: string; operator: string; values: string[] }[];
}
export interface Probe {
  httpGet?: { path: string; port: string; scheme?: string };
}
export interface Container {
  name: string;
  image: string;
  env: { name: string; value?: string; valueFrom?: { secretKeyRef: { name: string; key: string } } }[];
  ports: { name: string; containerPort: number }[];
  startupProbe?: Probe;
  readinessProbe?: Probe;
  livenessProbe?: Probe;
  lifecycle?: { preStop: { exec: { command: string[] } } };
  resources?: { requests: Labels; limits: Labels };
  securityContext?: unknown;
  volumeMounts?: { name: string }[];
}
export interface Peer {
  podSelector?: Selector;
  ipBlock?: { cidr: string; except: string[] };
}

/** One object, with the fields of all kinds that the tests read: a test asks only for those of the kind at hand. */
export interface KubernetesObject {
  kind: string;
  metadata: { name: string; namespace?: string; labels?: Labels };
  spec: {
    replicas: number;
    strategy: unknown;
    selector: Selector & Labels;
    template: {
      metadata: { labels: Labels };
      spec: {
        automountServiceAccountToken: boolean;
        enableServiceLinks: boolean;
        terminationGracePeriodSeconds: number;
        securityContext: Record<string, unknown>;
        containers: Container[];
        volumes?: { name: string; secret?: { items: { key: string }[] } }[];
      };
    };
    volumeClaimTemplates?: { metadata: { name: string } }[];
    ports: { targetPort: string }[];
    podSelector: Selector;
    ingress?: { from?: Peer[] }[];
    egress?: { to?: Peer[] }[];
    endpoints: { scheme?: string; authorization?: object }[];
    triggers: { metadata: Labels; authenticationRef: { name: string } }[];
    secretTargetRef: { parameter: string; name: string; key: string }[];
  };
}

/** Whether kubectl, and with it kustomize, is on this machine. */
export const kubectl = spawnSync('kubectl', ['kustomize', '--help']).status === 0;

function run(command: string, ...args: string[]): string {
  const { error, status, stdout, stderr } = spawnSync(command, args, { cwd: root, encoding: 'utf8' });
  if (error) throw error;
  expect(status, stderr).to.equal(0);
  return stdout;
}

// As YAML 1.1, because kubectl does: an unquoted `off` is a truth value there. The cast stands on the check of the shape:
// what is there has the type that Kubernetes gives it.
function read(yaml: string): KubernetesObject[] {
  return parseAllDocuments(yaml, { version: '1.1' }).map(document => {
    const object: unknown = document.toJS();
    expect(objectMismatches(object)).to.deep.equal([]);
    return object as KubernetesObject;
  });
}

/** manifests/base, rendered by kustomize; without kubectl the files that it lists, as they are. */
export function base(): KubernetesObject[] {
  if (kubectl) return read(run('kubectl', 'kustomize', 'manifests/base'));
  const file = (name: string) => readFileSync(join(root, 'manifests/base', name), 'utf8');
  const { resources } = parse(file('kustomization.yaml')) as { resources: string[] };
  return resources.flatMap(name => read(file(name)));
}

/** What `make deploy` applies for an image, with components of manifests/components. Needs kubectl. */
export function deployed(image: string, ...components: string[]): KubernetesObject[] {
  return read(run('manifests/deploy.sh', '--print', image, ...components));
}

export function find(objects: KubernetesObject[], kind: string, name: string): KubernetesObject {
  const found = objects.find(object => object.kind === kind && object.metadata.name === name);
  return found ?? expect.fail(`no ${kind} ${name}`);
}

export function workloads(objects: KubernetesObject[]): KubernetesObject[] {
  return objects.filter(({ kind }) => kind === 'Deployment' || kind === 'StatefulSet');
}

export function containers(objects: KubernetesObject[]): Container[] {
  return workloads(objects).flatMap(({ spec }) => spec.template.spec.containers);
}

export function container(objects: KubernetesObject[], name: string): Container {
  return containers(objects).find(each => each.name === name) ?? expect.fail(`no container ${name}`);
}

/** The variables of a container; those that are references have no value here. */
export function variables({ env }: Container): Record<string, string | undefined> {
  return Object.fromEntries(env.map(({ name, value }) => [name, value]));
}

/** The names of the workloads whose pods a selector chooses. */
export function chosen(objects: KubernetesObject[], { matchLabels = {}, matchExpressions = [] }: Selector): string[] {
  const fits = (labels: Labels) =>
    Object.entries(matchLabels).every(([label, value]) => labels[label] === value) &&
    matchExpressions.every(({ key, values }) => values.includes(labels[key] ?? ''));
  return workloads(objects)
    .filter(({ spec }) => fits(spec.template.metadata.labels))
    .map(({ metadata }) => metadata.name);
}
