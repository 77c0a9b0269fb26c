import { expect } from 'chai';
import { Connection } from 'rabbitmq-client';
import { connect, events, type Client } from '../client/index.js';
import { run, type Controller, type Running } from '../controllers/index.js';
import { startApi, type TestApi } from './platform.js';
import { withoutRepeats } from './published.js';
import { startRabbitCluster, type Rabbit } from './rabbitmq.js';
import { until } from './until.js';

const exchange = 'syncsets.events.clusters';
const controller = 'clustered';
const witness = { queue: 'witness', durable: true, arguments: { 'x-queue-type': 'quorum' as const } };

// Three nodes take 14 s to start on two cores, and each loss of one some seconds more.
(process.env.RABBITMQ_CLUSTER ? describe : describe.skip)('a cluster of three RabbitMQ nodes', function () {
  this.timeout(240_000);
  let nodes: Rabbit[] = [];
  let amqpUrl: string;
  let api: TestApi;
  let client: Client;
  let running: Running;
  let broker: Connection;
  const stop = new AbortController();
  let listening: Promise<void>;
  /** Versions, in the order in which they came. */
  const told: number[] = [];
  const reconciled = new Set<string>();
  let written = 0;

  before(async () => {
    nodes = await startRabbitCluster();
    amqpUrl = nodes.map(({ url }) => url).join(',');
    api = await startApi({ amqpUrl });
    client = connect({ url: api.url, amqpUrl });
    broker = new Connection({
      url: nodes[0]!.url,
      hosts: hosts(),
      retryLow: 100,
      retryHigh: 500,
      acquireTimeout: 60_000,
    });
    broker.on('error', () => undefined);
    await broker.exchangeDeclare({ exchange, type: 'fanout', durable: true });
    await broker.queueDeclare(witness);
    await broker.queueBind({ queue: witness.queue, exchange });
    listening = (async () => {
      for await (const { object } of events(client.clusters, { signal: stop.signal }))
        told.push(Number(object.resourceVersion));
    })();
    const quiet = { debug() {}, info() {}, warn() {}, error() {}, child: () => quiet };
    const one: Controller = {
      name: controller,
      type: 'clusters',
      reconcile: async (_, { key }) => void reconciled.add(key.name),
    };
    running = await run([one], { url: api.url, amqpUrl, log: quiet, handleSignals: false });
    await until(async () => (await members(nodes[0]!)) === 3, {
      what: 'the members of the work queue',
      deadline: 30_000,
    });
  });

  after(async () => {
    stop.abort();
    await listening;
    await running.stop();
    await client.close();
    await broker.close();
    await api.stop();
    await Promise.all(nodes.map(node => node.close()));
  });

  const hosts = () => nodes.map(({ url }) => new URL(url).host);
  const members = async (node: Rabbit) =>
    Number(
      /\{ok, (\d+)\}/.exec(
        await node.evaluate(
          `{ok, Q} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"syncsets.work.${controller}">>)), ` +
            'length(maps:get(nodes, amqqueue:get_type_state(Q)))',
        ),
      )?.[1],
    );
  /** Where the platform's own connection is. */
  async function connectedNode(): Promise<Rabbit> {
    return until(
      async () => {
        const mine =
          'fun({_, I}) -> string:find(proplists:get_value(user_provided_name, I, <<>>), "syncsets api") =/= nomatch end';
        for (const node of nodes)
          if ((await node.evaluate(`lists:any(${mine}, ets:tab2list(connection_created))`)) === '{ok, true}')
            return node;
        return undefined;
      },
      { what: 'the connection of the platform', deadline: 30_000 },
    );
  }
  /** Where a quorum queue has its leader. */
  async function leaderNode(queue: string): Promise<Rabbit> {
    return until(
      async () => {
        for (const node of nodes) {
          const answer = await node.evaluate(`ra_leaderboard:lookup_leader('%2F_${queue}')`);
          const leader = nodes.find(({ name }) => answer.includes(name));
          if (leader) return leader;
        }
        return undefined;
      },
      { what: `the leader of ${queue}`, deadline: 30_000 },
    );
  }
  async function write(count: number): Promise<void> {
    for (let i = 0; i < count; i++) {
      const { status } = await api.call('POST', '/v1/clusters', { name: `c${++written}` });
      expect(status).to.equal(201);
    }
  }
  const runningNodes = 'length([N || N <- [node() | nodes()], rabbit:is_running(N)])';
  const isWhole = async (node: Rabbit) => (await node.evaluate(runningNodes)) === '{ok, 3}';
  const whole = (node: Rabbit) => until(() => isWhole(node), { what: 'the node to be back', deadline: 60_000 });
  /** All that was written was worked on, and told once and in order. */
  async function complete(): Promise<void> {
    await until(() => reconciled.size === written, { what: 'all work', deadline: 30_000 });
    await until(() => told.length >= written, { what: 'all events', deadline: 60_000 });
    expect(told).to.deep.equal(Array.from({ length: written }, (_, i) => i + 1));
  }

  it('goes on where the node of the platform and the leader of the queue are lost, and when they come back', async () => {
    await write(20);
    await complete();
    const connected = await connectedNode();
    await connected.kill();
    await write(20);
    await complete();
    await connected.start();
    await whole(connected);
    const leader = await leaderNode(`syncsets.work.${controller}`);
    const killed = leader.kill();
    await write(20);
    await killed;
    await write(20);
    await complete();
    await leader.start();
    await whole(leader);
    await write(20);
    await complete();
  });

  it('goes on where the node of the platform is cut off from the others', async () => {
    const cutOff = await connectedNode();
    await cutOff.evaluate('[begin erlang:set_cookie(N, wrong), erlang:disconnect_node(N) end || N <- nodes()]');
    await write(20);
    await complete();
    expect((await connectedNode()).name).to.not.equal(cutOff.name);
    const others = nodes.map(({ name }) => `'${name}'`).join(', ');
    await cutOff.evaluate(`[erlang:set_cookie(N, erlang:get_cookie()) || N <- [${others}], N =/= node()]`);
    await whole(cutOff);
    await write(20);
    await complete();
  });

  it('is done without while most of its nodes are away, and told everything when they are back', async () => {
    const [one, two] = nodes;
    await Promise.all([one!.kill(), two!.kill()]);
    await write(20);
    await complete();
    await until(async () => (await api.call('GET', '/readyz')).body.broker === 'away', {
      what: '/readyz to say so',
      deadline: 30_000,
    });
    await Promise.all([one!.start(), two!.start()]);
    await Promise.all(nodes.map(whole));
    await until(async () => (await api.call('GET', '/readyz')).body.broker === 'ok', {
      what: '/readyz',
      deadline: 30_000,
    });
    await write(20);
    await complete();
  });

  it('has brought every event to a durable queue, in order', async () => {
    const versions: number[] = [];
    const drain = async () => {
      for (;;) {
        const message = await broker.basicGet({ queue: witness.queue, noAck: true });
        if (!message) break;
        versions.push(Number(message.headers?.['resourceVersion']));
      }
      return versions.at(-1) === written;
    };
    await until(drain, { what: 'the last event', deadline: 30_000 });
    expect(withoutRepeats(versions)).to.deep.equal(Array.from({ length: written }, (_, i) => i + 1));
  });
});
