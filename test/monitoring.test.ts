// Promises of manifests/monitoring and of the component autoscaling: what they name exists.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { parse } from 'yaml';
import { startControllers } from '../controllers/index.js';
import { deployed, find, kubectl, root } from './kubernetesObjects.js';
import { startApi, type TestApi } from './platform.js';
import { sharedRabbit } from './rabbitmq.js';
import { until } from './until.js';

const read = (file: string) => readFileSync(join(root, 'manifests/monitoring', file), 'utf8');

interface Panel {
  title: string;
  targets?: { expr: string }[];
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

/** The metrics that an expression of PromQL reads; all of ours have an underscore, as one of its functions has. */
function metricsOf(expression: string): string[] {
  const bare = expression.replace(/"[^"]*"/g, '').replace(/\b(by|on|without|ignoring)\s*\([^)]*\)/g, '');
  const names = bare.replace(/\{[^}]*\}/g, '').match(/\b[a-z]+(_[a-z0-9]+)+\b/g) ?? [];
  return names.filter(name => name !== 'histogram_quantile' && !name.startsWith('__'));
}

describe('Monitoring', () => {
  const served = new Set<string>();
  let ofControllers = '';
  let api: TestApi;

  before(async function () {
    this.timeout(60_000);
    // With a broker, whose metrics are not there without one.
    const { url: amqpUrl } = await sharedRabbit();
    api = await startApi({ amqpUrl });
    const controllers = startControllers({ apiUrl: api.url, healthPort: 0, log: () => undefined });
    await controllers.start();
    try {
      const own = `http://127.0.0.1:${String(controllers.healthPort)}/metrics`;
      const text = async () => (await fetch(own)).text();
      await until(async () => (await text()).includes('method="PUT"'), { what: 'the registrations', deadline: 20_000 });
      for (const url of [api.url, `http://127.0.0.1:${String(controllers.healthPort)}`]) {
        const text = (ofControllers = await (await fetch(`${url}/metrics`)).text());
        for (const [, name = '', type] of text.matchAll(/^# TYPE (\w+) (\w+)$/gm)) {
          served.add(name);
          if (type === 'histogram') for (const part of ['bucket', 'count', 'sum']) served.add(`${name}_${part}`);
        }
      }
    } finally {
      await controllers.stop();
    }
  });
  after(() => api.stop());

  it('draws in its dashboard only metrics that the API or the controllers serve', () => {
    const drawn = panels.flatMap(({ targets = [] }) => targets.flatMap(({ expr }) => metricsOf(expr)));
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
      expect(places).to.have.members(offered);
      for (const name of ['api', 'controllers']) {
        expect(find(objects, 'Deployment', name).spec).to.not.have.property('replicas');
      }
    });
  });
});
