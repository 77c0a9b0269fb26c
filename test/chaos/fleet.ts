import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect } from '../../client/index.js';
import { until } from '../until.js';
import { ApiProcess, PostgresServer, RabbitNode, WorkerProcess, type Part } from './processes.js';
import { Proxy } from './proxy.js';
import { types, type Scale } from './scale.js';
import type { Violations } from './violations.js';

/**
 * Two API replicas, workers, RabbitMQ and Postgres, each a process of its own, and a proxy on every way between two of them:
 * from each replica to Postgres and to RabbitMQ, from each worker to the API and to RabbitMQ, from writers, watchers and queues.
 */
export class Fleet {
  readonly proxies: Proxy[] = [];
  readonly apis: ApiProcess[] = [];
  readonly workers: WorkerProcess[] = [];
  /** All that can be killed and frozen. */
  readonly parts: Part[] = [];
  readonly journals: string;
  readonly #folder: string;
  #postgres: PostgresServer | undefined;

  private constructor() {
    this.#folder = mkdtempSync(join(tmpdir(), 'syncsets-chaos-'));
    this.journals = join(this.#folder, 'workers');
    mkdirSync(this.journals);
  }

  /** @param settings of the API processes, beside those that lead to the others */
  static async start(scale: Scale, violations: Violations, settings: Record<string, string> = {}): Promise<Fleet> {
    const fleet = new Fleet();
    try {
      await fleet.#start(scale, violations, settings);
    } catch (error) {
      await fleet.stop();
      throw error;
    }
    return fleet;
  }

  /** Ways to the API, each through a proxy of its own that takes the replicas in turn. */
  doors: readonly [string, string, string] = ['', '', ''];
  /** Ways to RabbitMQ for two consumers. */
  brokers: readonly [string, string] = ['', ''];

  /** The database, not through a proxy. */
  get databaseUrl(): string {
    return this.#postgres?.url ?? '';
  }

  /** The replica that leads the relay of a type now; undefined when none says so. */
  async leader(type: string): Promise<ApiProcess | undefined> {
    const leads = await Promise.all(this.apis.map(api => api.leads(type).catch(() => false)));
    return this.apis[leads.indexOf(true)];
  }

  async stop(): Promise<void> {
    await Promise.all([...this.workers, ...this.apis].map(part => part.stop()));
    await Promise.all(this.proxies.map(proxy => proxy.stop()));
    await Promise.all(this.parts.map(part => part.stop()));
    rmSync(this.#folder, { recursive: true, force: true, maxRetries: 10 });
  }

  async #start(scale: Scale, violations: Violations, settings: Record<string, string>): Promise<void> {
    const [postgres, rabbit] = await Promise.all([PostgresServer.start(this.#folder), RabbitNode.start()]);
    this.#postgres = postgres;
    this.parts.push(postgres, rabbit);
    const toRabbit = async (name: string) =>
      (await this.#proxy(`${name} to rabbitmq`, [rabbit.url])).before(rabbit.url);
    for (const name of ['api0', 'api1']) {
      const env = {
        ...settings,
        DATABASE_URL: (await this.#proxy(`${name} to postgres`, [postgres.url])).before(postgres.url),
        AMQP_URL: await toRabbit(name),
      };
      this.apis.push(new ApiProcess(name, env, violations));
    }
    this.parts.push(...this.apis);
    // One after the other: the first brings the database to this release.
    for (const api of this.apis) await api.start();
    const urls = this.apis.map(api => api.url);
    const door = async (name: string, turn = 0) =>
      (await this.#proxy(`${name} to api`, urls, turn)).before(urls[0] ?? '');
    this.doors = [await door('writers'), await door('watchers', 1), await door('queues')];
    this.brokers = [await toRabbit('queue0'), await toRabbit('queue1')];
    for (let i = 0; i < scale.workers; i++) {
      const name = `worker${i}`;
      const args = [await door(name, i), await toRabbit(name), String(scale.seed), String(scale.claimSeconds)];
      this.workers.push(new WorkerProcess(name, this.journals, args, violations));
    }
    this.parts.push(...this.workers);
    await Promise.all(this.workers.map(worker => worker.start()));
    await this.#registered(urls[0] ?? '');
  }

  /** Waits for the registrations: what is made and removed before makes no work. */
  async #registered(url: string): Promise<void> {
    const client = connect({ url });
    for (const type of types)
      await until(() => client.controllers.read(`chaos-${type}`), { what: `chaos-${type}`, deadline: 60_000 });
    await client.close();
  }

  async #proxy(name: string, urls: readonly string[], turn = 0): Promise<Proxy> {
    const proxy = await Proxy.start(
      name,
      urls.map(url => Number(new URL(url).port)),
      turn,
    );
    this.proxies.push(proxy);
    return proxy;
  }
}
