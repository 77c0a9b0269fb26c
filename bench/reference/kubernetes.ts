import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseKubeconfig, Target } from '../../kubernetes/index.js';
import type { Endpoint, Template } from '../load.js';
import { annotations, kubeconfig, labels } from '../objects.js';

const group = 'bench.syncsets.dev';
const definition = '/apis/apiextensions.k8s.io/v1/customresourcedefinitions';
const collection = `/apis/${group}/v1/namespaces/default/things`;

/** A custom resource of a Kubernetes API server, and the same requests for it as for a cluster of ours. */
export class KubernetesPeer {
  readonly endpoint: Endpoint;
  readonly #target: Target;
  #stopping: Promise<void> | undefined;

  readonly create: Template = {
    method: 'POST',
    path: collection,
    body: JSON.stringify({
      apiVersion: `${group}/v1`,
      kind: 'Thing',
      metadata: { name: '{name}', namespace: 'default', labels, annotations },
      spec: { kubeconfig },
    }),
  };
  readonly get: Template = { method: 'GET', path: `${collection}/{name}` };
  readonly list = collection;
  readonly watch = `${collection}?watch=true`;

  /** @param file a kubeconfig with the rights to define and remove resources */
  constructor(file: string) {
    const access = parseKubeconfig(readFileSync(file, 'utf8'));
    const { server, token, ca, cert, key, tlsServerName, insecureSkipTlsVerify } = access;
    this.#target = new Target(access);
    this.endpoint = {
      url: server.href,
      headers: token === undefined ? {} : { authorization: `Bearer ${token}` },
      tls: { ca, cert, key, servername: tlsServerName, rejectUnauthorized: insecureSkipTlsVerify !== true },
    };
  }

  /** Defines the resource and waits until it is served. */
  async start(): Promise<void> {
    await this.#remove();
    const open = { type: 'object', 'x-kubernetes-preserve-unknown-fields': true };
    await this.#expect(201, 'POST', definition, {
      apiVersion: 'apiextensions.k8s.io/v1',
      kind: 'CustomResourceDefinition',
      metadata: { name: `things.${group}` },
      spec: {
        group,
        scope: 'Namespaced',
        names: { plural: 'things', singular: 'thing', kind: 'Thing' },
        versions: [
          {
            name: 'v1',
            served: true,
            storage: true,
            schema: { openAPIV3Schema: { type: 'object', properties: { spec: open } } },
          },
        ],
      },
    });
    await this.#until(async () => (await this.#target.request({ method: 'GET', path: collection })).status === 200);
    // The first object of a new resource waits for a second or more; it must not count.
    const first = JSON.parse((this.create.body ?? '').replace('{name}', 'first')) as object;
    await this.#expect(201, 'POST', collection, first);
  }

  /** Removes the resource with all objects. May be called again. */
  stop(): Promise<void> {
    return (this.#stopping ??= this.#remove().finally(() => this.#target.close()));
  }

  async #remove(): Promise<void> {
    const path = `${definition}/things.${group}`;
    const { status } = await this.#target.request({ method: 'DELETE', path });
    if (status === 404) return;
    await this.#until(async () => (await this.#target.request({ method: 'GET', path })).status === 404);
  }

  async #expect(status: number, method: string, path: string, body: object): Promise<void> {
    const headers = { accept: 'application/json', 'content-type': 'application/json' };
    const answer = await this.#target.request({ method, path, headers, body: JSON.stringify(body) });
    if (answer.status !== status) throw this.#target.refusal(`${method} ${path}`, answer);
  }

  async #until(condition: () => Promise<boolean>): Promise<void> {
    const end = performance.now() + 60_000;
    while (!(await condition())) {
      if (performance.now() > end)
        throw new Error(`${this.#target.address} did not carry out what was asked within a minute`);
      await sleep(50);
    }
  }
}
