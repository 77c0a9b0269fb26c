// The fields of Kubernetes that the manifests use, as its API reference (v1.34) names and types them. A misspelt field
// is only a warning to some clients and silently nothing to others: `readOnlyRootFilesytem: true` protects nobody.

/**
 * What a value must look like: a word for a leaf, a shape in brackets for a list of such, an object for named fields of
 * which those ending in `!` must be there. `port` is a number or the name of a port, `amount` a quantity such as 250m.
 */
export type Shape = 'text' | 'number' | 'truth' | 'texts' | 'port' | 'amount' | [Shape] | { [field: string]: Shape };

const metadata: Shape = { name: 'text', namespace: 'text', labels: 'texts' };
const selector: Shape = {
  matchLabels: 'texts',
  matchExpressions: [{ key: 'text', operator: 'text', values: ['text'] }],
};

const check: { [field: string]: Shape } = {
  httpGet: { path: 'text', 'port!': 'port', scheme: 'text' },
  tcpSocket: { 'port!': 'port' },
  exec: { 'command!': ['text'] },
};
const probe: Shape = { ...check, periodSeconds: 'number', timeoutSeconds: 'number', failureThreshold: 'number' };
const amounts: Shape = { cpu: 'amount', memory: 'amount', storage: 'amount' };

const container: Shape = {
  'name!': 'text',
  'image!': 'text',
  args: ['text'],
  env: [{ 'name!': 'text', value: 'text', valueFrom: { secretKeyRef: { 'name!': 'text', 'key!': 'text' } } }],
  ports: [{ name: 'text', 'containerPort!': 'number' }],
  startupProbe: probe,
  readinessProbe: probe,
  livenessProbe: probe,
  lifecycle: { preStop: check },
  resources: { requests: amounts, limits: amounts },
  securityContext: {
    allowPrivilegeEscalation: 'truth',
    readOnlyRootFilesystem: 'truth',
    capabilities: { drop: ['text'] },
  },
  volumeMounts: [{ 'name!': 'text', 'mountPath!': 'text', subPath: 'text', readOnly: 'truth' }],
};

const template: Shape = {
  metadata,
  'spec!': {
    automountServiceAccountToken: 'truth',
    enableServiceLinks: 'truth',
    terminationGracePeriodSeconds: 'number',
    dnsConfig: { options: [{ 'name!': 'text', value: 'text' }] },
    securityContext: {
      runAsNonRoot: 'truth',
      runAsUser: 'number',
      runAsGroup: 'number',
      fsGroup: 'number',
      fsGroupChangePolicy: 'text',
      seccompProfile: { 'type!': 'text' },
    },
    topologySpreadConstraints: [
      { 'topologyKey!': 'text', 'maxSkew!': 'number', 'whenUnsatisfiable!': 'text', labelSelector: selector },
    ],
    'containers!': [container],
    volumes: [
      {
        'name!': 'text',
        configMap: { name: 'text' },
        emptyDir: { medium: 'text', sizeLimit: 'amount' },
        secret: { secretName: 'text', items: [{ 'key!': 'text', 'path!': 'text' }] },
      },
    ],
  },
};

const peers: Shape = [
  { podSelector: selector, namespaceSelector: selector, ipBlock: { 'cidr!': 'text', except: ['text'] } },
];
const ports: Shape = [{ protocol: 'text', port: 'port', endPort: 'number' }];

const specs: { [kind: string]: { [field: string]: Shape } } = {
  'v1 Namespace': {},
  'v1 ConfigMap': { 'data!': 'texts' },
  'v1 Service': {
    'spec!': {
      clusterIP: 'text',
      'selector!': 'texts',
      'ports!': [{ name: 'text', 'port!': 'number', targetPort: 'port' }],
    },
  },
  'apps/v1 Deployment': {
    'spec!': {
      replicas: 'number',
      progressDeadlineSeconds: 'number',
      strategy: { type: 'text', rollingUpdate: { maxSurge: 'port', maxUnavailable: 'port' } },
      'selector!': selector,
      'template!': template,
    },
  },
  'apps/v1 StatefulSet': {
    'spec!': {
      replicas: 'number',
      serviceName: 'text',
      'selector!': selector,
      'template!': template,
      volumeClaimTemplates: [{ metadata, 'spec!': { 'accessModes!': ['text'], 'resources!': { requests: amounts } } }],
    },
  },
  'policy/v1 PodDisruptionBudget': {
    'spec!': {
      minAvailable: 'port',
      maxUnavailable: 'port',
      unhealthyPodEvictionPolicy: 'text',
      'selector!': selector,
    },
  },
  'autoscaling/v2 HorizontalPodAutoscaler': {
    'spec!': {
      'scaleTargetRef!': { 'apiVersion!': 'text', 'kind!': 'text', 'name!': 'text' },
      minReplicas: 'number',
      'maxReplicas!': 'number',
      'metrics!': [
        {
          'type!': 'text',
          containerResource: {
            'name!': 'text',
            'container!': 'text',
            'target!': { 'type!': 'text', averageValue: 'amount' },
          },
        },
      ],
      behavior: {
        scaleDown: {
          stabilizationWindowSeconds: 'number',
          policies: [{ 'type!': 'text', 'value!': 'number', 'periodSeconds!': 'number' }],
        },
      },
    },
  },
  'networking.k8s.io/v1 NetworkPolicy': {
    'spec!': {
      'podSelector!': selector,
      'policyTypes!': ['text'],
      ingress: [{ from: peers, ports }],
      egress: [{ to: peers, ports }],
    },
  },
};

