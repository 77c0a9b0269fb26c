// Promises of manifests/monitoring and of the component autoscaling: what they name exists.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { parse } from 'yaml';
import { startControllers } from '../controllers/index.js';
import { deployed, find, kubectl, root } from './kubernetesObjects.js';
import { startApi, type TestApi } from './platform.js';
import { groupingsOf, labelsLeft, readsOf, targetLabels } from './promql.js';
import { sharedRabbit } from './rabbitmq.js';
import { until } from './until.js';

const read = (file: string) => readFileSync(join(root, 'manifests/monitoring', file), 'utf8');

interface Panel {
  title: string;
  targets?: { expr: string; legendFormat: string }[];
}
interface Rule {
  alert: string;
  expr: string;
  labels: Record<string, string>;
  annotations: Record<string, string>;
}

const panels = (JSON.parse(read('dashboard.json')) as { panels: Panel[] }).panels;
const rules = (parse(read('alerts.yaml')) as { spec: { groups: { rules: Rule[] }[] } }).spec.groups.flatMap(
  group => group.rules,
);

const targets = panels.flatMap(({ targets = [] }) => targets);
const metricsOf = (expression: string) => readsOf(expression).map(({ metric }) => metric);

describe('Monitoring', () => {
  /** The metrics that have a value, with their labels. */
  const served = new Map<string, Set<string>>();
  /** Those with a help text, by the name in it. */
  const described = new Set<string>();
  const labelsOf = (metric: string) => served.get(metric) ?? [];
  let ofControllers = '';
  let api: TestApi;

  before(async function () {
    this.timeout(60_000);
    // With a broker, whose metrics are not there without one.
    const { url: amqpUrl } = await sharedRabbit();
    api = await startApi({ amqpUrl });
    await api.call('PUT', '/v1/controllers/mapper', { type: 'clusters', watches: ['secrets'] });
    // A key that is claimed shows how long it was queued.
    await api.call('POST', '/v1/clusters', { name: 'claimed' });
    const claimed = async () => {
      const claim = { worker: 'w', max: 1, waitSeconds: 5 };
      return (await api.call('POST', '/v1/controllers/mapper/claims', claim)).body.claims.length > 0;
    };
    await until(claimed, { what: 'a claim', deadline: 20_000 });
    const controllers = startControllers({ apiUrl: api.url, healthPort: 0, log: () => undefined });
    await controllers.start();
    try {
      const own = `http://127.0.0.1:${String(controllers.healthPort)}/metrics`;
      const text = async () => (await fetch(own)).text();
      await until(async () => (await text()).includes('method="PUT"'), { what: 'the registrations', deadline: 20_000 });
      for (const url of [api.url, `http://127.0.0.1:${String(controllers.healthPort)}`]) {
        const text = (ofControllers = await (await fetch(`${url}/metrics`)).text());
        for (const [, name = ''] of text.matchAll(/^# TYPE (\w+)/gm)) described.add(name);
        for (const [, name = '', labels = ''] of text.matchAll(/^(\w+)(?:\{(.*)\})? \S+$/gm))
          served.set(
            name,
            new Set([...labelsOf(name), ...[...labels.matchAll(/(\w+)="/g)].map(([, one = '']) => one)]),
          );
      }
    } finally {
      await controllers.stop();
    }
  });
  after(() => api.stop());

  it('draws in its dashboard only metrics that the API or the controllers serve', () => {
    const drawn = targets.flatMap(({ expr }) => metricsOf(expr));
    expect(drawn).to.include.members([
      'workqueue_depth',
      'controller_runtime_reconcile_total',
      'rest_client_requests_total',
    ]);
    expect(drawn.filter(name => !served.has(name))).to.deep.equal([]);
  });

  it('alerts on metrics that the API or the controllers serve', () => {
    for (const { alert, expr } of rules) {
      const named = metricsOf(expr);
      expect(named, alert).to.not.be.empty;
      expect(
        named.filter(name => !served.has(name)),
        alert,
      ).to.deep.equal([]);
    }
  });

  it('selects, groups and matches by labels that those metrics have, and names no others', () => {
    const has = (metric: string, label: string) =>
      targetLabels.includes(label) || [...labelsOf(metric)].includes(label);
    const check = (expr: string, words: string) => {
      for (const { metric, labels } of readsOf(expr))
        for (const label of labels) expect(has(metric, label), `${metric} has ${label}: ${expr}`).to.equal(true);
      for (const { metrics, labels } of groupingsOf(expr)) {
        expect(metrics, expr).to.not.be.empty;
        for (const metric of metrics)
          for (const label of labels) expect(has(metric, label), `${metric} has ${label}: ${expr}`).to.equal(true);
      }
      const told = [...words.matchAll(/\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}/g)].map(([, label]) => label);
      expect(labelsLeft(expr, labelsOf), `${words}: ${expr}`).to.include.members(told);
    };
    for (const { expr, legendFormat } of targets) check(expr, legendFormat);
    for (const { expr, annotations } of rules) check(expr, Object.values(annotations).join(' '));
    expect(() => check('sum by (job, contoller) (syncsets_hung_reconciles)', '')).to.throw('has contoller');
    expect(() => check('max by (name) (workqueue_depth{nmae="a"}) > 0', '')).to.throw('has nmae');
    expect(() => check('min(syncsets_broker_connected)', '{{type}}')).to.throw('{{type}}');
  });

  it('draws, or alerts on, everything that the platform serves of itself', () => {
    const named = [...targets, ...rules].flatMap(({ expr }) => metricsOf(expr));
    const own = [...described].filter(name => !/^(process|nodejs)_/.test(name));
    const seen = (name: string) => ['', '_bucket', '_count', '_sum'].some(part => named.includes(name + part));
    expect(own.filter(name => !seen(name))).to.deep.equal([]);
  });

  it('tells the bounds of the event log that the alert on its age compares with', async () => {
    const text = await (await fetch(`${api.url}/metrics`)).text();
    expect(text).to.include('syncsets_event_log_max_bytes{type="clusters"} 4294967296');
    expect(text).to.include('syncsets_event_log_keep_seconds{type="clusters"} 86400');
  });

  it('counts the requests of controllers as controller-runtime does, by status, method and host', () => {
    const { host } = new URL(api.url);
    expect(ofControllers).to.match(
      new RegExp(`^rest_client_requests_total\\{code="200",method="PUT",host="${host}"\\} [1-9]`, 'm'),
    );
  });

  it('says with every alert what is wrong, how bad it is and what to do', () => {
    for (const { alert, labels, annotations } of rules) {
      expect(annotations, alert).to.have.keys('summary', 'action');
      expect(labels.severity, alert).to.be.oneOf(['info', 'warning', 'critical']);
    }
    expect(new Set(rules.map(({ alert }) => alert)).size).to.equal(rules.length);
  });

  it('shows every panel of its own kind, with a title of its own', () => {
    const titles = panels.map(({ title }) => title);
    expect(new Set(titles).size).to.equal(titles.length);
  });

  describe('as kustomize puts it together', () => {
    before(function () {
      if (!kubectl) this.skip();
    });

    it('is scraped with the token of the API, over HTTPS with the component tls, in whatever order they are named', () => {
      const endpoint = (...components: string[]) =>
        find(deployed('syncsets:1', ...components), 'ServiceMonitor', 'api').spec.endpoints[0];
      expect(endpoint('monitoring'))
        .to.deep.include({ authorization: { credentials: { name: 'syncsets', key: 'api-token' } } })
        .and.not.have.property('scheme');
      expect(endpoint('tls', 'monitoring')).to.include({ scheme: 'https' });
    });

    it('scales by a metric that is served, for each controller of the product, and leaves the replicas to the autoscalers', async () => {
      const objects = deployed('syncsets:1', 'autoscaling');
      const { triggers } = find(objects, 'ScaledObject', 'controllers').spec;
      const places = triggers.map(({ metadata }) => metadata.valueLocation);
      const text = await (await fetch(`${api.url}/metrics`)).text();
      const offered = [...text.matchAll(/^(workqueue_depth\{name="[^"]+"\})/gm)].map(([place]) => place);
      expect(places).to.have.members(offered.filter(place => !place.includes('mapper')));
      for (const name of ['api', 'controllers']) {
        expect(find(objects, 'Deployment', name).spec).to.not.have.property('replicas');
      }
    });

    it('scales by what the API serves over HTTPS too, which KEDA trusts by the certificate of the component tls', () => {
      const objects = deployed('syncsets:1', 'tls', 'autoscaling');
      const trusted = { parameter: 'ca', name: 'api-tls', key: 'ca.crt' };
      for (const { metadata, authenticationRef } of find(objects, 'ScaledObject', 'controllers').spec.triggers) {
        expect(metadata).to.include({ url: 'https://api.syncsets.svc:7070/metrics', authMode: 'bearer' });
        const { secretTargetRef } = find(objects, 'TriggerAuthentication', authenticationRef.name).spec;
        expect(secretTargetRef.map(({ parameter }) => parameter)).to.have.members(['token', 'ca']);
        expect(secretTargetRef).to.deep.include(trusted);
      }
      const alone = find(deployed('syncsets:1', 'autoscaling'), 'TriggerAuthentication', 'api-token').spec;
      expect(alone.secretTargetRef).to.not.deep.include(trusted);
    });
  });
});
