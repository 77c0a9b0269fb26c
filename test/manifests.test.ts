// Promises of manifests/ about a cluster. No cluster is needed; without kubectl what only kustomize can compute is skipped.
import { randomBytes } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { readSettings } from '../config.js';
import {
  base,
  chosen,
  container,
  containers,
  deployed,
  find,
  kubectl,
  root,
  variables,
  workloads,
  type KubernetesObject,
  type Peer,
} from './kubernetesObjects.js';

const own = ['api', 'controllers'];
const image = 'registry.example.com:5000/syncsets:1.2';

describe('The Kubernetes manifests', () => {
  let objects: KubernetesObject[];
  before(() => {
    objects = base();
  });

  it('hold a namespace, two replicas of the API and of the controllers, one Postgres and one RabbitMQ', () => {
    const replicas = workloads(objects).map(({ kind, metadata, spec }) => [kind, metadata.name, spec.replicas]);
    expect(replicas).to.have.deep.members([
      ['Deployment', 'api', 2],
      ['Deployment', 'controllers', 2],
      ['StatefulSet', 'postgres', 1],
      ['StatefulSet', 'rabbitmq', 1],
    ]);
    expect(find(objects, 'Namespace', 'syncsets').metadata.labels).to.include({
      'pod-security.kubernetes.io/enforce': 'restricted',
    });
  });

  it('run every container without root, on a read-only file system, without capabilities', () => {
    for (const { metadata, spec } of workloads(objects)) {
      const pods = spec.template.spec;
      expect(pods.securityContext, metadata.name).to.deep.include({
        runAsNonRoot: true,
        seccompProfile: { type: 'RuntimeDefault' },
      });
      for (const each of pods.containers) {
        expect(each.securityContext, each.name).to.deep.equal({
          allowPrivilegeEscalation: false,
          readOnlyRootFilesystem: true,
          capabilities: { drop: ['ALL'] },
        });
      }
    }
  });

  it('give no pod a token of the cluster, nor variables named after the services', () => {
    for (const { spec } of workloads(objects)) {
      expect(spec.template.spec).to.include({ automountServiceAccountToken: false, enableServiceLinks: false });
    }
  });

  it('watch every container by three probes and bound what it takes', () => {
    for (const each of containers(objects)) {
      expect(each, each.name).to.include.keys('startupProbe', 'readinessProbe', 'livenessProbe');
      expect(each.resources?.requests, each.name).to.have.keys('cpu', 'memory');
      expect(each.resources?.limits, each.name).to.have.keys('cpu', 'memory');
    }
  });

  it('restart our processes for their own sake only, never because the database is away', () => {
    for (const name of own) {
      const { startupProbe, readinessProbe, livenessProbe } = container(objects, name);
      expect(startupProbe?.httpGet?.path).to.equal('/healthz');
      expect(livenessProbe?.httpGet?.path).to.equal('/healthz');
      expect(readinessProbe?.httpGet?.path).to.equal('/readyz');
    }
  });

  it('replace a pod only after its successor is ready, and leave it the time to finish', () => {
    for (const name of own) {
      const { strategy, template } = find(objects, 'Deployment', name).spec;
      expect(strategy).to.deep.equal({ type: 'RollingUpdate', rollingUpdate: { maxSurge: 1, maxUnavailable: 0 } });
      const wait = Number(template.spec.containers[0]?.lifecycle?.preStop.exec.command[1] ?? 0);
      expect(template.spec.terminationGracePeriodSeconds, name).to.be.at.least(30 + wait + 5);
    }
  });

  it('let a drain take one replica at a time, and never block it by a part that runs once', () => {
    const budgets = objects.filter(({ kind }) => kind === 'PodDisruptionBudget');
    expect(budgets.flatMap(({ spec }) => chosen(objects, spec.selector))).to.have.members(own);
    for (const { spec } of budgets)
      expect(spec).to.include({ maxUnavailable: 1 }).and.not.have.property('minAvailable');
  });

  it('select with every workload, service, budget and policy the pods that it is named after', () => {
    for (const { kind, metadata, spec } of objects) {
      if (kind === 'Service') {
        expect(chosen(objects, { matchLabels: spec.selector }), metadata.name).to.deep.equal([metadata.name]);
        const open = container(objects, metadata.name).ports.map(({ name }) => name);
        expect(open, metadata.name).to.include.members(spec.ports.map(({ targetPort }) => targetPort));
      } else if (['Deployment', 'StatefulSet', 'PodDisruptionBudget'].includes(kind)) {
        expect(chosen(objects, spec.selector), `${kind} ${metadata.name}`).to.deep.equal([metadata.name]);
      } else if (kind === 'NetworkPolicy') {
        expect(chosen(objects, spec.podSelector), metadata.name).to.not.be.empty;
      }
    }
  });

  it('mount only volumes that exist', () => {
    for (const { metadata, spec } of workloads(objects)) {
      const { volumes = [], containers: all } = spec.template.spec;
      const claims = spec.volumeClaimTemplates?.map(claim => claim.metadata.name) ?? [];
      const mounted = all.flatMap(each => each.volumeMounts?.map(({ name }) => name) ?? []);
      expect(mounted, metadata.name).to.have.members([...volumes.map(({ name }) => name), ...claims]);
    }
  });

  it('hold no secret: every password, token and key is a reference', () => {
    for (const folder of ['manifests/base', 'manifests/components']) {
      for (const file of readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })) {
        if (!file.includes('.')) continue;
        const text = readFileSync(join(root, folder, file), 'utf8');
        expect(text, file).to.not.match(/kind: Secret\b|:\/\/[^\s/]*:[^\s/]*@|[A-Za-z0-9+/_-]{40,}/);
      }
    }
    for (const each of containers(objects)) {
      for (const { name, value, valueFrom } of each.env) {
        if (!/PASS|TOKEN|KEY|DATABASE_URL|AMQP_URL/.test(name)) continue;
        expect(value, `${each.name} ${name}`).to.equal(undefined);
        expect(valueFrom, `${each.name} ${name}`).to.have.property('secretKeyRef');
      }
    }
  });

  it('set nothing that the product does not know, and nothing that it refuses', () => {
    const known = readFileSync(join(root, 'config.ts'), 'utf8');
    const secrets = { API_TOKEN: randomBytes(24).toString('hex'), ENCRYPTION_KEY: randomBytes(32).toString('base64') };
    const read = (name: string) => {
      const env = variables(container(objects, name));
      for (const setting of Object.keys(env)) expect(known).to.include(`'${setting}'`);
      return readSettings({ ...env, ...secrets });
    };
    // Probes come from outside the container: what they ask listens beyond loopback.
    expect(read('api')).to.include({ host: '0.0.0.0', port: container(objects, 'api').ports[0]?.containerPort });
    expect(read('controllers')).to.include({
      host: '0.0.0.0',
      apiUrl: 'http://api:7070',
      healthPort: container(objects, 'controllers').ports[0]?.containerPort,
    });
  });

  it('give the controllers two URLs and a token, and neither the database nor the encryption key', () => {
    const names = Object.keys(variables(container(objects, 'controllers')));
    expect(names).to.include.members(['API_URL', 'AMQP_URL', 'API_TOKEN']);
    expect(names).to.not.include('DATABASE_URL').and.not.include('ENCRYPTION_KEY');
  });

  it('deny every connection but those that a part needs', () => {
    const policy = (name: string) => find(objects, 'NetworkPolicy', name).spec;
    const partners = (peers: Peer[] | undefined) =>
      (peers ?? []).flatMap(peer => (peer.podSelector ? chosen(objects, peer.podSelector) : []));
    expect(policy('default-deny')).to.deep.equal({ podSelector: {}, policyTypes: ['Ingress', 'Egress'] });
    expect(policy('postgres').ingress?.flatMap(({ from }) => partners(from))).to.deep.equal(['api']);
    expect(policy('rabbitmq').ingress?.flatMap(({ from }) => partners(from))).to.have.members(own);
    expect(policy('api').egress?.flatMap(({ to }) => partners(to))).to.have.members(['postgres', 'rabbitmq']);
    for (const name of ['postgres', 'rabbitmq']) expect(policy(name)).to.not.have.property('egress');
  });

  it('let the controllers reach any cluster, but not where a cloud hands out credentials', () => {
    const targets = find(objects, 'NetworkPolicy', 'controllers').spec.egress?.flatMap(({ to }) => to ?? []);
    const blocks = targets?.flatMap(({ ipBlock }) => ipBlock ?? []);
    expect(blocks?.map(({ cidr }) => cidr)).to.deep.equal(['0.0.0.0/0', '::/0']);
    expect(blocks?.flatMap(({ except }) => except)).to.include.members(['169.254.0.0/16', 'fd00:ec2::254/128']);
  });

  it('pin the version of every foreign image', () => {
    for (const { name, image } of containers(objects)) {
      if (own.includes(name)) expect(image).to.equal('syncsets');
      else expect(image).to.match(/^docker\.io\/library\/\w+:\d+\.\d+/);
    }
  });

  describe('as kustomize puts them together', () => {
    before(function () {
      if (!kubectl) this.skip();
    });

    it('put every object into the namespace, labelled as parts of one application', () => {
      for (const { kind, metadata } of objects) {
        if (kind !== 'Namespace') expect(metadata.namespace, metadata.name).to.equal('syncsets');
        expect(metadata.labels, metadata.name).to.include({ 'app.kubernetes.io/part-of': 'syncsets' });
      }
    });

    it('take the image that make deploy is given, for our containers alone', () => {
      const images = Object.fromEntries(containers(deployed(image)).map(({ name, image }) => [name, image]));
      expect(images.api).to.equal(image);
      expect(images.controllers).to.equal(images.api);
      expect(images.postgres).to.equal(container(objects, 'postgres').image);
    });

    it('serve HTTPS with the component tls, and show the key to the API alone', () => {
      const secured = deployed(image, 'tls');
      const api = container(secured, 'api');
      expect(variables(api)).to.include.keys('TLS_CERT_FILE', 'TLS_KEY_FILE').and.not.have.property('TLS');
      for (const each of [api.startupProbe, api.readinessProbe, api.livenessProbe]) {
        expect(each?.httpGet?.scheme).to.equal('HTTPS');
      }
      expect(variables(container(secured, 'controllers'))).to.include({
        API_URL: 'https://api:7070',
        API_CA_FILE: '/etc/syncsets/tls/ca.crt',
      });
      const { volumes = [] } = find(secured, 'Deployment', 'controllers').spec.template.spec;
      expect(volumes.flatMap(({ secret }) => secret?.items.map(({ key }) => key) ?? [])).to.deep.equal(['ca.crt']);
    });

    it('leave Postgres and RabbitMQ to others with the component external, also together with tls', () => {
      for (const components of [['external'], ['tls', 'external']]) {
        const rest = deployed(image, ...components);
        expect(workloads(rest).map(({ metadata }) => metadata.name)).to.have.members(own);
        expect(JSON.stringify(rest.filter(({ kind }) => kind !== 'NetworkPolicy'))).to.not.match(/postgres|rabbitmq/);
        expect(chosen(rest, find(rest, 'NetworkPolicy', 'api-external').spec.podSelector)).to.deep.equal(['api']);
      }
    });
  });
});