const endpoint: Shape = {
  'port!': 'text',
  'path!': 'text',
  interval: 'text',
  scheme: 'text',
  authorization: { 'credentials!': { 'name!': 'text', 'key!': 'text' } },
  tlsConfig: { ca: { secret: { 'name!': 'text', 'key!': 'text' } }, serverName: 'text' },
};

// Of operators that a cluster may have: Prometheus' 0.86, KEDA's 2.18.
const foreign: typeof specs = {
  'monitoring.coreos.com/v1 ServiceMonitor': { 'spec!': { 'selector!': selector, 'endpoints!': [endpoint] } },
  'monitoring.coreos.com/v1 PrometheusRule': {
    'spec!': {
      'groups!': [
        {
          'name!': 'text',
          'rules!': [{ 'alert!': 'text', 'expr!': 'text', for: 'text', 'labels!': 'texts', 'annotations!': 'texts' }],
        },
      ],
    },
  },
  'keda.sh/v1alpha1 ScaledObject': {
    'spec!': {
      'scaleTargetRef!': { 'name!': 'text' },
      minReplicaCount: 'number',
      maxReplicaCount: 'number',
      pollingInterval: 'number',
      cooldownPeriod: 'number',
      'triggers!': [
        { 'type!': 'text', metricType: 'text', 'metadata!': 'texts', authenticationRef: { 'name!': 'text' } },
      ],
    },
  },
  'keda.sh/v1alpha1 TriggerAuthentication': {
    'spec!': { secretTargetRef: [{ 'parameter!': 'text', 'name!': 'text', 'key!': 'text' }] },
  },
};

const leaves: { [shape: string]: (value: unknown) => boolean } = {
  text: value => typeof value === 'string',
  number: value => Number.isInteger(value),
  truth: value => typeof value === 'boolean',
  texts: value => isObject(value) && Object.values(value).every(text => typeof text === 'string'),
  port: value => Number.isInteger(value) || typeof value === 'string',
  amount: value => typeof value === 'string' && /^\d+(\.\d+)?(m|[kMGT]i?|Ki)?$/.test(value),
};

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The places, as paths, at which `value` is not of the shape: unknown and missing fields, leaves of another type. */
export function mismatches(value: unknown, shape: Shape, path = ''): string[] {
  if (typeof shape === 'string')
    return leaves[shape]?.(value) ? [] : [`${path}: ${JSON.stringify(value)} is no ${shape}`];
  if (Array.isArray(shape)) {
    if (!Array.isArray(value)) return [`${path} is no list`];
    return value.flatMap((item, index) => mismatches(item, shape[0], `${path}[${index}]`));
  }
  if (!isObject(value)) return [`${path} is no object`];
  const missing = Object.keys(shape).filter(field => field.endsWith('!') && value[field.slice(0, -1)] === undefined);
  return [
    ...missing.map(field => `${path}.${field.slice(0, -1)} is missing`),
    ...Object.entries(value).flatMap(([field, inner]) => {
      const expected = shape[field] ?? shape[`${field}!`];
      return expected ? mismatches(inner, expected, `${path}.${field}`) : [`${path}.${field} is no field`];
    }),
  ];
}

/** The same for a whole object of one of the kinds above; another kind is a mismatch too. */
export function objectMismatches(object: unknown): string[] {
  if (!isObject(object)) return ['no object'];
  const kind = `${String(object.apiVersion)} ${String(object.kind)}`;
  const fields = specs[kind] ?? foreign[kind];
  if (!fields) return [`${kind} is no known kind`];
  return mismatches(object, { apiVersion: 'text', kind: 'text', 'metadata!': metadata, ...fields }, kind);
}
